"""Quantities: a name, a function, and what that function reads of a sample's gradients.

Quantities that are asked for together share one pass over the sample: the means they are made of
(`coherence.metrics.pool`) and the gradients of a fixed few of its examples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from coherence.gradients.factors import accumulator
from coherence.metrics.pooling import Pooled, group_numbers, pool
from coherence.trees import Loss, PyTree

READS = ("pooled", "groups", "few", "view")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class View:
    """A sample at frozen parameters, as quantities see it.

    loss: mean over the sample.
    group_losses: [groups], over each group, or `None`.
    pooled: `Pooled`, of the whole sample.
    groups: a tuple of `Pooled`, one a group, or `None`.
    few: per-example gradients of a fixed few of its examples.
    few_groups: int [few], the groups of these, or `None`.

    What was measured, `None` where a batch is read without them (`batch_readings`):
    params: the parameters.
    examples: the whole sample, leaves [m, ...].
    example_groups: int [m], their groups, or `None`.
    few_examples: the few of them, leaves [few, ...].
    key: from the probe's seed, the same at every reading, for what is drawn.
    loss_function: `(params, example) -> scalar`.

    >>> from coherence.probes import Quantity
    >>> largest = Quantity("largest", lambda view: abs(view.params).max(), reads="view")
    >>> largest.reads
    'view'
    """

    loss: jax.Array
    group_losses: jax.Array | None
    pooled: Pooled
    groups: tuple[Pooled, ...] | None
    few: PyTree
    few_groups: jax.Array | None
    params: PyTree = None
    examples: PyTree = None
    example_groups: jax.Array | None = None
    few_examples: PyTree = None
    key: jax.Array | None = None
    loss_function: Loss | None = dataclasses.field(default=None, metadata={"static": True})


@dataclasses.dataclass(frozen=True)
class Quantity:
    """Something to measure: a function, and what it reads.

    name: under which it is recorded; a named tuple is recorded as NAME_field.
    function: pure; returns a number, an array, a dict by layer, or a named tuple of those; `None`
        where there is nothing to record.
    reads: "pooled" (`Pooled` of the sample), "groups" (a tuple of them; the quantity is skipped
        where there are no groups), "few" (the per-example gradients of the fixed few: what is
        quadratic in the number of examples) or "view" (all of it, a `View`).
    variances: whether it needs those of `Pooled`, which cost another weighted sum.
    axes: what the axes of its value are, such as ("group",) or ("example",); of a named tuple a
        dict, {field: axes}. Reports go by them; a number has none.
    """

    name: str
    function: Callable[[Any], Any]
    reads: str = "pooled"
    variances: bool = False
    axes: tuple[str, ...] | dict[str, tuple[str, ...]] = dataclasses.field(default=(), hash=False)

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(
                f"quantity {self.name}: function must be one, of what it reads, got "
                f"{self.function!r}."
            )
        if self.reads not in READS:
            raise ValueError(
                f"quantity {self.name}: reads is one of {', '.join(READS)}, got {self.reads!r}."
            )


def readings(quantities: Iterable[Quantity], view: View) -> dict[str, Any]:
    """`{name: value}` of the quantities, in one pure function of a `View`."""
    values: dict[str, Any] = {}
    for quantity in quantities:
        if quantity.reads == "groups" and view.groups is None:
            continue
        argument = view if quantity.reads == "view" else getattr(view, quantity.reads)
        value = quantity.function(argument)
        if hasattr(value, "_asdict"):
            fields = value._asdict().items()
            values |= {f"{quantity.name}_{field}": part for field, part in fields}
        elif value is not None:
            values[quantity.name] = value
    return values


def view_of(
    losses: ArrayLike,
    gradients: PyTree,
    *,
    groups: ArrayLike | None = None,
    num_groups: int | None = None,
    variances: bool = False,
    **measured: Any,
) -> View:
    """The `View` of a batch whose gradients are at hand: all its examples are the few.

    Args:
        measured: the fields of a `View` that say what was measured.
    """
    whole = pool(gradients, variances=variances)
    losses = jnp.asarray(losses)
    losses = losses.astype(accumulator(losses.dtype))
    parts = group_losses = numbers = None
    if groups is not None:
        parts = pool(gradients, groups=groups, num_groups=num_groups)
        numbers, _ = group_numbers(groups, num_groups, len(losses))
        counts = jnp.stack([part.m for part in parts])
        group_losses = jax.ops.segment_sum(losses, numbers, len(parts)) / counts
    loss = jnp.sum(losses) / whole.m
    return View(loss, group_losses, whole, parts, gradients, numbers, **measured)
