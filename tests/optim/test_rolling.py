"""Medians and means of the last few batch gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coherence.optim import chain, rolling_mean, rolling_median

METHODS = pytest.mark.parametrize(
    ("method", "reference"), [(rolling_median, np.median), (rolling_mean, np.mean)]
)


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@METHODS
@pytest.mark.parametrize("window", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("per_example", [True, False])
def test_it_looks_back_over_its_window_and_waits_until_there_is_one(
    method, reference, window, per_example
):
    g, params = random(12, 5, 6), {"w": jnp.zeros(6)}
    tx = method(window)
    state, step = tx.init(params), jax.jit(tx.update)
    for t in range(12):
        update, state = step({"w": g[t] if per_example else g[t].mean(0)}, state, params)
        seen = np.asarray(g.mean(1), np.float64)[max(0, t - window + 1) : t + 1]
        expected = reference(seen, 0) if len(seen) == window else np.zeros(6)
        np.testing.assert_allclose(update["w"], expected, rtol=1e-5, atol=1e-7)
    assert step._cache_size() == 1


def test_one_bad_batch_moves_the_mean_and_not_the_median():
    batches = [jnp.ones(1), jnp.full(1, 1e30), jnp.ones(1)]
    for tx, moved in ((rolling_median(3), False), (rolling_mean(3), True)):
        state = tx.init(jnp.zeros(1))
        for g in batches:
            update, state = tx.update(g, state, jnp.zeros(1))
        assert (update.item() > 1) == moved


@METHODS
def test_replicas_and_scanned_steps_are_each_as_alone(method, reference):
    tx, g = chain(method(3), optax.sgd(0.1)), random(2, 8, 5, 3)

    def train(g, scan=jax.lax.scan):
        def step(carry, g):
            params, state = carry
            change, state = tx.update(g - params, state, params)
            return (optax.apply_updates(params, change), state), None

        return scan(step, (jnp.zeros(3), tx.init(jnp.zeros(3))), g)[0][0]

    def loop(step, carry, steps):
        for one in steps:
            carry = step(carry, one)[0]
        return carry, None

    both = jax.jit(jax.vmap(train))(g)
    for i in range(2):
        np.testing.assert_allclose(both[i], train(g[i], loop), rtol=1e-5)


def test_half_precision_is_averaged_in_single():
    params = jnp.zeros(1, jnp.bfloat16)
    tx = rolling_mean(3)
    state = tx.init(params)
    for g in (1.0, 1.0, 1.0):
        update, state = tx.update(jnp.full((4, 1), g, jnp.bfloat16), state, params)
    assert update.dtype == jnp.bfloat16
    assert update.item() == 1  # a third is not, in bfloat16


@METHODS
@pytest.mark.parametrize("window", [0, -1, 1.5, "3"])
def test_windows_are_whole_numbers(method, reference, window):
    said = rf"{method.__name__}\(window\): .* whole number of steps, at least 1, got {window!r}\."
    with pytest.raises(ValueError, match=said):
        method(window)


@METHODS
def test_the_state_needs_the_parameters(method, reference):
    said = (
        rf"{method.__name__}\(window=3\)\.init\(params\) needs the parameters, got None: the state"
    )
    with pytest.raises(ValueError, match=said):
        method(3).init(None)


@METHODS
def test_a_loop_may_give_its_state_away(method, reference):
    del reference
    tx, params = method(3), {"w": jnp.ones(4)}
    _, state = jax.jit(tx.update, donate_argnums=1)({"w": jnp.ones(4)}, tx.init(params), params)
    assert jax.tree.leaves(state)[0] == 1
