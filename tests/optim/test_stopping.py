"""Early stopping stops when it says, and keeps the best."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.optim import stopping
from coherence.optim.stopping import above, any_of, below, max_steps, patience


def follow(rule, metrics):
    """Scanned and jitted; the parameters at check t are t."""
    state = rule.init({"w": jnp.float32(-1)})
    check = lambda state, pair: (
        (new := rule.update(state, pair[0], {"w": pair[1]})),
        new.should_stop,
    )
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
    assert np.flatnonzero(stopped).tolist() == (
        [] if stops_at is None else list(range(stops_at, len(metrics)))
    )
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


@pytest.mark.parametrize(
    ("rule", "metrics", "stops_at", "kept"),
    [
        (above(0.0, "x"), [-1.0, 0.0, 0.5, -1.0], 2, 2),  # equal is not above
        (
            above(0.0, "x", checks=2),
            [-1.0, 0.5, -0.5, 0.1, 0.2, -1.0],
            4,
            3,
        ),  # the first of the row, not what confirmed it
        (
            above(0.0, "x", checks=3),
            [-1.0, 0.5, -0.5, -0.2],
            None,
            3,
        ),  # until a row begins, the latest
        (above(0.0, "x", checks=2), [1.0, math.nan, 1.0, -1.0], None, 3),  # nan ends a row
        (above(0.0, "x"), [-1.0, math.inf], 1, 1),
        (below(1.0, "x", checks=2), [3.0, 0.9, 0.8, 5.0], 2, 1),
        (below(1.0, "x"), [1.0, math.nan, 2.0], None, 2),
        (max_steps(3), [0, 2, 5, 9], 2, 2),
        (max_steps(3), [0, 2, 3, 9], 2, 2),
    ],
)
def test_it_stops_after_so_many_checks_beyond_the_threshold(rule, metrics, stops_at, kept):
    state, stopped = follow(rule, metrics)
    assert np.flatnonzero(stopped).tolist() == (
        [] if stops_at is None else list(range(stops_at, len(metrics)))
    )
    assert state.best_params["w"] == kept
    assert state.best_metric == metrics[kept]


RULES = [
    (
        patience(2),
        [[3.0, 2.0, 2.5, 2.5, 1.0], [3.0, 2.0, 1.0, 0.5, 0.4], [math.nan, 1.0, 2.0, 3.0, 0.0]],
    ),
    (
        above(0.0, "x", checks=2),
        [[1.0, 2.0, -1.0, 5.0, 5.0], [-1.0, 1.0, 1.0, 2.0, -1.0], [0.0, 1.0, 0.0, 1.0, 0.0]],
    ),
    (
        any_of(below(1.0, "x"), any_of(patience(2), max_steps(4))),
        [
            ([5.0, 0.5, 5.0, 0.4, 3.0], ([1.0] * 5, [0.0, 1.0, 2.0, 3.0, 4.0])),
            ([5.0] * 5, ([1.0, 2.0, 3.0, 4.0, 0.0], [0.0, 1.0, 2.0, 3.0, 4.0])),
            ([5.0] * 5, ([5.0, 4.0, 3.0, 2.0, 1.0], [0.0, 1.0, 2.0, 3.0, 4.0])),
        ],
    ),
]


@pytest.mark.parametrize(("rule", "metrics"), RULES)
def test_a_stopped_state_never_changes(rule, metrics):
    for one in metrics:
        state, frozen = rule.init(jnp.float32(-1)), None
        for step in range(5):
            state = rule.update(
                state,
                jax.tree.map(lambda x: x[step], one, is_leaf=lambda x: isinstance(x, list)),
                jnp.float32(step),
            )
            if frozen is not None:
                jax.tree.map(np.testing.assert_array_equal, state, frozen)
            elif state.should_stop:
                frozen = state


@pytest.mark.parametrize(("rule", "metrics"), RULES)
def test_replicas_stop_each_on_their_own(rule, metrics):
    arrays = [
        jax.tree.map(jnp.array, one, is_leaf=lambda x: isinstance(x, list)) for one in metrics
    ]
    along = lambda metric: jax.lax.scan(
        lambda state, pair: (rule.update(state, *pair), None),
        rule.init(jnp.zeros(2)),
        (metric, jnp.ones((5, 2)) * jnp.arange(5.0)[:, None]),
    )[0]
    together = jax.jit(jax.vmap(along))(jax.tree.map(lambda *x: jnp.stack(x), *arrays))
    for i, metric in enumerate(arrays):
        alone = along(metric)
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x: x[i], together), alone)
        np.testing.assert_array_equal(
            together.best_params[i], alone.best_params
        )  # also read from the stacked state
        np.testing.assert_array_equal(together.best_metric[i], alone.best_metric)
    assert (
        len(set(together.should_stop.tolist())) + len(set(together.best_metric.tolist())) > 2
    )  # they do differ


def test_any_of_keeps_what_the_rule_that_spoke_first_kept():
    rule = any_of(patience(2), below(1.0, "x"))
    losses, coherences = [3.0, 2.0, 2.5, 2.5, 2.5], [9.0, 8.0, 7.0, 6.0, 0.5]
    state = rule.init(jnp.float32(-1))
    for step, metric in enumerate(zip(losses, coherences)):
        state = rule.update(state, metric, jnp.float32(step))
    assert (bool(state.should_stop), int(state.stopped_by), float(state.best_params)) == (
        True,
        0,
        1.0,
    )
    state = rule.init(jnp.float32(-1))
    for step, metric in enumerate(zip([3.0, 2.0, 2.5], [9.0, 0.5, 0.5])):
        state = rule.update(state, metric, jnp.float32(step))
    assert (bool(state.should_stop), int(state.stopped_by), float(state.best_metric)) == (
        True,
        1,
        0.5,
    )


@pytest.mark.parametrize(
    ("rule", "same", "watch"),
    [
        (stopping.evidence(2), above(0.0, "evidence", checks=2), "evidence"),
        (stopping.coherence(), below(1.0, "m_coherence", checks=3), "m_coherence"),
        (stopping.gradient_norm(0.1), below(0.1, "gradient_norm"), "gradient_norm"),
        (above(0.5, "accuracy"), above(0.5, "accuracy"), "accuracy"),
        (patience(mode="max", watch="accuracy"), patience(5, "accuracy", mode="max"), "accuracy"),
        (max_steps(7), max_steps(7), "step"),
        (
            any_of(patience(), any_of(stopping.evidence(), max_steps(7))),
            any_of(patience(), any_of(stopping.evidence(), max_steps(7))),
            ("test_loss", ("evidence", "step")),
        ),
    ],
)
def test_a_rule_knows_what_it_watches_and_is_a_value(rule, same, watch):
    assert rule == same
    assert rule.watch == watch
    assert isinstance(rule, stopping.Rule)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"checks": 0},
            r"patience\(checks\): checks without improvement are counted from 1, got 0\.",
        ),
        (
            {"checks": 1.5},
            r"patience\(checks\): checks without improvement are counted from 1, got 1\.5\.",
        ),
        (
            {"checks": 1, "min_delta": -1.0},
            r"patience\(min_delta\): an improvement is by at least 0, got -1\.0\.",
        ),
        (
            {"checks": 1, "mode": "least"},
            r"patience\(mode\): \"min\" \(a loss\) or \"max\" \(an accuracy\), got 'least'\.",
        ),
    ],
)
def test_impossible_patience_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        patience(**arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: above(math.nan, "x"), r"above\(threshold\): a finite number, got nan\."),
        (lambda: below(math.inf, "x"), r"below\(threshold\): a finite number, got inf\."),
        (
            lambda: above(0.0, "x", checks=0),
            r"above\(checks\): checks in a row are counted from 1, got 0\.",
        ),
        (
            lambda: stopping.gradient_norm(math.inf),
            r"gradient_norm\(epsilon\): a finite number, got inf\.",
        ),
        (
            lambda: stopping.coherence(checks=0),
            r"coherence\(checks\): checks in a row are counted from 1, got 0\.",
        ),
        (
            lambda: max_steps(0),
            r"max_steps\(steps\): a whole number of steps, from 1 to .*, got 0\.",
        ),
        (lambda: max_steps(2**24 + 1), r"from 1 to 16,777,216 .*, got 16777217\."),
        (
            lambda: max_steps(10.0),
            r"max_steps\(steps\): a whole number of steps, from 1 to .*, got 10\.0\.",
        ),
        (
            lambda: any_of(),
            r"any_of\(\*rules\): one or more rules, such as patience\(3\), .*, got none\.",
        ),
        (lambda: any_of(3), r"any_of\(\*rules\): one or more rules, .*, got 3\."),
    ],
)
def test_impossible_rules_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("metric", "got"), [(0.5, "a float"), ((0.5,), "1")])
def test_any_of_wants_one_metric_a_rule(metric, got):
    rule = any_of(patience(1), max_steps(3))
    with pytest.raises(
        ValueError,
        match=rf"any_of\(\.\.\.\) watches one metric a rule, .* a tuple of 2, got {got}\.",
    ):
        rule.update(rule.init(0.0), metric, 0.0)
