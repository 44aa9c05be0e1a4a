"""The mean gradient over the Fisher matrix, against matrices formed in numpy and float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.checks import check_aggregator
from coherence.gradients import Stacked, dot, materialize, per_example_value_and_grad
from coherence.optim import average, kfac, natural_gradient
from tests.optim import twins

M = 24


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def loss(params, example):
    x, y = example
    logits = jnp.tanh(x @ params["first"] + params["bias"]) @ params["second"]
    return -jax.nn.log_softmax(logits)[y]


PARAMS = {"first": normal(5, 4), "bias": normal(4, seed=1), "second": normal(4, 3, seed=2)}
BATCH = normal(M, 5, seed=3), np.random.default_rng(4).integers(3, size=M)


def gradients_of(loss, params, batch, mask=None):
    return jax.jit(per_example_value_and_grad(loss))(params, batch, mask)[1]


def network_gradients(mask=None):
    return gradients_of(loss, PARAMS, BATCH, mask)


def update(tx, gradients):
    return jax.jit(tx.update)(gradients, tx.init(None))[0]


def kronecker(inputs, cotangents, damping):
    """K-FAC of one leaf as the paper writes it: (A + ...)^-1 times the mean times (D + ...)^-1."""
    a, d = (np.asarray(x, np.float64) for x in (inputs, cotangents))
    m = len(a)
    input_squares, cotangent_squares = a.T @ a / m, d.T @ d / m
    pi = np.sqrt(np.trace(input_squares) / len(input_squares))
    pi /= np.sqrt(np.trace(cotangent_squares) / len(cotangent_squares))
    left = np.linalg.inv(input_squares + pi * np.sqrt(damping) * np.eye(a.shape[1]))
    right = np.linalg.inv(cotangent_squares + np.sqrt(damping) / pi * np.eye(d.shape[1]))
    return left @ (a.T @ d / m) @ right


def assert_close(tree, expected, tolerance=1e-5):
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * np.abs(y).max())


@pytest.mark.parametrize("damping", [1e-2, 1.0])
def test_a_networks_step_is_that_of_its_dense_fisher_matrix(damping):
    gradients = network_gradients()
    expected = twins.together(lambda g: twins.over_fisher(g, damping))(materialize(gradients))
    assert_close(update(natural_gradient(damping), gradients), expected)


def test_without_damping_the_step_does_not_depend_on_the_parametrization():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        stretch = rng.normal(size=(6, 6)) + 3 * np.eye(6)
        data = jnp.asarray(rng.normal(size=(40, 6))), jnp.asarray(rng.normal(size=40))
        squared = lambda w, example: (jnp.tanh(example[0] @ w) - example[1]) ** 2
        w, tx = jnp.asarray(rng.normal(size=6)), natural_gradient(1e-8)
        plain = gradients_of(squared, w, data)
        other = lambda v, example: squared(stretch @ v, example)
        stretched = gradients_of(other, jnp.linalg.solve(stretch, w), data)
        step, mapped = update(tx, plain), stretch @ update(tx, stretched)
        np.testing.assert_allclose(mapped, step, rtol=1e-5)
        descents = [update(average(), g) for g in (plain, stretched)]
        assert not np.allclose(stretch @ descents[1], descents[0], rtol=0.1)


def test_without_damping_the_loss_of_every_example_falls_equally_fast():
    g = jnp.asarray(normal(8, 30)) * jnp.arange(1.0, 9.0)[:, None]
    np.testing.assert_allclose(dot(g, update(natural_gradient(1e-3), g)), 1, rtol=1e-3)


def test_a_large_damping_leaves_the_mean():
    g = jnp.asarray(normal(8, 30))
    for tx in (natural_gradient(1e6), kfac(1e6)):
        np.testing.assert_allclose(1e6 * update(tx, g), g.mean(0), rtol=1e-3, atol=1e-6)


def test_a_leaf_of_outer_products_takes_the_kronecker_factors_others_their_own_fisher_matrix():
    gradients, damping = network_gradients(), 1e-2
    step = update(kfac(damping), gradients)
    for name in ("first", "second"):
        assert_close(step[name], kronecker(*gradients[name].rank_one[:2], damping))
    assert_close(step["bias"], twins.over_fisher(np.float64(gradients["bias"].values), damping))


def test_a_transposed_kernel_takes_the_transposed_step():
    of = lambda loss, w: gradients_of(loss, w, (BATCH[0], normal(M, 4, seed=5)))
    w = jnp.asarray(PARAMS["first"])
    plain = of(lambda w, example: jnp.sum(jnp.tanh(example[0] @ w) * example[1]), w)
    turned = of(lambda w, example: jnp.sum(jnp.tanh(w @ example[0]) * example[1]), w.T)
    assert_close(update(kfac(0.1), turned).T, update(kfac(0.1), plain))


def test_where_inputs_and_cotangents_are_independent_kfac_is_exact():
    """All pairs of five inputs and four cotangents: the Fisher matrix is a Kronecker product."""
    with jax.enable_x64(True):
        a, d = np.float64(normal(5, 3)), np.float64(normal(4, 2, seed=1))
        pairs = np.repeat(a, 4, 0), np.tile(d, (5, 1))
        product = lambda w, example: example[0] @ w @ example[1]
        gradients = gradients_of(product, np.zeros((3, 2)), pairs)
        exact = update(natural_gradient(1e-9), gradients)
        np.testing.assert_allclose(update(kfac(1e-14), gradients), exact, rtol=1e-5)


def test_masked_examples_do_not_count_in_kronecker_factors():
    keep = np.arange(M) % 3 != 1
    few = gradients_of(loss, PARAMS, jax.tree.map(lambda x: x[keep], BATCH))
    masked = network_gradients(jnp.asarray(keep))
    assert_close(update(kfac(0.1), masked), update(kfac(0.1), few))


def test_a_layer_without_gradients_stays_where_it_is():
    linear = lambda w, example: 0.0 * (example @ w)[0]
    gradients = gradients_of(linear, jnp.ones((5, 4)), BATCH[0])
    for tx in (natural_gradient(), kfac()):
        np.testing.assert_array_equal(update(tx, gradients), 0)


@pytest.mark.parametrize("make", [natural_gradient, kfac])
def test_a_damping_that_rounding_hides_is_raised(make):
    same = jnp.broadcast_to(jnp.asarray(normal(1, 30)), (20, 30))
    step = update(make(1e-30), same)
    np.testing.assert_allclose(step, same[0] / jnp.sum(same[0] ** 2), rtol=1e-2)


def test_kronecker_factors_of_identical_examples_stay_finite():
    same = jax.tree.map(lambda x: np.broadcast_to(x[:1], x.shape), BATCH)
    gradients = gradients_of(loss, PARAMS, same)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(update(kfac(1e-30), gradients)))


def test_sums_of_half_precision_are_kept_in_float32():
    g = jnp.asarray(normal(50, 30), jnp.bfloat16)
    expected = twins.over_fisher(np.asarray(g, np.float64), 0.1)
    step = update(natural_gradient(0.1), Stacked(g))
    assert step.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(step, np.float64), expected, rtol=5e-3, atol=1e-4)


def test_a_nan_is_not_hidden():
    g = {"w": jnp.array([[1.0, jnp.nan], [1.0, 1.0]]), "v": jnp.ones((2, 3))}
    assert all(np.isnan(x).all() for x in jax.tree.leaves(update(natural_gradient(), g)))
    step = update(kfac(), g)
    assert np.isnan(step["w"]).all()
    assert np.isfinite(step["v"]).all()


def test_kfac_does_all_that_an_aggregator_must_but_needs_factors():
    """Formed rows do not say what their factors were: only the leaf with factors differs."""
    check = check_aggregator(kfac(10.0))
    broken = [finding for finding in check.findings if finding.problem]
    assert [finding.name for finding in broken] == [
        "factors rows and plain arrays agree",
        "masked examples do not count",
    ]
    for finding in broken:
        differing = finding.problem.split("): ")[-1]
        assert differing.startswith("dense by")
        assert "," not in differing


@pytest.mark.parametrize("make", [natural_gradient, kfac])
@pytest.mark.parametrize("damping", [0, -1.0, float("nan"), float("inf")])
def test_dampings_are_positive(make, damping):
    message = rf"{make.__name__}\(damping\): damping is a number above 0, got {damping}\."
    with pytest.raises(ValueError, match=message):
        make(damping)
