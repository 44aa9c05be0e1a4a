"""What can be read off per-example gradients: each quantity a name, a function, and what that function reads.

Quantities that are asked for together share one pass over the sample: the means they are made of (`coherence.metrics.pool`) and the
gradients of a fixed few of its examples.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .. import metrics
from ..gradients import reductions
from ..metrics.pooling import Pooled, pool
from ..trees import layer

READS = ("pooled", "groups", "few", "view")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class View:
    """A sample at frozen parameters, as quantities see it.

    loss: mean over the sample.  group_losses: [groups], over each group, or `None`.  pooled: `Pooled`, of the whole sample.
    groups: a tuple of `Pooled`, one a group, or `None`.  few: per-example gradients of a fixed few of its examples.
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
    function: pure; returns a number, an array, a dict by layer, or a named tuple of those.
    reads: "pooled" (`Pooled` of the sample), "groups" (a tuple of them; the quantity is skipped where there are no groups), "few" (the
        per-example gradients of the fixed few: what is quadratic in the number of examples) or "view" (all of it, a `View`).
    second_moments: whether it needs those of `Pooled`, which cost another weighted sum.
    """

    name: str
    function: Callable
    reads: str = "pooled"
    second_moments: bool = False

    def __post_init__(self):
        if not callable(self.function):
            raise TypeError(f"quantity {self.name}: function must be one, of what it reads, got {self.function!r}.")
        if self.reads not in READS:
            raise ValueError(f"quantity {self.name}: reads is one of {', '.join(READS)}, got {self.reads!r}.")


def readings(quantities, view):
    """`{name: value}` of the quantities, in one pure function of a `View`."""
    found = {}
    for quantity in quantities:
        if quantity.reads == "groups" and view.groups is None:
            continue
        value = quantity.function(view if quantity.reads == "view" else getattr(view, quantity.reads))
        if hasattr(value, "_asdict"):
            found |= {f"{quantity.name}_{field}": part for field, part in value._asdict().items()}
        elif value is not None:
            found[quantity.name] = value
    return found


def view_of(losses, gradients, *, groups=None, num_groups=None, second_moments=False):
    """The `View` of a batch whose per-example gradients are at hand: all its examples are the few."""
    parts = None if groups is None else pool(gradients, groups=groups, num_groups=num_groups)
    whole = pool(gradients, second_moments=second_moments)
    group_losses = None
    if parts is not None:
        numbers = jnp.asarray(groups).astype(jnp.int32)
        group_losses = jax.ops.segment_sum(losses, numbers, len(parts)) / jnp.stack([one.m for one in parts])
    return View(jnp.sum(losses) / whole.m, group_losses, whole, parts, gradients, groups)


def batch_readings(losses, gradients, quantities="standard", *, name=None, groups=None, num_groups=None):
    """Read quantities off a training batch's own gradients, inside the training step: no further pass.

    Args:
        losses: [m]; gradients: of the same examples, from `per_example_value_and_grad`.
        quantities: a preset's name ("light", "standard", "full") or a sequence of `Quantity`.
        name: what the readings' names start with, NAME/QUANTITY; `None` for the bare names.
        groups, num_groups: as for `coherence.alpha`.

    Returns:
        `{name: value}`, arrays; pure and jit-able.

    Raises:
        ValueError: an unknown preset, unfit groups, losses that are not one an example.
    """
    chosen, m = preset(quantities), reductions.nodes(gradients)[0][0][1].m
    if jnp.shape(losses) != (m,):
        raise ValueError(
            f"losses must be those of the {m} examples, [{m}], got shape {list(jnp.shape(losses))}. Both come from "
            "per_example_value_and_grad(loss)(params, batch); a mean gradient has no examples to read."
        )
    second = any(quantity.second_moments for quantity in chosen)
    found = readings(chosen, view_of(losses, gradients, groups=groups, num_groups=num_groups, second_moments=second))
    return found if name is None else {f"{name}/{quantity}": value for quantity, value in found.items()}


def preset(quantities):
    """The quantities of a preset, "light", "standard" or "full"; a sequence of them is passed on.

    Raises:
        ValueError: no such preset, or something that is no `Quantity`.
    """
    if isinstance(quantities, str):
        if quantities not in PRESETS:
            raise ValueError(f"there is no preset {quantities!r}: there is {', '.join(PRESETS)}.")
        return PRESETS[quantities]
    quantities = (quantities,) if isinstance(quantities, Quantity) else tuple(quantities)
    if wrong := [q for q in quantities if not isinstance(q, Quantity)]:
        raise ValueError(f"quantities are a preset's name or a sequence of Quantity, got {wrong[0]!r}. Write Quantity('name', function).")
    names = [quantity.name for quantity in quantities]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"quantities need names of their own, got {twice[0]!r} twice: one would overwrite the other.")
    return quantities


def _by_group(function):
    """A quantity of each group, [groups]."""
    return lambda groups: jnp.stack([function(one) for one in groups])


def _by_layer(function):
    return lambda pooled: function(pooled, by=layer)


def _shares(view):
    """f of the paper: <g, g^p> / <g, g>, from the groups' means."""
    if view.groups is None:
        return None
    mean = jax.tree.leaves(view.pooled.mean)
    inner = lambda one: sum(jnp.vdot(a, b) for a, b in zip(mean, jax.tree.leaves(one.mean)))
    return jnp.stack([one.m * inner(one) for one in view.groups]) / (view.pooled.m * view.pooled.squared_norm_of_mean)


