"""Readings of a training batch's own gradients, inside the step that made them."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from coherence.gradients import reductions
from coherence.trees import PyTree

from .presets import Chosen, select_quantities
from .quantities import readings, view_of


def batch_readings(
    losses: jax.Array,
    gradients: PyTree,
    quantities: Chosen | tuple[Chosen, ...] | list[Chosen] = "standard",
    *,
    name: str | None = None,
    groups: ArrayLike | None = None,
    num_groups: int | None = None,
    params: PyTree = None,
    examples: PyTree = None,
    key: jax.Array | None = None,
) -> dict[str, Any]:
    """Quantities of a training batch's own gradients, inside the step, without another pass.

    Args:
        losses: [m]; gradients: of the same examples, from `per_example_value_and_grad`.
        quantities: as for `Probe`.
        name: what the readings' names start with, NAME/QUANTITY; `None` for the bare names.
        groups, num_groups: as for `coherence.alpha`.
        params, examples, key: what quantities of your own read of a `View` besides gradients.

    Returns:
        `{name: value}`, arrays; pure and jit-able.

    Raises:
        ValueError: an unknown preset, unfit groups, losses that are not one an example.
    """
    chosen, m = select_quantities(quantities), reductions.size(gradients)
    if jnp.shape(losses) != (m,):
        raise ValueError(
            f"losses must be those of the {m} examples, [{m}], got shape "
            f"{list(jnp.shape(losses))}. Both come from per_example_value_and_grad(loss)(params, "
            "batch); a mean gradient has no examples to read."
        )
    view = view_of(
        losses,
        gradients,
        groups=groups,
        num_groups=num_groups,
        variances=any(quantity.variances for quantity in chosen),
        params=params,
        examples=examples,
        few_examples=examples,
        key=key,
    )
    prefix = "" if name is None else f"{name}/"
    return {f"{prefix}{quantity}": value for quantity, value in readings(chosen, view).items()}
