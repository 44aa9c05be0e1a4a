"""Statistics in an optimizer's state are those of the gradients it saw, averaged over steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coherence import per_example_value_and_grad
from coherence.gradients import Stacked
from coherence.metrics import alpha_unbiased, noise_scale
from coherence.optim import (
    average,
    chain,
    scale_by_per_example_rms,
    statistics,
    suggest_batch_size,
    winsorize,
    with_statistics,
)

PARAMS = {"a": {"w": np.zeros((2, 3), np.float32), "b": np.zeros(3, np.float32)}, "c": np.zeros(2)}
PARAMS["c"] = PARAMS["c"].astype(np.float32)


def batch(seed, m=9):
    rng = np.random.default_rng(seed)
    normal = lambda p: (rng.normal(size=(m, *p.shape)) + rng.normal(size=p.shape)).astype(
        np.float32
    )
    return jax.tree.map(normal, PARAMS)


def both(g, paths):
    """The signal and the noise of some leaves, of all pairs of examples, in float64."""
    rows = np.concatenate(
        [np.asarray(g[a][b] if b else g[a], np.float64).reshape(9, -1) for a, b in paths], 1
    )
    pairs = [x @ y for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j]
    signal = np.mean(pairs)
    return signal, np.mean((rows**2).sum(1)) - signal


LAYERS = {"a": [("a", "w"), ("a", "b")], "c": [("c", None)]}
LAYERS["all"] = LAYERS["a"] + LAYERS["c"]


def test_they_are_running_means_of_unbiased_estimates_by_layer():
    tx = chain(with_statistics(winsorize(10), decay=0.8), optax.adam(0.1))
    state, g = tx.init(PARAMS), [batch(seed) for seed in range(3)]
    step = jax.jit(lambda g, state: tx.update(g, state, PARAMS)[1])
    for each in g:
        state = step(each, state)
    read = jax.jit(statistics)(state)
    for name, paths in LAYERS.items():
        weights = 0.8 ** np.arange(3)[::-1]
        signal, noise = weights @ np.array([both(each, paths) for each in g])
        np.testing.assert_allclose(read.noise_scale[name], noise / signal, rtol=1e-4)
        np.testing.assert_allclose(read.snr[name], signal / noise, rtol=1e-4)
        np.testing.assert_allclose(read.alpha[name], signal / (signal + noise), rtol=1e-4)


def test_after_one_step_they_are_the_metrics():
    g, tx = batch(0), with_statistics(average())
    read = statistics(jax.jit(tx.update)(g, tx.init(PARAMS), PARAMS)[1])
    np.testing.assert_allclose(read.alpha["all"], alpha_unbiased(g), rtol=1e-5)
    np.testing.assert_allclose(read.noise_scale["all"], noise_scale(g), rtol=1e-4)


def test_masked_examples_do_not_count():
    keep, g = np.arange(9) % 3 != 1, batch(0)
    tx = with_statistics(average(), by="leaf")
    masked = jax.tree.map(
        lambda x: Stacked(np.where(keep.reshape(9, *[1] * (x.ndim - 1)), x, 0), keep), g
    )
    some, rest = (
        statistics(jax.jit(tx.update)(x, tx.init(PARAMS), PARAMS)[1])
        for x in (masked, jax.tree.map(lambda x: x[keep], g))
    )
    for x, y in zip(jax.tree.leaves(some), jax.tree.leaves(rest)):
        np.testing.assert_allclose(x, y, rtol=1e-4)


def test_layers_of_a_scan_count_together():
    loss = lambda p, x: jnp.sum(jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["w"])[0])
    params = {"w": np.ones((3, 2, 2), np.float32)}
    tx = with_statistics(average())

    @jax.jit
    def step(params, x):
        return tx.update(per_example_value_and_grad(loss)(params, x)[1], tx.init(params), params)

    read = statistics(step(params, batch(0)["c"])[1])
    assert {*read.alpha} == {"all", "w"}
    assert read.alpha["all"] == read.alpha["w"]


@pytest.mark.parametrize(
    ("g", "bounds", "size"),
    [
        ([6.0, -2.0, 4.0, 0.0], (), 20),  # products of two: 2/3 on average; squares: 14
        ([6.0, -2.0, 4.0, 0.0], (32, 64), 32),
        ([6.0, -2.0, 4.0, 0.0], (1, 8), 8),
        ([1.0, -1.0], (1, 8), 8),  # no signal at all
    ],
)
def test_a_batch_is_suggested_whose_noise_equals_its_signal(g, bounds, size):
    tx, g = with_statistics(average()), np.array(g, np.float32)[:, None]
    state = jax.jit(tx.update)(g, tx.init(g[0]), g[0])[1]
    assert suggest_batch_size(state, *bounds) == pytest.approx(size, abs=1 if not bounds else 0)


def test_what_has_no_statistics_says_so():
    tx = with_statistics(average())
    with pytest.raises(ValueError, match="the statistics are nan. Take a step of two examples"):
        suggest_batch_size(tx.init(PARAMS))
    with pytest.raises(ValueError, match=r"holds no statistics: make the optimizer with with_stat"):
        statistics(average().init(PARAMS))
    with pytest.raises(TypeError, match=r"an aggregator such as average\(\), .* got function\."):
        with_statistics(lambda g: g)
    with pytest.raises(ValueError, match=r"with_statistics\(decay\): in \[0, 1\), got 1\."):
        with_statistics(average(), decay=1)


def test_a_layer_may_not_be_called_as_all_of_them_are():
    tx = with_statistics(average())
    with pytest.raises(ValueError, match="a layer is called 'all', the name of all of them"):
        tx.init({"all": jnp.zeros(2), "b": jnp.zeros(2)})
    assert set(tx.init(jnp.zeros(2)).signal) == {"all"}  # a bare array is all there is


def test_steps_do_not_begin_again_below_zero():
    g, tx = jnp.array([[1.0], [3.0]]), scale_by_per_example_rms()
    state = tx.init(jnp.zeros(1))
    last = state._replace(steps=jnp.int32(2**31 - 1), mean=state.mean + 2, square=state.square + 5)
    update, after = tx.update(g, last)
    np.testing.assert_allclose(update, 2 / np.sqrt(5), rtol=1e-5)
    assert after.steps == last.steps


def test_the_mean_square_of_adam_is_over_examples():
    """Several steps, against Adam's recursion in numpy."""
    tx, g = scale_by_per_example_rms(0.9, 0.99, 1e-6), [batch(seed)["a"] for seed in range(3)]
    state, mu, nu = tx.init(PARAMS["a"]), 0.0, 0.0
    step = jax.jit(tx.update)
    for each in g:
        update, state = step(each, state, PARAMS["a"])
        w = np.asarray(each["w"], np.float64)
        mu, nu = 0.9 * mu + 0.1 * w.mean(0), 0.99 * nu + 0.01 * (w**2).mean(0)
    expected = mu / (1 - 0.9**3) / (np.sqrt(nu / (1 - 0.99**3)) + 1e-6)
    np.testing.assert_allclose(update["w"], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"b1": 1}, r"\(b1\): in \[0, 1\), got 1"), ({"eps": -1}, r"\(eps\): at least 0, got -1")],
)
def test_decays_and_eps_are_checked(arguments, said):
    with pytest.raises(ValueError, match=said):
        scale_by_per_example_rms(**arguments)


def test_the_mean_is_not_rounded_before_it_is_compared():
    """In bfloat16 a rounded mean near 1 is up to 0.4 % off, which is more than the noise here."""
    x = (1.003 + 0.02 * jax.random.normal(jax.random.key(0), (64, 50))).astype(jnp.bfloat16)
    tx = with_statistics(average())
    _, state = tx.update(x, tx.init(jnp.zeros(50, jnp.bfloat16)))
    measured = state.noise["all"] / state.signal["all"]
    assert measured == pytest.approx(float(noise_scale(x.astype(jnp.float32))), rel=1e-3)