def _stiffness(view):
    if view.few_groups is None:
        return None
    return metrics.stiffness_by_group(view.few, view.few_groups, num_groups=len(view.groups))


_few = lambda function: lambda view: function(view.few, pooled=view.pooled)

LIGHT = (
    Quantity("loss", lambda view: view.loss, "view"),
    Quantity("m_coherence", metrics.m_coherence),
    Quantity("gradient_norm", metrics.gradient_norm),
)
STANDARD = (
    *LIGHT,
    Quantity("m_coherence_by_layer", _by_layer(metrics.m_coherence)),
    Quantity("m_coherence_by_group", metrics.m_coherence, "groups"),
    Quantity("loss_by_group", lambda view: view.group_losses, "view"),
    Quantity("shares_by_group", _shares, "view"),
    Quantity("alpha_unbiased", metrics.alpha_unbiased),
    Quantity("noise", metrics.noise_moments),
    Quantity("norm_test", metrics.norm_test),
)
SIGNAL = (
    Quantity("mean_gsnr", metrics.mean_gsnr, second_moments=True),
    Quantity("mean_gsnr_by_layer", _by_layer(metrics.mean_gsnr), second_moments=True),
    Quantity("evidence", metrics.evidence, second_moments=True),
)
FULL = (
    *STANDARD,
    *SIGNAL,
    Quantity("one_step_generalization_ratio", metrics.one_step_generalization_ratio),
    Quantity("gap_integrand", lambda pooled: metrics.gap_integrand(metrics.alpha_unbiased(pooled))),
    Quantity("alpha_between", metrics.alpha_between, "groups"),
    Quantity("gradient_norm_by_group", _by_group(metrics.gradient_norm), "groups"),
    Quantity("inner_product_test", _few(metrics.inner_product_test), "view"),
    Quantity("orthogonality_test", _few(metrics.orthogonality_test), "view"),
    Quantity("contributions", _few(metrics.contributions), "view"),
    Quantity("squared_norms", reductions.squared_norms, "few"),
    Quantity("cosine_stiffness", metrics.cosine_stiffness, "few"),
    Quantity("sign_stiffness", metrics.sign_stiffness, "few"),
    Quantity("stiffness_by_group", _stiffness, "view"),
    Quantity("confusion", metrics.gradient_confusion, "few"),
    Quantity("disparity", lambda few: metrics.gradient_disparity(few, min(5, reductions.nodes(few)[0][0][1].m)), "few"),
)
PRESETS = {"light": LIGHT, "standard": STANDARD, "full": FULL}
