"""What can be read off per-example gradients: each quantity a name, a function, and what that function reads.

Quantities that are asked for together share one pass over the sample: the means they are made of
(`coherence.metrics.pool`) and the gradients of a fixed few of its examples.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from coherence.metrics.pooling import Pooled, pool

READS = ("pooled", "groups", "few", "view")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class View:
    """A sample at frozen parameters, as quantities see it.

    loss: mean over the sample.  group_losses: [groups], over each group, or `None`.  pooled:
    `Pooled`, of the whole sample.
    groups: a tuple of `Pooled`, one a group, or `None`.  few: per-example gradients of a fixed few
    of its examples.
    few_groups: int [few], their groups, or `None`.
    """

    loss: jax.Array
    group_losses: jax.Array | None
    pooled: Pooled
    groups: tuple[Pooled, ...] | None
    few: Any
    few_groups: jax.Array | None


@dataclasses.dataclass(frozen=True)
class Quantity:
    """Something to measure: `function` of what it `reads`.

    name: under which it is recorded; a named tuple is recorded as NAME_field.
    function: pure; returns a number, an array, a dict by layer, or a named tuple of those; `None`
    where there is nothing to record.
    reads: "pooled" (`Pooled` of the sample), "groups" (a tuple of them; the quantity is skipped
        where there are no groups), "few" (the per-example gradients of the fixed few: what is
        quadratic in the number of examples) or "view" (all of it, a `View`).
    second_moments: whether it needs those of `Pooled`, which cost another weighted sum.
    axes: what the axes of its value are, such as ("group",) or ("example",); of a named tuple a
    dict, {field: axes}. Reports go by them; a number has none.
    """

    name: str
    function: Callable
    reads: str = "pooled"
    second_moments: bool = False
    axes: tuple[str, ...] | dict[str, tuple[str, ...]] = dataclasses.field(default=(), hash=False)

    def __post_init__(self):
        if not callable(self.function):
            raise TypeError(
                f"quantity {self.name}: function must be one, of what it reads, got {self.function!r}."
            )
        if self.reads not in READS:
            raise ValueError(
                f"quantity {self.name}: reads is one of {', '.join(READS)}, got {self.reads!r}."
            )


def readings(quantities, view):
    """`{name: value}` of the quantities, in one pure function of a `View`."""
    found = {}
    for quantity in quantities:
        if quantity.reads == "groups" and view.groups is None:
            continue
        value = quantity.function(
            view if quantity.reads == "view" else getattr(view, quantity.reads)
        )
        if hasattr(value, "_asdict"):
            found |= {f"{quantity.name}_{field}": part for field, part in value._asdict().items()}
        elif value is not None:
            found[quantity.name] = value
    return found


def view_of(losses, gradients, *, groups=None, num_groups=None, second_moments=False):
    """The `View` of a batch whose per-example gradients are at hand: all its examples are the few."""
    parts = None if groups is None else pool(gradients, groups=groups, num_groups=num_groups)
    whole = pool(gradients, second_moments=second_moments)
    group_losses = numbers = None
    if parts is not None:
        numbers = jnp.asarray(groups).astype(jnp.int32)
        group_losses = jax.ops.segment_sum(losses, numbers, len(parts)) / jnp.stack(
            [one.m for one in parts]
        )
    return View(jnp.sum(losses) / whole.m, group_losses, whole, parts, gradients, numbers)
