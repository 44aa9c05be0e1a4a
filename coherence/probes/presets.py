"""Presets: quantities that are asked for together, the cheap, the usual, by example, and all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from coherence import metrics
from coherence.gradients import reductions
from coherence.trees import layer

from .histograms import histogram
from .quantities import Quantity, View

Chosen: TypeAlias = str | Quantity | Callable[[View], Any]


def select_quantities(quantities: Chosen | Iterable[Chosen]) -> tuple[Quantity, ...]:
    """The quantities that are asked for, each of them once.

    Args:
        quantities: any of the following, or a sequence of them: the name of a preset ("light",
            "standard", "examples", "full", "histograms"), of a quantity in them ("evidence"), a
            `Quantity`, or a named function of a `View`, which is recorded under its name.

    Raises:
        ValueError: no such name, a function without one, or two quantities of one name.
        TypeError: something else.

    >>> [quantity.name for quantity in select_quantities(["light", "evidence"])]
    ['loss', 'm_coherence', 'gradient_norm', 'evidence']
    """
    if isinstance(quantities, str | Quantity) or callable(quantities):
        quantities = (quantities,)
    selected: dict[str, Quantity] = {}
    for chosen in quantities:
        for quantity in _quantities(chosen):
            if selected.setdefault(quantity.name, quantity) != quantity:
                raise ValueError(
                    f"quantities need names of their own, got {quantity.name!r} twice: one would "
                    "overwrite the other."
                )
    return tuple(selected.values())


def _quantities(chosen: Chosen) -> tuple[Quantity, ...]:
    if isinstance(chosen, Quantity):
        return (chosen,)
    if isinstance(chosen, str):
        if chosen in PRESETS:
            return PRESETS[chosen]
        if chosen in _BY_NAME:
            return (_BY_NAME[chosen],)
        raise ValueError(
            f"there is no preset or quantity {chosen!r}: there are the presets "
            f"{', '.join(PRESETS)}, which hold {', '.join(_BY_NAME)}."
        )
    if not callable(chosen):
        raise TypeError(
            "quantities are names, Quantity('name', function) or functions of a View, got "
            f"{chosen!r}."
        )
    name = getattr(chosen, "__name__", "<lambda>")
    if name == "<lambda>":
        raise ValueError(
            f"{chosen!r} has no name to be recorded under: write Quantity('name', function, "
            "'view')."
        )
    if chosen.__module__.startswith("coherence."):
        raise ValueError(
            f"{name} is a metric of gradients, not of a View: write Quantity({name!r}, {name}), or "
            'with reads="few" where it needs single examples.'
        )
    return (Quantity(name, chosen, "view"),)


def _by_group(function):
    return lambda groups: jnp.stack([function(group) for group in groups])


def _by_layer(function):
    return lambda pooled: function(pooled, by=layer)


def _of_few(function):
    return lambda view: function(view.few, pooled=view.pooled)


def _gap_integrand(pooled):
    return metrics.gap_integrand(metrics.alpha_unbiased(pooled))


def _shares(view):
    """f of the paper, <g, g^p> / <g, g>, from the groups' means."""
    if view.groups is None:
        return None
    mean = jax.tree.leaves(view.pooled.mean)

    def weight(group):
        inner = sum(jnp.vdot(a, b) for a, b in zip(mean, jax.tree.leaves(group.mean)))
        return group.m * inner

    whole = view.pooled.m * view.pooled.squared_norm_of_mean
    return jnp.stack([weight(group) for group in view.groups]) / whole


def _stiffness(view):
    if view.few_groups is None:
        return None
    return metrics.stiffness_by_group(view.few, view.few_groups, num_groups=len(view.groups))


def _disparity(few):
    return metrics.gradient_disparity(few, min(5, reductions.size(few)))


_BY_GROUP, _BY_LAYER, _BY_EXAMPLE = ("group",), ("layer",), ("example",)
_LOSS_BY_GROUP = Quantity("loss_by_group", lambda view: view.group_losses, "view", axes=_BY_GROUP)
_SHARES_BY_GROUP = Quantity("shares_by_group", _shares, "view", axes=_BY_GROUP)

LIGHT = (
    Quantity("loss", lambda view: view.loss, "view"),
    Quantity("m_coherence", metrics.m_coherence),
    Quantity("gradient_norm", metrics.gradient_norm),
)
STANDARD = (
    *LIGHT,
    Quantity("m_coherence_by_layer", _by_layer(metrics.m_coherence), axes=_BY_LAYER),
    Quantity("m_coherence_by_group", metrics.m_coherence, "groups", axes=_BY_GROUP),
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
    Quantity("contributions", _of_few(metrics.contributions), "view", axes=_BY_EXAMPLE),
    Quantity("squared_norms", reductions.squared_norms, "few", axes=_BY_EXAMPLE),
)
SIGNAL = (
    Quantity("mean_gsnr", metrics.mean_gsnr, variances=True),
    Quantity("mean_gsnr_by_layer", _by_layer(metrics.mean_gsnr), variances=True, axes=_BY_LAYER),
    Quantity("evidence", metrics.evidence, variances=True),
)
FULL = (
    *STANDARD,
    *(quantity for quantity in EXAMPLES if quantity not in STANDARD),
    *SIGNAL,
    Quantity("one_step_generalization_ratio", metrics.one_step_generalization_ratio),
    Quantity("gap_integrand", _gap_integrand),
    Quantity("alpha_between", metrics.alpha_between, "groups", axes=("group", "group")),
    Quantity("gradient_norm_by_group", _by_group(metrics.gradient_norm), "groups", axes=_BY_GROUP),
    Quantity("inner_product_test", _of_few(metrics.inner_product_test), "view"),
    Quantity("orthogonality_test", _of_few(metrics.orthogonality_test), "view"),
    Quantity("cosine_stiffness", metrics.cosine_stiffness, "few"),
    Quantity("sign_stiffness", metrics.sign_stiffness, "few"),
    Quantity("stiffness_by_group", _stiffness, "view", axes={"matrix": ("group", "group")}),
    Quantity("confusion", metrics.gradient_confusion, "few"),
    Quantity("disparity", _disparity, "few"),
)
_OF_HISTOGRAM = {"counts": ("layer", "bin"), "limit": _BY_LAYER}
HISTOGRAMS = (
    Quantity("gradient_histogram", lambda p: histogram(p.mean), axes=_OF_HISTOGRAM),
    Quantity(
        "parameter_histogram",
        lambda view: None if view.params is None else histogram(view.params),
        "view",
        axes=_OF_HISTOGRAM,
    ),
)
PRESETS = {
    "light": LIGHT,
    "standard": STANDARD,
    "examples": EXAMPLES,
    "full": FULL,
    "histograms": HISTOGRAMS,
}
_BY_NAME = {quantity.name: quantity for quantity in (*FULL, *HISTOGRAMS)}
