"""Metrics at the edges of float32: tiny and huge gradients, coordinates that hardly vary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence import metrics
from coherence.metrics import pool
from tests import zoo

GROUPS = jnp.arange(12) % 2


def draw(m=12, p=30):
    return np.random.default_rng(0).normal(size=(m, p)) + 0.3


FREE_OF_SCALE = [
    co.alpha,
    co.m_coherence,
    co.metrics.alpha_unbiased,
    lambda g: co.alpha(g, groups=GROUPS, num_groups=2),
    metrics.alpha_between,
    metrics.alpha_without,
    metrics.contributions,
    metrics.norm_test,
    metrics.inner_product_test,
    metrics.orthogonality_test,
    metrics.noise_scale,
    metrics.gradient_diversity,
    metrics.batch_size_bound,
    metrics.gsnr,
    metrics.mean_gsnr,
    metrics.one_step_generalization_ratio,
    metrics.evidence,
    metrics.cosine_stiffness,
    metrics.sign_stiffness,
    lambda g: metrics.gradient_confusion(g)[1:],
    lambda g: metrics.shares(g, GROUPS, num_groups=2),
    lambda g: metrics.null_shares(g, GROUPS, jax.random.key(0), num_groups=2),
    lambda g: metrics.stiffness_by_group(g, GROUPS, num_groups=2),
    lambda g: co.metrics.alpha_from_minibatches(g, 5),
]


@pytest.mark.parametrize("scale", [1e-14, 1e-10, 1e10, 1e14])
def test_what_is_free_of_scale_is_so_at_the_ends_of_float32(scale):
    g = draw()
    for metric in FREE_OF_SCALE:
        if metric is metrics.alpha_between:
            metric = lambda g: metrics.alpha_between(g, groups=GROUPS, num_groups=2)
        plain, scaled = metric(jnp.asarray(g)), metric(jnp.asarray(g * scale))
        for a, b in zip(jax.tree.leaves(scaled), jax.tree.leaves(plain)):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-14, 1e14])
def test_what_has_the_scale_of_a_gradient_follows_it(scale):
    g = draw()
    for metric in (metrics.gradient_norm, metrics.gradient_disparity):
        expected = scale * metric(jnp.asarray(g))
        np.testing.assert_allclose(metric(jnp.asarray(g * scale)), expected, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-28, 1e-14, 1e14, 1e28])
def test_curvature_and_kernel_follow_the_scale_of_the_loss_and_the_outputs(scale):
    bowl = lambda w, x: scale * 0.5 * jnp.sum(x * w**2)
    x = jnp.array([[1.0, 3.0, -2.0]])
    found = metrics.sharpness(bowl, jnp.zeros(3), x, jax.random.key(0))
    assert float(found.value) == pytest.approx(3 * scale, rel=1e-3)
    assert float(found.residual) < 1e-3
    x, y = jnp.eye(3), jnp.array([1.0, 0.0, 2.0])
    outputs = lambda w, x: scale**0.5 * w @ x
    kernel = metrics.tangent_kernel_alignment(outputs, jnp.ones(3), x, scale**0.5 * y)
    assert float(kernel) == pytest.approx(1 / np.sqrt(3), rel=1e-4)


def test_a_curvature_of_nothing_is_zero_and_of_nan_is_nan():
    flat = lambda w, x: jnp.sum(x) + 0 * jnp.sum(w)
    found = metrics.sharpness(flat, jnp.ones(2), jnp.ones((2, 1)), jax.random.key(0))
    assert (found.value, found.residual) == (0, 0)
    assert np.isnan(
        metrics.sharpness(
            lambda w, x: jnp.nan * jnp.sum(w**2), jnp.ones(2), jnp.ones((2, 1)), jax.random.key(0)
        ).value
    )


def ratios(g):
    """r_j in float64."""
    g = np.asarray(g, np.float64).reshape(len(g), -1)
    with np.errstate(invalid="ignore"):
        return g.mean(0) ** 2 / g.var(0)


@pytest.mark.parametrize("noise", [1e-2, 5e-4, 2e-5])
@pytest.mark.parametrize("m", [3, 12, 300])
def test_a_coordinate_that_hardly_varies_has_a_finite_ratio(noise, m):
    rng = np.random.default_rng(1)
    hardly = 1 + noise * rng.normal(size=m)
    g = np.c_[draw(m), hardly, -40 * hardly].astype(np.float32)
    expected, rtol = ratios(g), 3e-3 + 1e-7 / noise
    np.testing.assert_allclose(metrics.gsnr(jnp.asarray(g)), expected, rtol=rtol)
    np.testing.assert_allclose(metrics.mean_gsnr(jnp.asarray(g)), expected.mean(), rtol=rtol)
    evidence = 1 - (m - 1) * expected.mean()
    for of in (metrics.evidence, jax.jit(metrics.evidence)):
        np.testing.assert_allclose(of(jnp.asarray(g)), evidence, rtol=rtol)
    parts = [pool(jnp.asarray(part), variances=True) for part in np.array_split(g, 3)]
    pooled = parts[0] + (parts[1] + parts[2])
    np.testing.assert_allclose(metrics.evidence(pooled), evidence, rtol=rtol)
    if m == 12:  # in a group beside others, and beside masked examples
        beside = np.concatenate([g, 5 * draw(12, 32)]).astype(np.float32)
        group = pool(jnp.asarray(beside), groups=np.arange(24) >= 12, variances=True)[0]
        np.testing.assert_allclose(metrics.evidence(group), evidence, rtol=rtol)


def test_factors_of_layers_are_centred_as_rows_are():
    """A layer whose gradient is nearly the same for all examples, and one without."""
    near = lambda x: 1 + 1e-4 * x
    for loss, params, batch in (zoo.dense(), zoo.sequence(), zoo.embedding()):
        gradients = co.per_example_value_and_grad(
            lambda p, e, loss=loss: near(loss(p[0], e)) * jnp.sum(p[1] * p[2])
        )((params, jnp.ones(3), jnp.arange(3.0)), batch)[1]
        rows = [np.asarray(x) for x in jax.tree.leaves(co.gradients.materialize(gradients))]
        for found, row in zip(jax.tree.leaves(metrics.gsnr(gradients)), rows):
            moves = np.abs(row).max(0) > 1e-6
            expected = ratios(row).reshape(moves.shape)
            np.testing.assert_allclose(
                np.asarray(found)[moves], expected[moves], rtol=2e-2, atol=1e-4
            )


@pytest.mark.parametrize("value", [0.1, 1 / 3, -7.3e5, 1e-12])
@pytest.mark.parametrize("m", [2, 7, 1000])
def test_where_all_agree_exactly_the_ratio_is_infinite(value, m):
    g = np.full((m, 2), value, np.float32)
    g[:, 1] = 0
    assert np.isposinf(metrics.gsnr(jnp.asarray(g))[0])
    assert np.isnan(metrics.gsnr(jnp.asarray(g))[1])
    assert metrics.evidence(jnp.asarray(g)) == -np.inf
    assert np.isposinf(metrics.mean_gsnr(jnp.asarray(g)))
