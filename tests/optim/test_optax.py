"""optax's own wrappers around and behind aggregators: right, or refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coherence import per_example_value_and_grad
from coherence.gradients import materialize
from coherence.optim import (
    Aggregator,
    add_mean_variance_to_opt,
    average,
    chain,
    clipped_mean,
    median,
    winsorize,
)

aggregating = pytest.importorskip("optax.experimental").aggregating

PARAMS = {"w": np.ones((4, 3), np.float32), "b": np.ones(3, np.float32)}


def batch(seed):
    return np.random.default_rng(seed).normal(size=(6, 4)).astype(np.float32)


def gradients(params, x):
    return per_example_value_and_grad(lambda p, x: jnp.sum(jnp.tanh(x @ p["w"] + p["b"]) ** 2))(
        params, x
    )[1]


def steps(tx, make, number=3):
    """Parameters after a few steps, `make(params, batch)` being what the transformation takes."""

    @jax.jit
    def step(params, state, x):
        updates, state = tx.update(make(params, x), state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for seed in range(number):
        params, state = step(params, state, batch(seed))
    return params, state


def same(left, right, rtol=1e-5):
    for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6)


def middle(params, x):
    """The median of plain rows, which optax's part then takes alone."""
    return jax.tree.map(lambda g: jnp.median(g, 0), materialize(gradients(params, x)))


BEHIND = {
    "MultiSteps": lambda: optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation(),
    "masked": lambda: optax.chain(
        optax.masked(optax.scale(0.5), {"w": True, "b": False}), optax.sgd(0.1)
    ),
    "partition": lambda: optax.partition(
        {"fast": optax.sgd(0.1), "slow": optax.adam(0.01)}, {"w": "fast", "b": "slow"}
    ),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=0.1),
    "apply_if_finite": lambda: optax.apply_if_finite(optax.adam(0.1), 2),
    "schedule_free": lambda: optax.contrib.schedule_free(optax.sgd(0.1), 0.1),
    "muon": lambda: optax.contrib.muon(0.1),
}


QUICK = ("masked", "inject_hyperparams", "apply_if_finite")  # to compile


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in BEHIND],
)
def test_behind_an_aggregator_optax_sees_one_gradient(name):
    ours, _ = steps(chain(median(), BEHIND[name]()), gradients)
    alone, _ = steps(BEHIND[name](), middle)
    same(ours, alone)


def test_lookahead_takes_pairs_of_parameters():
    both = optax.LookaheadParams.init_synced(PARAMS)
    look = lambda: optax.lookahead(optax.sgd(0.1), 2, 0.5)
    tx, alone = chain(median(), look()), look()

    def update(tx, make):
        state = tx.init(both)
        # Recognizing batch gradients needs parameters of the gradients' structure: leave them out.
        return tx.update(make(PARAMS, batch(0)), state, both)[0]

    with pytest.raises(ValueError, match="gradients and params differ in structure"):
        update(tx, gradients)
    aggregated = median().update(gradients(PARAMS, batch(0)), median().init(PARAMS), PARAMS)[0]
    same(alone.update(aggregated, alone.init(both), both)[0], update(alone, middle))


def test_a_bound_of_clipping_may_change_from_step_to_step():
    tx = optax.inject_hyperparams(clipped_mean)(max_norm=lambda step: 0.3 * (step + 1))
    state = tx.init(PARAMS)
    for bound in (0.3, 0.6):
        updates, state = jax.jit(tx.update)(gradients(PARAMS, batch(0)), state, PARAMS)
        expected = clipped_mean(bound).update(gradients(PARAMS, batch(0)), None, PARAMS)[0]
        same(updates, expected)


def test_what_is_static_says_so():
    tx = optax.inject_hyperparams(winsorize)(c=10.0)
    with pytest.raises(TypeError, match=r"winsorize\(c\): c is a plain number"):
        tx.update(gradients(PARAMS, batch(0)), tx.init(PARAMS), PARAMS)


OUTSIDE = {
    "MultiSteps": (
        lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
        "batch gradient|structure|pytree",
    ),
    "apply_if_finite": (lambda tx: optax.apply_if_finite(tx, 2), "structure"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_outside_of_an_aggregator_optax_meets_factors_and_fails(name):
    wrap, said = OUTSIDE[name]
    tx = wrap(chain(median(), optax.sgd(0.1)))
    with pytest.raises((TypeError, ValueError), match=said):
        jax.eval_shape(lambda x: tx.update(gradients(PARAMS, x), tx.init(PARAMS), PARAMS), batch(0))


def test_an_aggregator_is_one_of_optax_and_goes_into_its_process():
    for tx in (median(), chain(median(), optax.sgd(0.1)), average()):
        assert isinstance(tx, aggregating.Aggregator)
        assert isinstance(tx, Aggregator)
    processed = aggregating.process(optax.identity(), median(), optax.sgd(0.1))
    assert isinstance(processed, aggregating.Aggregator)
    same(steps(processed, gradients)[0], steps(chain(median(), optax.sgd(0.1)), gradients)[0])
    with pytest.raises(TypeError, match=r"chain\(aggregator, \*rest\) starts with an aggregator"):
        chain(processed, optax.sgd(0.1))


def test_mean_and_variance_are_those_of_optax():
    ours, state = steps(add_mean_variance_to_opt(optax.adam(0.1), 0.7), gradients)
    rows = lambda params, x: materialize(gradients(params, x))
    theirs, other = steps(aggregating.add_mean_variance_to_opt(optax.adam(0.1), 0.7), rows)
    same(ours, theirs)
    read = aggregating.get_unbiased_mean_and_variance_ema
    same(read(state), read(other), rtol=1e-4)
    tx = add_mean_variance_to_opt(optax.sgd(0.1))
    with pytest.raises(ValueError, match="needs per-example gradients, got a batch gradient"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
