"""Quantities that are asked for together: what is cheap, what is usual, who drives the step, and all of it."""

import jax
import jax.numpy as jnp

from coherence import metrics
from coherence.gradients import reductions
from coherence.trees import layer

from .quantities import Quantity


def preset(quantities):
    """The quantities of a preset, "light", "standard", "examples" or "full"; a sequence of them is passed on.

    Raises:
        ValueError: no such preset, or something that is no `Quantity`.
    """
    if isinstance(quantities, str):
        if quantities not in PRESETS:
            raise ValueError(f"there is no preset {quantities!r}: there is {', '.join(PRESETS)}.")
        return PRESETS[quantities]
    quantities = (quantities,) if isinstance(quantities, Quantity) else tuple(quantities)
    if wrong := [q for q in quantities if not isinstance(q, Quantity)]:
        raise ValueError(
            f"quantities are a preset's name or a sequence of Quantity, got {wrong[0]!r}. Write Quantity('name', function)."
        )
    names = [quantity.name for quantity in quantities]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"quantities need names of their own, got {twice[0]!r} twice: one would overwrite the other."
        )
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
    return jnp.stack([one.m * inner(one) for one in view.groups]) / (
        view.pooled.m * view.pooled.squared_norm_of_mean
    )


def _stiffness(view):
    if view.few_groups is None:
        return None
    return metrics.stiffness_by_group(view.few, view.few_groups, num_groups=len(view.groups))


_few = lambda function: lambda view: function(view.few, pooled=view.pooled)

_LOSS_BY_GROUP = Quantity("loss_by_group", lambda view: view.group_losses, "view", axes=("group",))
_SHARES_BY_GROUP = Quantity("shares_by_group", _shares, "view", axes=("group",))

LIGHT = (
    Quantity("loss", lambda view: view.loss, "view"),
    Quantity("m_coherence", metrics.m_coherence),
    Quantity("gradient_norm", metrics.gradient_norm),
)
STANDARD = (
    *LIGHT,
    Quantity("m_coherence_by_layer", _by_layer(metrics.m_coherence), axes=("layer",)),
    Quantity("m_coherence_by_group", metrics.m_coherence, "groups", axes=("group",)),
    _LOSS_BY_GROUP,
    _SHARES_BY_GROUP,
    Quantity("alpha_unbiased", metrics.alpha_unbiased),
    Quantity("noise", metrics.noise_moments),
    Quantity("norm_test", metrics.norm_test),
)
EXAMPLES = (
    *LIGHT,
    _LOSS_BY_GROUP,
    _SHARES_BY_GROUP,
    Quantity("contributions", _few(metrics.contributions), "view", axes=("example",)),
    Quantity("squared_norms", reductions.squared_norms, "few", axes=("example",)),
)
SIGNAL = (
    Quantity("mean_gsnr", metrics.mean_gsnr, second_moments=True),
    Quantity(
        "mean_gsnr_by_layer", _by_layer(metrics.mean_gsnr), second_moments=True, axes=("layer",)
    ),
    Quantity("evidence", metrics.evidence, second_moments=True),
)
FULL = (
    *STANDARD,
    *(quantity for quantity in EXAMPLES if quantity not in STANDARD),
    *SIGNAL,
    Quantity("one_step_generalization_ratio", metrics.one_step_generalization_ratio),
    Quantity("gap_integrand", lambda pooled: metrics.gap_integrand(metrics.alpha_unbiased(pooled))),
    Quantity("alpha_between", metrics.alpha_between, "groups", axes=("group", "group")),
    Quantity("gradient_norm_by_group", _by_group(metrics.gradient_norm), "groups", axes=("group",)),
    Quantity("inner_product_test", _few(metrics.inner_product_test), "view"),
    Quantity("orthogonality_test", _few(metrics.orthogonality_test), "view"),
    Quantity("cosine_stiffness", metrics.cosine_stiffness, "few"),
    Quantity("sign_stiffness", metrics.sign_stiffness, "few"),
    Quantity("stiffness_by_group", _stiffness, "view", axes={"matrix": ("group", "group")}),
    Quantity("confusion", metrics.gradient_confusion, "few"),
    Quantity(
        "disparity",
        lambda few: metrics.gradient_disparity(few, min(5, reductions.size(few))),
        "few",
    ),
)
PRESETS = {"light": LIGHT, "standard": STANDARD, "examples": EXAMPLES, "full": FULL}
