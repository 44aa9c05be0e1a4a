"""Thresholds: stop when a number is beyond a bound."""

import dataclasses
import math

import jax.numpy as jnp

from .state import advance, begin, check_count


@dataclasses.dataclass(frozen=True)
class ThresholdRule:
    """Made by `above`, `below` and `max_steps`."""

    threshold: float
    upward: bool
    checks: int

    def init(self, params):
        return begin(params, jnp.nan)

    def update(self, state, metric, params):
        metric = jnp.asarray(metric, state.best_metric.dtype)
        beyond = metric > self.threshold if self.upward else metric < self.threshold
        # The first check beyond the threshold says stop, those after it confirm: what it saw is
        # kept while the row lasts.
        keep = ~beyond | (state.waited == 0)
        return advance(
            state,
            metric,
            params,
            keep=keep,
            waited=jnp.where(beyond, state.waited + 1, 0),
            checks=self.checks,
        )


def above(threshold, checks=1):
    """Stop once the metric has been above `threshold` for `checks` checks in a row.

    The parameters kept are those of the first check of that row (the later ones only confirm it);
    until there is one, the latest. With a noisy metric ask for more checks: there is no other
    smoothing.

    Args:
        threshold: a finite number; a metric equal to it, or nan, is not above it.
        checks: how many checks in a row, >= 1.

    Returns:
        A rule with `init(params) -> state` and `update(state, metric, params) -> state`; the state
        has `should_stop`, `best_metric`, `best_params`, `waited`.

    >>> rule = above(0.0, checks=2)
    >>> state = rule.init(jnp.zeros(1))
    >>> for step, metric in enumerate((-1.0, 0.5, -0.5, 0.1, 0.2)):
    ...     state = rule.update(state, metric, jnp.full(1, step))
    >>> bool(state.should_stop), state.best_params.tolist()
    (True, [3.0])
    """
    return _threshold("above", threshold, True, checks)


def below(threshold, checks=1):
    """Stop once the metric has been below `threshold` for `checks` checks in a row; see `above`.

    >>> rule = below(1.0)
    >>> bool(rule.update(rule.init(jnp.zeros(1)), 0.9, jnp.zeros(1)).should_stop)
    True
    """
    return _threshold("below", threshold, False, checks)


def max_steps(steps):
    """Stop at the first check of step `steps` or later; the metric is the number of steps done.

    >>> rule = max_steps(10)
    >>> state = rule.init(jnp.zeros(1))
    >>> [bool((state := rule.update(state, step, jnp.zeros(1))).should_stop) for step in (9, 10)]
    [False, True]
    """
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"max_steps(steps): a whole number of steps, at least 1, got {steps!r}.")
    return ThresholdRule(steps - 1, True, 1)


def _threshold(name, threshold, upward, checks):
    if not math.isfinite(threshold):
        raise ValueError(f"{name}(threshold): a finite number, got {threshold}.")
    check_count(checks, f"{name}(checks): checks in a row are counted from 1")
    return ThresholdRule(threshold, upward, checks)
