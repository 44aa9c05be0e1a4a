"""Early stopping stops when it says, and keeps the best."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.optim.stopping import patience


def follow(rule, metrics):
    """Scanned and jitted; the parameters at check t are t."""
    state = rule.init({"w": jnp.float32(-1)})
    check = lambda state, pair: ((new := rule.update(state, pair[0], {"w": pair[1]})), new.should_stop)
    times = jnp.arange(len(metrics), dtype=jnp.float32)
    return jax.jit(lambda: jax.lax.scan(check, state, (jnp.asarray(metrics), times)))()


@pytest.mark.parametrize(
    ("rule", "metrics", "stops_at", "best_at"),
    [
        (patience(2), [3.0, 2.0, 2.5, 2.5, 1.0], 3, 1),
        (patience(2), [3.0, 2.0, 2.5, 1.0, 1.5], None, 3),
        (patience(1), [1.0, 1.0], 1, 0),  # no better is no improvement
        (patience(2, min_delta=0.5), [3.0, 2.6, 2.4, 2.2, 1.8], None, 4),
        (patience(2, min_delta=1.0), [3.0, 2.6, 2.4], 2, 0),
        (patience(2, mode="max"), [0.5, 0.9, 0.8, 0.7, 1.0], 3, 1),
        (patience(2), [math.nan, 1.0, math.nan, math.nan], 3, 1),
    ],
)
def test_it_stops_after_so_many_checks_without_improvement(rule, metrics, stops_at, best_at):
    state, stopped = follow(rule, metrics)
    assert np.flatnonzero(stopped).tolist() == ([] if stops_at is None else list(range(stops_at, len(metrics))))
    assert state.best_params["w"] == best_at
    assert state.best_metric == pytest.approx(metrics[best_at])


def test_nothing_but_nans_keeps_the_first_parameters():
    state, stopped = follow(patience(2), [math.nan, math.nan])
    assert stopped.tolist() == [False, True]
    assert state.best_params["w"] == -1


def test_the_kept_parameters_survive_donation():
    params = jnp.arange(3.0)
    state = patience(1).init(params)
    jax.jit(lambda p: p + 1, donate_argnums=0)(params)
    np.testing.assert_array_equal(state.best_params, [0, 1, 2])


def test_replicas_stop_each_on_their_own():
    rule = patience(1)
    state = jax.vmap(rule.init)(jnp.zeros((2, 1)))
    for metrics in ([1.0, 1.0], [0.5, 2.0]):
        state = jax.vmap(rule.update)(state, jnp.array(metrics), jnp.ones((2, 1)))
    assert state.should_stop.tolist() == [False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"checks": 0}, r"patience\(checks\): checks without improvement are counted from 1, got 0\."),
        ({"checks": 1.5}, r"patience\(checks\): checks without improvement are counted from 1, got 1\.5\."),
        ({"checks": 1, "min_delta": -1.0}, r"patience\(min_delta\): an improvement is by at least 0, got -1\.0\."),
        ({"checks": 1, "mode": "least"}, r"patience\(mode\): \"min\" \(a loss\) or \"max\" \(an accuracy\), got 'least'\."),
    ],
)
def test_impossible_patience_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        patience(**arguments)
