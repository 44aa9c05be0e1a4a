"""Losses whose examples interact.

Rows of the coupled Jacobian by one JVP, their squared norms by random signs.
"""

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence.gradients import coupled
from tests import reference, zoo

M = 6


class _Net(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.BatchNorm(use_running_average=False)(linen.Dense(4)(x))
        return linen.Dense(2)(jnp.tanh(x))


def batch_normalized():
    net, x, y = _Net(), zoo.normal(0, M, 3), zoo.normal(1, M, 2)
    variables = jax.jit(net.init)(jax.random.key(0), x)

    def losses(p, batch):
        out, _ = net.apply({**variables, "params": p}, batch[0], mutable=["batch_stats"])
        return 0.5 * jnp.sum((out - batch[1]) ** 2, 1)

    return losses, variables["params"], (x, y)


def jacobian(losses, params, batch):
    """[m, parameters], by the definition."""
    return reference.flat(jax.jacrev(lambda p: losses(p, batch))(params))


def like(params, seed):
    return jax.tree.map(lambda x: zoo.normal(seed, *x.shape), params)


def flat(tree):
    return reference.flat(jax.tree.map(lambda x: x[None], tree))[0]


def test_alignments_are_the_jacobian_times_the_direction():
    losses, params, batch = batch_normalized()
    direction = like(params, 5)
    ours = jax.jit(lambda d: co.gradients.alignments(losses, params, batch, d))(direction)
    np.testing.assert_allclose(
        ours, jacobian(losses, params, batch) @ flat(direction), rtol=1e-4, atol=1e-5
    )


def test_with_independent_examples_they_are_the_per_example_gradients():
    loss, params, batch = zoo.dense()
    losses = lambda p, b: jax.vmap(loss, (None, 0))(p, b)
    _, gradients = co.per_example_value_and_grad(loss)(params, batch)
    direction = co.mean(gradients)
    a = co.gradients.alignments(losses, params, batch, direction)
    np.testing.assert_allclose(a, co.gradients.dot(gradients, direction), rtol=1e-4)
    exact = co.gradients.squared_norm_total(losses, params, batch, jax.random.key(0), 8)
    np.testing.assert_allclose(exact.value, co.gradients.squared_norms(gradients).sum(), rtol=1e-5)
    np.testing.assert_allclose(
        jnp.sum(a / exact.value), co.alpha(gradients), rtol=1e-4
    )  # the examples' shares of alpha


def test_rows_of_the_coupled_jacobian_depend_on_the_companions():
    losses, params, (x, y) = batch_normalized()
    alone = co.gradients.alignments(losses, params, (x[:3], y[:3]), params)
    together = co.gradients.alignments(losses, params, (x, y), params)[:3]
    assert np.abs(np.asarray(alone - together)).max() > 0.01


def test_the_estimate_is_unbiased():
    losses, params, batch = batch_normalized()
    exact = (jacobian(losses, params, batch) ** 2).sum()
    one = lambda key: co.gradients.squared_norm_total(losses, params, batch, key, 2)
    estimates = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 4000))
    values = np.asarray(estimates.value)
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - exact) < 4 * error
    assert error < 0.01 * exact  # so that four of them mean something
    # the square of the stated error is unbiased for the variance
    np.testing.assert_allclose(
        np.mean(np.asarray(estimates.standard_error) ** 2), values.var(), rtol=0.1
    )


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 8])
def test_as_many_probes_as_examples_up_to_a_power_of_two_are_exact(m):
    losses = lambda w, x: jnp.tanh(x @ w)
    w, x = zoo.normal(0, 3), zoo.normal(1, m, 3)
    estimate = co.gradients.squared_norm_total(
        losses, w, x, jax.random.key(2), max(2, 1 << (m - 1).bit_length())
    )
    np.testing.assert_allclose(estimate.value, (jacobian(losses, w, x) ** 2).sum(), rtol=1e-5)
    np.testing.assert_allclose(estimate.standard_error, 0, atol=1e-6)
    np.testing.assert_allclose([estimate.low, estimate.high], [estimate.value] * 2, rtol=1e-5)


def test_unrolled_and_looped_probes_agree_on_what_they_estimate():
    losses = lambda w, x: jnp.tanh(x @ w)
    w, x = zoo.normal(0, 30), zoo.normal(1, 64, 30)
    exact = (jacobian(losses, w, x) ** 2).sum()
    for probes in (8, 32, 48):
        one = jax.jit(lambda key: co.gradients.squared_norm_total(losses, w, x, key, probes))
        estimates = jax.vmap(one)(jax.random.split(jax.random.key(3), 500))
        error = np.std(estimates.value) / np.sqrt(500)
        assert abs(np.mean(estimates.value) - exact) < 4 * error + 1e-5 * exact
        covered = np.mean((estimates.low <= exact * 1.0001) & (exact * 0.9999 <= estimates.high))
        assert covered > 0.85
        assert np.all(np.asarray(estimates.low) >= 0)


def test_one_gradient_is_held_at_a_time():
    losses = lambda w, x: jnp.sum(jnp.tanh(x @ w) ** 2, 1)
    w, x = jnp.zeros((300, 400)), jnp.ones((64, 300))
    for probes in (32, 33):
        assert (probes <= coupled._UNROLLED) == (probes == 32)
        step = jax.jit(
            lambda w, x: co.gradients.squared_norm_total(losses, w, x, jax.random.key(0), probes)
        )
        assert step.lower(w, x).compile().memory_analysis().temp_size_in_bytes < 2 * 4 * w.size


def test_half_precision_sums_in_float32():
    losses = lambda w, x: jnp.tanh(x @ w)
    w, x = zoo.normal(0, 3).astype(jnp.bfloat16), zoo.normal(1, 4, 3).astype(jnp.bfloat16)
    estimate = co.gradients.squared_norm_total(losses, w, x, jax.random.key(0), 4)
    assert estimate.value.dtype == jnp.float32
    np.testing.assert_allclose(estimate.value, (jacobian(losses, w, x) ** 2).sum(), rtol=0.05)


def test_mistakes_are_named():
    losses, params, batch = batch_normalized()
    mean = lambda p, b: losses(p, b).mean()
    key = jax.random.key(0)
    expected = (
        r"losses\(params, batch\) must return one float an example, shape \[m\], got float32 of "
        r"shape \(\).*Did you return the mean"
    )
    with pytest.raises(ValueError, match=r"alignments\(losses\): " + expected):
        co.gradients.alignments(mean, params, batch, params)
    with pytest.raises(ValueError, match=r"squared_norm_total\(losses\): " + expected):
        co.gradients.squared_norm_total(mean, params, batch, key, 4)
    with pytest.raises(
        ValueError, match=r"must return one float an example, shape \[m\], got a tuple"
    ):
        co.gradients.alignments(lambda p, b: (losses(p, b), 0), params, batch, params)
    with pytest.raises(
        ValueError,
        match=r"direction must have the parameters' shapes \{'all': \(3,\)\}, got \{'all': "
        r"\(4,\)\}",
    ):
        co.gradients.alignments(lambda w, x: x @ w, jnp.ones(3), jnp.ones((2, 3)), jnp.ones(4))
    with pytest.raises(
        ValueError,
        match=r"squared_norm_total\(probes\): at least 2, or there is no error bar, got 1",
    ):
        co.gradients.squared_norm_total(losses, params, batch, key, 1)
    with pytest.raises(TypeError, match="leaf all is int32: gradients need floats"):
        co.gradients.alignments(lambda w, x: x @ w, jnp.ones(3, int), jnp.ones((2, 3)), jnp.ones(3))
