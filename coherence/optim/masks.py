"""Parts of the mean gradient: its coherent layers or coordinates, or its strongest coordinates."""

import math
import numbers
from collections.abc import Callable
from fractions import Fraction
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from coherence.gradients.factors import accumulator
from coherence.gradients.reductions import count, mean, mean_of
from coherence.metrics import m_coherence, pool
from coherence.trees import layer, leaf, splits_layers

from .aggregation import Aggregator, aggregator, averaged
from .order_statistics import selection


def coherence_mask(
    threshold: float = 1.0, by: Literal["layer", "leaf"] | Callable[[tuple], str] = "layer"
) -> Aggregator:
    r"""The mean gradient of the coherent layers, zero elsewhere.

    .. math:: \bar g_L = \frac1m\sum_i g_{i,L} \quad\text{where}\quad m\,\alpha_m(L) > \tau

    m-coherence is 1 where examples have nothing to do with each other and m where they agree: the
    threshold is how many examples of the batch an example must help, itself included. It scales
    with m: choose it for a batch size. Masked examples do not count.

    A use of the per-layer alpha of Chatterjee & Zielinski, On the Generalization Mystery
    (arXiv:2203.10036), Section 4; not a method of the paper.

    Args:
        threshold: m-coherence above which a layer is kept, at least 0 (which keeps all).
        by: what is kept or dropped as one: "layer", "leaf", or a function from a leaf's key path to
            a name.

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
        pooled = pool(gradients)
        coherence = m_coherence(pooled, by=group)

        # "Zero where too low": all-zero gradients have none, and are zero anyway; a nan stays where
        # it is.
        def masked(path, g, squares):
            if not squares.ndim or not splits_layers(group):
                return jnp.where(coherence[group(path)] <= threshold, 0, g)
            layers = jnp.stack([coherence[f"{group(path)}/{i}"] for i in range(len(g))])
            return jnp.where(layers.reshape(-1, *[1] * (g.ndim - 1)) <= threshold, 0, g)

        return jax.tree.map_with_path(masked, mean(gradients), pooled.mean_squared_norms)

    name = by if isinstance(by, str) else getattr(by, "__name__", by)
    return aggregator(combine, f"coherence_mask(threshold={threshold}, by={name!r})")


def coordinate_mask(threshold: float = 1.5) -> Aggregator:
    r"""The mean gradient of the coherent coordinates, zero elsewhere.

    .. math:: \bar g^{(j)} = \frac1m\sum_i g_i^{(j)} \quad\text{where}\quad
        \frac{(\sum_i g_i^{(j)})^2}{\sum_i (g_i^{(j)})^2} > \tau

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
            _coordinate_coherence(gradients, average),
            average,
        )

    return aggregator(combine, f"coordinate_mask(threshold={threshold})")


def top_k(share: float = 0.1, *, by_coherence: bool = False) -> Aggregator:
    r"""The strongest coordinates of the mean gradient, zero elsewhere.

    .. math:: \bar g^{(j)} = \frac1m\sum_i g_i^{(j)} \quad\text{for the }
        k = \lceil \mathrm{share} \cdot P \rceil \text{ largest of } P \text{ scores}

    The score is the magnitude of the mean, or with `by_coherence` the coordinate's own m-coherence
    (of `coordinate_mask`). The whole tree competes, not each leaf by itself. Exactly k coordinates
    are kept, of equal scores those that come first in the order of `jax.tree.leaves`; so the choice
    among equals depends on the order of the parameters, never on that of the examples. Beware by
    coherence: all coordinates that move one example only score 1, up to rounding. A nan scores
    above everything, and stays.

    By magnitude it takes batch gradients too. Masked examples do not count. Exact for any P: k is
    found by bisection, without sorting.

    Sparse gradients as in Aji & Heafield, Sparse Communication for Distributed Gradient Descent
    (arXiv:1704.05021), without carrying over what was dropped. Not in the papers on coherent
    gradients.

    Args:
        share: of the coordinates, in (0, 1]; static, and meant as the decimal it is written as.
        by_coherence: rank by the coordinates' own coherence.

    >>> tx = top_k(0.5)
    >>> tx.update(jnp.array([[1.0, -4.0, 3.0, 0.0]]), tx.init(None))[0]
    Array([ 0., -4.,  3.,  0.], dtype=float32)
    """
    if not isinstance(share, numbers.Real) or not 0 < share <= 1:
        raise ValueError(f"top_k(share): share is of the coordinates, in (0, 1], got {share!r}.")
    name = f"top_k(share={share}, by_coherence={by_coherence})"
    if not by_coherence:
        by_magnitude = lambda g, params: _strongest(g, jax.tree.map(jnp.abs, g), share)
        return averaged(optax.stateless(by_magnitude), name)

    def combine(gradients):
        average = mean(gradients)
        return _strongest(average, _coordinate_coherence(gradients, average), share)

    return aggregator(combine, name)


def _coordinate_coherence(gradients, average):
    """Each coordinate's own m-coherence, 0 where all examples are; `average` is their mean."""
    m = count(gradients)

    def of_leaf(mean_gradient, mean_square):
        g = mean_gradient.astype(accumulator(mean_gradient.dtype))
        still = mean_square == 0
        return m * jnp.where(still, 0, g * g / jnp.where(still, 1, mean_square))

    return jax.tree.map(of_leaf, average, mean_of(gradients, jnp.square))


def _check(threshold, name):
    if not threshold >= 0:
        raise ValueError(
            f"{name}(threshold): threshold is an m-coherence (1 is none, m is all), at least 0, "
            f"got {threshold}."
        )


def _strongest(gradient, scores, share):
    """`gradient`, zero but at the coordinates of the largest scores."""
    leaves, treedef = jax.tree.flatten(gradient)
    # In one dtype that holds them all; without signs, for a nan with one would sort below.
    flat = [jnp.abs(x).ravel() for x in jax.tree.leaves(scores)]
    keys = selection.to_keys(jnp.concatenate(flat).astype(accumulator(*(x.dtype for x in flat))))
    k = math.ceil(Fraction(str(share)) * keys.size)
    least = selection.bisect(keys, keys.size - k)
    equal, above = keys == least, keys > least
    strongest = above | (equal & (jnp.cumsum(equal) <= k - jnp.sum(above)))
    shares = jnp.split(strongest, np.cumsum([x.size for x in leaves[:-1]]))
    gradients = [jnp.where(keep.reshape(g.shape), g, 0) for keep, g in zip(shares, leaves)]
    return jax.tree.unflatten(treedef, gradients)
