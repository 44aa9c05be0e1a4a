"""Keep what is coherent by itself: layers, or single coordinates, whose own m-coherence exceeds a threshold."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from coherence.gradients.factors import accumulator
from coherence.gradients.reductions import count, mean, mean_of
from coherence.metrics import m_coherence
from coherence.trees import layer, leaf

from .aggregation import Aggregator, aggregator


def coherence_mask(
    threshold: float = 1.0, by: Literal["layer", "leaf"] | Callable[[tuple], str] = "layer"
) -> Aggregator:
    r"""The mean gradient of the layers whose own examples help each other enough; the others rest for this step.

    .. math:: \bar g_L = \frac1m\sum_i g_{i,L} \quad\text{where}\quad m\,\alpha_m(L) > \tau

    m-coherence is 1 where examples have nothing to do with each other and m where they agree: the
    threshold is how many examples of the batch an example must help, itself included. It scales
    with m: choose it for a batch size. Masked examples do not count.

    A use of the per-layer alpha of Chatterjee & Zielinski, On the Generalization Mystery
    (arXiv:2203.10036), Section 4; not a method of the paper.

    Args:
        threshold: m-coherence above which a layer is kept, at least 0 (which keeps all).
        by: what is kept or dropped as one: "layer", "leaf", or a function from a leaf's key path to
            a name (such as `coherence.layer`).

    >>> tx = coherence_mask(1.5)
    >>> tx.update({"shared": jnp.ones((2, 1)), "private": jnp.eye(2)}, tx.init(None))[0]
    {'private': Array([0., 0.], dtype=float32), 'shared': Array([1.], dtype=float32)}
    """
    _check(threshold, "coherence_mask")
    group = {"layer": layer, "leaf": leaf}.get(by, by) if isinstance(by, str) else by
    if not callable(group):
        raise ValueError(
            f'coherence_mask(by): "layer", "leaf" or a function of a leaf\'s path, got {by!r}.'
        )

    def combine(gradients):
        coherence = m_coherence(gradients, by=group)
        # "Zero where too low": all-zero gradients have none, and are zero anyway; a nan stays where
        # it is.
        kept = lambda path, g: jnp.where(coherence[group(path)] <= threshold, 0, g)
        return jax.tree.map_with_path(kept, mean(gradients))

    name = by if isinstance(by, str) else getattr(by, "__name__", by)
    return aggregator(combine, f"coherence_mask(threshold={threshold}, by={name!r})")


def coordinate_mask(threshold: float = 1.5) -> Aggregator:
    r"""The mean gradient of the coordinates whose own examples help each other enough, zero elsewhere.

    .. math:: \bar g^{(j)} = \frac1m\sum_i g_i^{(j)} \quad\text{where}\quad \frac{(\sum_i g_i^{(j)})^2}{\sum_i (g_i^{(j)})^2} > \tau

    `coherence_mask` with every coordinate a layer of its own. A coordinate that moves one example
    only has an m-coherence of 1, one that moves k alike has k: 1.5 drops what is private. About 1
    for unrelated examples too, but with large fluctuations: as chi squared with one degree of
    freedom, above 4 in one coordinate of 22.

    In float32 entries below 1e-19 square to nothing, and count as not coherent. A nan in any
    example makes its coordinate nan. Masked examples do not count. The single-coordinate case of
    Chatterjee & Zielinski, On the Generalization Mystery (arXiv:2203.10036), Section 4; not a
    method of the paper.

    Args:
        threshold: m-coherence above which a coordinate is kept, at least 0 (which keeps all).

    >>> tx = coordinate_mask(1.5)
    >>> tx.update(jnp.array([[1.0, 3.0], [1.0, 0.0]]), tx.init(None))[0]
    Array([1., 0.], dtype=float32)
    """
    _check(threshold, "coordinate_mask")

    def combine(gradients):
        average = mean(gradients)
        return jax.tree.map(
            lambda c, g: jnp.where(c <= threshold, 0, g),
            coordinate_coherence(gradients, average),
            average,
        )

    return aggregator(combine, f"coordinate_mask(threshold={threshold})")


def coordinate_coherence(gradients, average):
    """Each coordinate's own m-coherence, in the parameters' shapes; 0 where all examples are. `average` is their mean."""
    m = count(gradients)

    def of_leaf(mean_gradient, mean_square):
        g = mean_gradient.astype(accumulator(mean_gradient.dtype))
        still = mean_square == 0
        return m * jnp.where(still, 0, g * g / jnp.where(still, 1, mean_square))

    return jax.tree.map(of_leaf, average, mean_of(gradients, jnp.square))


def _check(threshold, name):
    if not threshold >= 0:
        raise ValueError(
            f"{name}(threshold): threshold is an m-coherence (1 is none, m is all), at least 0, got {threshold}."
        )
