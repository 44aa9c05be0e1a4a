"""What a rule remembers from one check to the next."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """A pytree of arrays. `waited` counts the checks in a row that spoke for stopping."""

    best_metric: jax.Array
    best_params: Any
    waited: jax.Array
    should_stop: jax.Array


def begin(params, metric):
    """Nothing seen yet; `params` (copied, so that they may be donated) stand in until a metric comes."""
    return State(
        jnp.asarray(metric, float),
        jax.tree.map(jnp.copy, params),
        jnp.zeros((), jnp.int32),
        jnp.zeros((), bool),
    )


def advance(state, metric, params, *, keep, waited, checks):
    """One more check: take over metric and parameters where `keep`, stop after `checks` in a row; a stopped state stays as it is."""
    live = ~state.should_stop
    keep &= live
    take = lambda new, old: jnp.where(keep, new, old)
    waited = jnp.where(live, waited, state.waited)
    return State(
        take(metric, state.best_metric),
        jax.tree.map(take, params, state.best_params),
        waited,
        state.should_stop | (waited >= checks),
    )


def check_count(checks, name):
    """Refuse what is no number of checks; `name` as users write it."""
    if not isinstance(checks, int) or checks < 1:
        raise ValueError(f"{name}, got {checks!r}.")
