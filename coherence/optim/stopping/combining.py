"""Several rules at once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AnyState:
    """The states of the rules, and which of them spoke first: `stopped_by`, 0 while none has."""

    states: tuple
    stopped_by: jax.Array
    should_stop: jax.Array

    @property
    def best_metric(self):
        return self._of_the_first("best_metric")

    @property
    def best_params(self):
        return self._of_the_first("best_params")

    def _of_the_first(self, name):
        """Also of states that `vmap` has stacked: `stopped_by` then has the leading axes of every leaf."""
        values = [getattr(state, name) for state in self.states]
        numbered = list(enumerate(values))[1:]
        is_first = lambda i, leaf: jnp.reshape(
            self.stopped_by == i, self.stopped_by.shape + (1,) * (leaf.ndim - self.stopped_by.ndim)
        )
        choose = lambda kept, pair: jax.tree.map(
            lambda new, old: jnp.where(is_first(pair[0], new), new, old), pair[1], kept
        )
        return functools.reduce(choose, numbered, values[0])


@dataclasses.dataclass(frozen=True)
class AnyOfRule:
    """Made by `any_of`."""

    rules: tuple

    def init(self, params):
        return AnyState(
            tuple(rule.init(params) for rule in self.rules),
            jnp.zeros((), jnp.int32),
            jnp.zeros((), bool),
        )

    def update(self, state, metric, params):
        if not isinstance(metric, tuple | list) or len(metric) != len(self.rules):
            got = (
                f"{len(metric)}"
                if isinstance(metric, tuple | list)
                else f"a {type(metric).__name__}"
            )
            raise ValueError(
                f"any_of(...) watches one metric a rule, in their order: a tuple of {len(self.rules)}, got {got}."
            )
        updated = tuple(
            rule.update(*each, params) for rule, *each in zip(self.rules, state.states, metric)
        )
        states = jax.tree.map(
            lambda new, old: jnp.where(state.should_stop, old, new), updated, state.states
        )
        spoke = jnp.stack([one.should_stop for one in states])
        stopped_by = jnp.where(
            state.should_stop, state.stopped_by, jnp.argmax(spoke).astype(jnp.int32)
        )
        return AnyState(states, stopped_by, jnp.any(spoke))


def any_of(*rules):
    """Stop when the first of several rules says so; its best parameters are kept.

    The metric is a tuple, one a rule, in their order. `stopped_by` of the state is the place of the
    rule that spoke first, the lowest where several spoke at once. Until one has, the best
    parameters are those of the first rule.

    Returns:
        A rule like any other, with `init` and `update`; it may be one of another `any_of`.

    >>> from coherence import stopping
    >>> rule = any_of(stopping.patience(3), stopping.max_steps(100))
    >>> state = rule.update(rule.init(jnp.zeros(1)), (0.5, 100), jnp.ones(1))
    >>> bool(state.should_stop), int(state.stopped_by)
    (True, 1)
    """
    odd = [rule for rule in rules if not (hasattr(rule, "init") and hasattr(rule, "update"))]
    if not rules or odd:
        got = f"{odd[0]!r}" if odd else "none"
        raise ValueError(
            f"any_of(*rules): one or more rules, such as patience(3), max_steps(100), got {got}."
        )
    return AnyOfRule(rules)
