"""Early-stopping rules: each watches one number, is pure, and keeps the best parameters.

===============================  ========================  =======================================
stop when                        rule                      the number it watches
===============================  ========================  =======================================
a loss no longer falls           `patience(5)`             that loss (`mode="max"`: an accuracy)
the gradient is no more than     `evidence()`              `coherence.metrics.evidence(gradients)`
its noise
examples do not help each other  `coherence()`             `coherence.m_coherence(gradients)`
the gradient is small            `gradient_norm(1e-3)`     `coherence.metrics.gradient_norm(...)`
a number is beyond a bound       `above(0.9, "accuracy")`  any
enough steps are done            `max_steps(1000)`         the step
any of these                     `any_of(rule, ...)`       a tuple of numbers, one a rule
===============================  ========================  =======================================

A rule has `init(params) -> state` and `update(state, metric, params) -> state`. A state has
`should_stop`, `best_params` and `best_metric`; once it says stop, nothing in it changes any more. A
check with a metric of nan never counts in its favor: it is no improvement and crosses no threshold.

>>> import jax.numpy as jnp
>>> from coherence.optim import stopping
>>> rule = stopping.patience(2)
>>> state = rule.init(params := jnp.zeros(1))
>>> for validation_loss in (1.0, 0.5, 0.6, 0.7):
...     state = rule.update(state, validation_loss, params)
>>> bool(state.should_stop), float(state.best_metric)
(True, 0.5)
"""

import abc
import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

_MOST_STEPS = 2**24  # whole numbers that float32 tells apart


class Rule(abc.ABC):
    """When to stop: `init(params)` makes the state, `update(state, metric, params)` every check.

    Attributes:
        watch: the name of the quantity it watches; of `any_of` a tuple, one entry a rule.
    """

    watch: str | tuple

    @abc.abstractmethod
    def init(self, params: Any) -> Any:
        """The state before the first check."""

    @abc.abstractmethod
    def update(self, state: Any, metric: Any, params: Any) -> Any:
        """The state after one more check, at which the watched quantity is `metric`."""


class State(NamedTuple):
    """What a rule remembers. `waited` counts the checks in a row that spoke for stopping."""

    best_metric: jax.Array
    best_params: Any
    waited: jax.Array
    should_stop: jax.Array


@dataclasses.dataclass(frozen=True)
class PatienceRule(Rule):
    """Made by `patience`."""

    checks: int
    watch: str
    min_delta: float
    mode: str

    def init(self, params):
        return _begin(params, jnp.inf if self.mode == "min" else -jnp.inf)

    def update(self, state, metric, params):
        metric = jnp.asarray(metric, state.best_metric.dtype)
        gain = state.best_metric - metric if self.mode == "min" else metric - state.best_metric
        better = gain > self.min_delta
        waited = jnp.where(better, 0, state.waited + 1)
        return _advance(state, metric, params, better, waited, self.checks)


@dataclasses.dataclass(frozen=True)
class ThresholdRule(Rule):
    """Made by `above`, `below` and `max_steps`."""

    threshold: float
    upward: bool
    checks: int
    watch: str

    def init(self, params):
        return _begin(params, jnp.nan)

    def update(self, state, metric, params):
        metric = jnp.asarray(metric, state.best_metric.dtype)
        beyond = metric > self.threshold if self.upward else metric < self.threshold
        # The first check beyond the threshold says stop, those after it confirm: what it saw is
        # kept while the row lasts.
        better = ~beyond | (state.waited == 0)
        waited = jnp.where(beyond, state.waited + 1, 0)
        return _advance(state, metric, params, better, waited, self.checks)


class AnyState(NamedTuple):
    """The states of several rules. `stopped_by`: the place of the first to stop, or 0."""

    states: tuple
    stopped_by: jax.Array
    should_stop: jax.Array

    @property
    def best_metric(self) -> jax.Array:
        return self._of_the_first("best_metric")

    @property
    def best_params(self) -> Any:
        return self._of_the_first("best_params")

    def _of_the_first(self, name):
        """Also of states stacked by `vmap`: `stopped_by` then has the leading axes of all."""

        def chosen(*leaves):
            result = leaves[0]
            for place, leaf in enumerate(leaves[1:], 1):
                trailing = (1,) * (leaf.ndim - self.stopped_by.ndim)
                is_first = jnp.reshape(self.stopped_by == place, self.stopped_by.shape + trailing)
                result = jnp.where(is_first, leaf, result)
            return result

        return jax.tree.map(chosen, *(getattr(state, name) for state in self.states))


