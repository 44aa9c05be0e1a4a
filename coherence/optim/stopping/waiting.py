"""Patience: stop when a metric no longer improves."""

import dataclasses

import jax.numpy as jnp

from .state import advance, begin, check_count


@dataclasses.dataclass(frozen=True)
class PatienceRule:
    """Made by `patience`."""

    checks: int
    min_delta: float
    mode: str

    def init(self, params):
        return begin(params, jnp.inf if self.mode == "min" else -jnp.inf)

    def update(self, state, metric, params):
        metric = jnp.asarray(metric, state.best_metric.dtype)
        gain = state.best_metric - metric if self.mode == "min" else metric - state.best_metric
        better = gain > self.min_delta
        return advance(
            state,
            metric,
            params,
            keep=better,
            waited=jnp.where(better, 0, state.waited + 1),
            checks=self.checks,
        )


def patience(checks, min_delta=0.0, mode="min"):
    """Stop once `checks` checks in a row have not improved on the best metric; keep the best parameters.

    Early stopping acts on weak directions: what few examples share is learned late.

    Args:
        checks: how many checks without improvement to bear, >= 1.
        min_delta: an improvement is by more than this.
        mode: "min" where a lower metric is better (a loss), "max" where a higher one is (an
            accuracy).

    Returns:
        A rule with `init(params) -> state` and `update(state, metric, params) -> state`; the state
        has `should_stop`, `best_metric`, `best_params`, `waited`. A nan metric is no improvement.

    >>> rule = patience(1, mode="max")
    >>> state = rule.init(jnp.zeros(1))
    >>> for step, accuracy in enumerate((0.7, 0.9, 0.8)):
    ...     state = rule.update(state, accuracy, jnp.full(1, step))
    >>> bool(state.should_stop), state.best_params.tolist()
    (True, [1.0])
    """
    check_count(checks, "patience(checks): checks without improvement are counted from 1")
    if not min_delta >= 0:
        raise ValueError(f"patience(min_delta): an improvement is by at least 0, got {min_delta}.")
    if mode not in ("min", "max"):
        raise ValueError(f'patience(mode): "min" (a loss) or "max" (an accuracy), got {mode!r}.')
    return PatienceRule(checks, min_delta, mode)
