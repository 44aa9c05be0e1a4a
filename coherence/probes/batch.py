"""A training batch's own gradients, read inside the step that made them."""

import jax.numpy as jnp

from coherence.gradients import reductions

from .presets import preset
from .quantities import readings, view_of


def batch_readings(
    losses, gradients, quantities="standard", *, name=None, groups=None, num_groups=None
):
    """Read quantities off a training batch's own gradients, inside the training step: no further pass.

    Args:
        losses: [m]; gradients: of the same examples, from `per_example_value_and_grad`.
        quantities: a preset's name ("light", "standard", "examples", "full") or a sequence of
        `Quantity`.
        name: what the readings' names start with, NAME/QUANTITY; `None` for the bare names.
        groups, num_groups: as for `coherence.alpha`.

    Returns:
        `{name: value}`, arrays; pure and jit-able.

    Raises:
        ValueError: an unknown preset, unfit groups, losses that are not one an example.
    """
    chosen, m = preset(quantities), reductions.size(gradients)
    if jnp.shape(losses) != (m,):
        raise ValueError(
            f"losses must be those of the {m} examples, [{m}], got shape {list(jnp.shape(losses))}. Both come from "
            "per_example_value_and_grad(loss)(params, batch); a mean gradient has no examples to read."
        )
    second = any(quantity.second_moments for quantity in chosen)
    found = readings(
        chosen,
        view_of(losses, gradients, groups=groups, num_groups=num_groups, second_moments=second),
    )
    return (
        found
        if name is None
        else {f"{name}/{quantity}": value for quantity, value in found.items()}
    )
