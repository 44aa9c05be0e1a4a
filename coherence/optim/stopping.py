"""When to stop: rules as pure functions of a state, so that they run inside `jit`, `scan` and `vmap` and go into a checkpoint.

>>> rule = patience(2)
>>> state = rule.init(params := jnp.zeros(1))
>>> for validation_loss in (1.0, 0.5, 0.6, 0.7):
...     state = rule.update(state, validation_loss, params)
>>> bool(state.should_stop), float(state.best_metric)
(True, 0.5)
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PatienceState:
    """What a patient rule remembers: a pytree of arrays."""

    best_metric: jax.Array
    best_params: Any
    waited: jax.Array
    should_stop: jax.Array


@dataclasses.dataclass(frozen=True)
class Patience:
    """Made by `patience`."""

    checks: int
    min_delta: float = 0.0
    mode: str = "min"

    def init(self, params):
        """Nothing seen yet; `params` (copied) stand in until a metric comes."""
        worst = jnp.asarray(jnp.inf if self.mode == "min" else -jnp.inf, float)
        return PatienceState(worst, jax.tree.map(jnp.copy, params), jnp.zeros((), jnp.int32), jnp.zeros((), bool))

    def update(self, state, metric, params):
        """The state after one more check. Once it says stop it no longer changes, however many steps follow."""
        metric = jnp.asarray(metric, state.best_metric.dtype)
        gain = state.best_metric - metric if self.mode == "min" else metric - state.best_metric
        better = (gain > self.min_delta) & ~state.should_stop
        waited = jnp.where(state.should_stop, state.waited, jnp.where(better, 0, state.waited + 1))
        keep = lambda new, old: jnp.where(better, new, old)
        return PatienceState(
            keep(metric, state.best_metric),
            jax.tree.map(keep, params, state.best_params),
            waited,
            state.should_stop | (waited >= self.checks),
        )


def patience(checks, min_delta=0.0, mode="min"):
    """Stop once `checks` checks in a row have not improved on the best metric; keep the best parameters.

    Early stopping acts on weak directions: what few examples share is learned late.

    Args:
        checks: how many checks without improvement to bear, >= 1.
        min_delta: an improvement is by more than this.
        mode: "min" where a lower metric is better (a loss), "max" where a higher one is (an accuracy).

    Returns:
        A rule with `init(params) -> state` and `update(state, metric, params) -> state`; the state has `should_stop`, `best_metric`,
        `best_params`, `waited`. A nan metric is no improvement.
    """
    if not isinstance(checks, int) or checks < 1:
        raise ValueError(f"patience(checks): checks without improvement are counted from 1, got {checks!r}.")
    if not min_delta >= 0:
        raise ValueError(f"patience(min_delta): an improvement is by at least 0, got {min_delta}.")
    if mode not in ("min", "max"):
        raise ValueError(f'patience(mode): "min" (a loss) or "max" (an accuracy), got {mode!r}.')
    return Patience(checks, min_delta, mode)