@dataclasses.dataclass(frozen=True)
class AnyRule(Rule):
    """Made by `any_of`."""

    rules: tuple[Rule, ...]

    @property
    def watch(self) -> tuple:  # type: ignore[override]
        return tuple(rule.watch for rule in self.rules)

    def init(self, params):
        states = tuple(rule.init(params) for rule in self.rules)
        return AnyState(states, jnp.zeros((), jnp.int32), jnp.zeros((), bool))

    def update(self, state, metric, params):
        is_sequence = isinstance(metric, tuple | list)
        if not is_sequence or len(metric) != len(self.rules):
            got = f"{len(metric)}" if is_sequence else f"a {type(metric).__name__}"
            raise ValueError(
                "any_of(...) watches one metric a rule, in their order: "
                f"a tuple of {len(self.rules)}, got {got}."
            )
        updated = tuple(
            rule.update(old, number, params)
            for rule, old, number in zip(self.rules, state.states, metric)
        )
        frozen = lambda new, old: jnp.where(state.should_stop, old, new)
        states = jax.tree.map(frozen, updated, state.states)
        stops = jnp.stack([each.should_stop for each in states])
        stopped_by = frozen(jnp.argmax(stops).astype(jnp.int32), state.stopped_by)
        return AnyState(states, stopped_by, jnp.any(stops))


def patience(
    checks: int = 5,
    watch: str = "test_loss",
    min_delta: float = 0.0,
    mode: Literal["min", "max"] = "min",
) -> Rule:
    """Stop once `checks` checks in a row have not improved on the best metric.

    Early stopping acts on weak directions: what few examples share is learned late. Choosing by the
    test set is a control that looks at the answer, not a method.

    Args:
        checks: how many checks without improvement to bear, at least 1.
        watch: the name of the metric, where one is measured by name.
        min_delta: an improvement is by more than this.
        mode: "min" where a lower metric is better (a loss), "max" where a higher one is (an
            accuracy).

    Returns:
        A rule whose state has `should_stop`, `best_metric`, `best_params`, `waited`. A nan metric
        is no improvement.

    >>> rule = patience(1, mode="max")
    >>> state = rule.init(jnp.zeros(1))
    >>> for step, accuracy in enumerate((0.7, 0.9, 0.8)):
    ...     state = rule.update(state, accuracy, jnp.full(1, step))
    >>> bool(state.should_stop), state.best_params.tolist()
    (True, [1.0])
    """
    _check_count(checks, "patience(checks): checks without improvement are counted from 1")
    if not min_delta >= 0:
        raise ValueError(f"patience(min_delta): an improvement is by at least 0, got {min_delta}.")
    if mode not in ("min", "max"):
        raise ValueError(f'patience(mode): "min" (a loss) or "max" (an accuracy), got {mode!r}.')
    return PatienceRule(checks, watch, min_delta, mode)


def above(threshold: float, watch: str, checks: int = 1) -> Rule:
    """Stop once the metric has been above `threshold` for `checks` checks in a row.

    The parameters kept are those of the first check of that row (the later ones only confirm it);
    until there is one, the latest. With a noisy metric ask for more checks: there is no other
    smoothing.

    Args:
        threshold: a finite number; a metric equal to it, or nan, is not above it.
        watch: the name of the metric, as `"test_accuracy"`.
        checks: how many checks in a row, at least 1.

    Returns:
        A rule whose state has `should_stop`, `best_metric`, `best_params`, `waited`.

    >>> rule = above(0.0, "evidence", checks=2)
    >>> state = rule.init(jnp.zeros(1))
    >>> for step, metric in enumerate((-1.0, 0.5, -0.5, 0.1, 0.2)):
    ...     state = rule.update(state, metric, jnp.full(1, step))
    >>> bool(state.should_stop), state.best_params.tolist()
    (True, [3.0])
    """
    return _threshold("above", threshold, True, watch, checks)


