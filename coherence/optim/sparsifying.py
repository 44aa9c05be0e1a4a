"""Keep the few strongest coordinates of the mean gradient."""

import math
import numbers
from fractions import Fraction

import jax
import jax.numpy as jnp
import optax

from coherence.gradients.reductions import mean

from .aggregation import Aggregator, aggregator, averaged
from .coherence_masks import coordinate_coherence
from .order_statistics import bisection
from .order_statistics.keys import to_keys


def top_k(share: float = 0.1, *, by_coherence: bool = False) -> Aggregator:
    r"""The strongest coordinates of the mean gradient, zero elsewhere: what gradient descent would learn first, and no more.

    .. math:: \bar g^{(j)} = \frac1m\sum_i g_i^{(j)} \quad\text{for the } k = \lceil \mathrm{share} \cdot P \rceil \text{ largest of }
        P \text{ scores}

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
        return _strongest(average, coordinate_coherence(gradients, average), share)

    return aggregator(combine, name)


def _strongest(gradient, scores, share):
    """`gradient`, zero but at the coordinates of the largest scores."""
    leaves, treedef = jax.tree.flatten(gradient)
    # Scores are at least 0 (or nan, which sorts above), where keys are the floats' own bits.
    keys = jnp.concatenate(
        [to_keys(x.astype(jnp.float32)).ravel() for x in jax.tree.leaves(scores)]
    )
    k = math.ceil(Fraction(str(share)) * keys.size)
    least = bisection.select(keys, keys.size - k)
    equal, above = keys == least, keys > least
    kept = above | (equal & (jnp.cumsum(equal) <= k - jnp.sum(above)))
    ends = [sum(x.size for x in leaves[: i + 1]) for i in range(len(leaves) - 1)]
    shares = jnp.split(kept, ends)
    return treedef.unflatten(
        [jnp.where(keep.reshape(g.shape), g, 0) for keep, g in zip(shares, leaves)]
    )
