"""The mean of clipped values, and the choice between the ways to find what to clip to."""

import jax.numpy as jnp
from jax import lax

from coherence.gradients.factors import accumulator

from . import bisection, networks, streaming
from .keys import from_keys, to_keys

# Two busy cores, float32, the clipped mean of 784 x 2048 outer products, m = 100, interleaved, milliseconds (compile time, s):
#   k             1           2           3           4           6           8          49
#   streaming    60 (1.1)    68 (1.3)    77 (1.8)    81 (2.5)    98 (35)     - (> 60)    -
#   network     111 (1.7)   112 (1.7)   113 (1.8)   100 (1.9)   118 (1.8)   120 (1.9)   115 (1.4)
# Streaming takes m (4k + 2) operations and a network m log^2 m / 2 or so: small m with the same k go to the network.
# Beyond 128 rows a network spills and its compile time grows.
_STREAMED_RANKS = 4
_STREAMED_EXAMPLES_PER_RANK = 20
_NETWORK_ROWS = 128


def clipped_mean(leaf, k):
    r"""Mean over examples of each coordinate clipped to its (k+1)-th smallest and (k+1)-th largest value.

    `leaf` is `Formed` or `Products`; k an int, or an array where a mask makes the count dynamic. Exact: values are compared in
    their own dtype, the sum is kept in at least float32. k = 0 is the mean; the largest k, (m - 1) // 2, the median.
    A nan in any counted example makes the coordinate nan; infinities are values like others.
    """
    if isinstance(k, int) and k == 0:
        return leaf.mean()
    if isinstance(k, int) and leaf.m <= _NETWORK_ROWS:
        return leaf.with_nans(_unrolled(leaf, k))
    return leaf.by_tiles(lambda tile: tile.with_nans(_bisected(tile, k)))


def _unrolled(leaf, k):
    """Everything in one loop over the coordinates, whose body holds the m values: no array but the result."""
    keys = [to_keys(row) for row in leaf.rows()]
    streamed = k <= _STREAMED_RANKS and leaf.m >= k * _STREAMED_EXAMPLES_PER_RANK
    low, high = streaming.select(keys, k) if streamed else networks.select(keys, (k, leaf.m - 1 - k))
    if 2 * k >= leaf.m - 2:
        return _midpoint(low, high, leaf.dtype)
    clipped = [from_keys(lax.min(lax.max(key, low), high), leaf.dtype).astype(accumulator(leaf.dtype)) for key in keys]
    return _sum(clipped) / leaf.m


def _bisected(leaf, k):
    keys, count = to_keys(leaf.values), leaf.count
    low = bisection.select(keys, k, leaf.mask)
    high = bisection.select(keys, count - 1 - k, leaf.mask)
    clipped = from_keys(jnp.clip(keys, low, high), leaf.dtype).astype(accumulator(leaf.dtype))
    kept = clipped if leaf.mask is None else jnp.where(leaf.mask[:, None], clipped, 0)
    return jnp.where(2 * k >= count - 2, _midpoint(low, high, leaf.dtype), jnp.sum(kept, 0) / count)


def _midpoint(low, high, dtype):
    """At the largest k half the values are clipped to each side (all to one, where m is odd)."""
    low, high = (from_keys(x, dtype).astype(accumulator(dtype)) for x in (low, high))
    return 0.5 * low + 0.5 * high  # halves first: low + high may overflow


def _sum(terms):
    """By halves: smaller rounding error, and short chains for the processor."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    return _sum(terms[:middle]) + _sum(terms[middle:])