def below(threshold: float, watch: str, checks: int = 1) -> Rule:
    """Stop once the metric has been below `threshold` for `checks` checks in a row; see `above`.

    >>> rule = below(1.0, "m_coherence")
    >>> bool(rule.update(rule.init(jnp.zeros(1)), 0.9, jnp.zeros(1)).should_stop)
    True
    """
    return _threshold("below", threshold, False, watch, checks)


def evidence(checks: int = 1) -> Rule:
    """Stop when the mean gradient is no more than its sampling noise: the evidence is above 0.

    Mahsereci, Balles, Lassner & Hennig, Early Stopping without a Validation Set (arXiv:1703.09580).

    Args:
        checks: how many checks in a row, at least 1.
    """
    return _threshold("evidence", 0.0, True, "evidence", checks)


def coherence(threshold: float = 1.0, checks: int = 3) -> Rule:
    """Stop when examples no longer help each other: `coherence.m_coherence` below a threshold.

    Args:
        threshold: in examples; an m-coherence of 1 is that of unrelated gradients.
        checks: how many checks in a row, at least 1.
    """
    return _threshold("coherence", threshold, False, "m_coherence", checks)


def gradient_norm(epsilon: float = 1e-3, checks: int = 1) -> Rule:
    """Stop when the mean gradient is shorter than `epsilon`: `coherence.metrics.gradient_norm`.

    Args:
        epsilon: a length, as of the gradient of the mean loss.
        checks: how many checks in a row, at least 1.
    """
    return _threshold("gradient_norm", epsilon, False, "gradient_norm", checks, "epsilon")


def max_steps(steps: int = 1000) -> Rule:
    """Stop at the first check at or after a step; the metric is the number of steps done.

    Args:
        steps: at least 1.

    >>> rule = max_steps(10)
    >>> state = rule.init(jnp.zeros(1))
    >>> [bool((state := rule.update(state, step, jnp.zeros(1))).should_stop) for step in (9, 10)]
    [False, True]
    """
    if not isinstance(steps, int) or not 1 <= steps <= _MOST_STEPS:
        raise ValueError(
            f"max_steps(steps): a whole number of steps, from 1 to {_MOST_STEPS:,} (metrics are "
            f"kept in float32), got {steps!r}."
        )
    return ThresholdRule(steps - 1, True, 1, "step")


def any_of(*rules: Rule) -> Rule:
    """Stop when the first of several rules does; its best parameters are kept.

    The metric is a tuple, one a rule, in their order. `stopped_by` of the state is the place of the
    rule that stopped first, the lowest where several did at once. Until one has, the best
    parameters are those of the first rule.

    Returns:
        A rule like any other; it may be one of another `any_of`.

    >>> rule = any_of(patience(3), max_steps(100))
    >>> state = rule.update(rule.init(jnp.zeros(1)), (0.5, 100), jnp.ones(1))
    >>> bool(state.should_stop), int(state.stopped_by)
    (True, 1)
    """
    others = [rule for rule in rules if not isinstance(rule, Rule)]
    if not rules or others:
        got = repr(others[0]) if others else "none"
        raise ValueError(
            f"any_of(*rules): one or more rules, such as patience(3), max_steps(100), got {got}."
        )
    return AnyRule(rules)


def _threshold(name, threshold, upward, watch, checks, argument="threshold"):
    if not math.isfinite(threshold):
        raise ValueError(f"{name}({argument}): a finite number, got {threshold}.")
    _check_count(checks, f"{name}(checks): checks in a row are counted from 1")
    return ThresholdRule(threshold, upward, checks, watch)


def _begin(params, metric):
    """Nothing seen yet; `params` (copied, as they may be donated) stand in until a metric comes."""
    return State(
        jnp.asarray(metric, float),
        jax.tree.map(jnp.copy, params),
        jnp.zeros((), jnp.int32),
        jnp.zeros((), bool),
    )


def _advance(state, metric, params, better, waited, checks):
    """One more check: take over metric and parameters where `better`, stop after `checks` in a row.

    A stopped state stays as it is.
    """
    running = ~state.should_stop
    take = lambda new, old: jnp.where(better & running, new, old)
    waited = jnp.where(running, waited, state.waited)
    return State(
        take(metric, state.best_metric),
        jax.tree.map(take, params, state.best_params),
        waited,
        state.should_stop | (waited >= checks),
    )


def _check_count(checks, message):
    if not isinstance(checks, int) or checks < 1:
        raise ValueError(f"{message}, got {checks!r}.")
