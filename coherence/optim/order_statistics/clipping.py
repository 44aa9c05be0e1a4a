"""Means of clipped and of trimmed values, and the choice between the ways to find where to clip."""

import functools

import jax.numpy as jnp

from coherence.gradients.factors import accumulator

from . import bisection, networks, streaming
from .comparators import larger, smaller
from .coordinates import Formed
from .keys import from_keys, to_keys

# Processor time on two cores, float32, the clipped mean of 784 x 2048 outer products, m = 100,
# milliseconds a core:   k            1    2    3    4    6    8   49   streaming   15   21   29
# 32    -    -    -   network     31   31   34   41   35   33   30 Streaming takes m (4k + 2)
# comparisons and a network m log^2 m / 4 or so: small m with the same k go to the network. Beyond
# 128 examples a network takes minutes to compile.
_STREAMED_RANKS = 4
_STREAMED_EXAMPLES_PER_RANK = 20
_NETWORK_ROWS = 128


def clipped_mean(leaf, k):
    r"""Mean over examples of each coordinate clipped to its (k+1)-th smallest and (k+1)-th largest value.

    `leaf` is `Formed` or `Products`; k an int, or an array where a mask makes the count dynamic.
    Exact: values are compared in their own dtype, the sum is kept in at least float32. k = 0 is the
    mean; the largest k, (m - 1) // 2, the median. A nan in any counted example makes the coordinate
    nan; infinities are values like others.
    """
    return _mean(leaf, k, lambda total, low, high: total / leaf.count)


def trimmed_mean(leaf, k):
    r"""Mean over examples of each coordinate without its k smallest and k largest values; as `clipped_mean` otherwise."""

    def from_clipped(total, low, high):
        """What is clipped counts k times as `low`, k times as `high`; infinite bounds are infinite means (or none)."""
        trimmed = (total - k * low - k * high) / jnp.maximum(leaf.count - 2 * k, 1)
        return jnp.where(jnp.isinf(low) | jnp.isinf(high), low + high, trimmed)

    return _mean(leaf, k, from_clipped)


def _mean(leaf, k, finish):
    """`finish(sum of clipped values, low, high)`; the midpoint of low and high where k leaves one value or two."""
    if isinstance(k, int) and k == 0:
        return leaf.mean()
    if isinstance(leaf, Formed) and not _is_unrolled(leaf, k):
        return leaf.by_tiles(lambda tile: _clipped(tile, k, finish))
    return _clipped(leaf, k, finish)


def _is_unrolled(leaf, k):
    """Whether one loop over the coordinates does it, its body holding all values of a coordinate; else many passes are made."""
    return isinstance(k, int) and leaf.m <= _NETWORK_ROWS


def _clipped(leaf, k, finish):
    spread = leaf.spread().without_masked()
    low, high = _bounds(spread, k)
    last = 2 * k >= leaf.count - 2
    if isinstance(last, bool) and last:
        result = _midpoint(low, high)
    else:
        result = finish(
            _sum_of_clipped(spread, low, high),
            *(x.astype(accumulator(leaf.dtype)) for x in (low, high)),
        )
        result = result if isinstance(last, bool) else jnp.where(last, _midpoint(low, high), result)
    return leaf.with_nans(result)


def _bounds(leaf, k):
    """The (k+1)-th smallest and the (k+1)-th largest value of each coordinate."""
    if not _is_unrolled(leaf, k):
        low = _searched(leaf, k)
        if isinstance(leaf.count, int) and leaf.count == 2 * k + 2:
            return low, _next(leaf, low, k + 1)
        return low, _searched(leaf, leaf.count - 1 - k)
    if k <= _STREAMED_RANKS and leaf.m >= k * _STREAMED_EXAMPLES_PER_RANK:
        return streaming.select(leaf.rows(), k)
    return networks.select(leaf.rows(), (k, leaf.m - 1 - k))


def _searched(leaf, k):
    """The value of rank k by bisection: a count over all examples for each bit."""
    integer = to_keys(jnp.zeros((), leaf.dtype)).dtype

    def below(keys):
        bound = from_keys(keys, leaf.dtype)
        count = _counted(leaf, lambda row: row < bound)
        return jnp.where(
            jnp.isnan(bound) & (keys > 0), leaf.m, count
        )  # keys beyond infinity's are above everything

    return from_keys(bisection.search(below, k, leaf.shape, integer), leaf.dtype)


def _next(leaf, value, k):
    """The value of rank k, given that of rank k - 1: the same where it is tied, else the least above it. Two passes, not 32."""
    step = lambda least, rows: functools.reduce(
        lambda x, row: jnp.where((row > value) & (row < x), row, x), rows, least
    )
    above = leaf.fold(jnp.full(leaf.shape, jnp.inf, leaf.dtype), step)
    return jnp.where(_counted(leaf, lambda row: row <= value) > k, value, above)


def _counted(leaf, condition):
    """How many examples' values meet the condition."""
    ones = lambda rows: _sum([jnp.where(condition(row), 1, 0) for row in rows])
    return leaf.fold(jnp.zeros(leaf.shape, jnp.int32), lambda n, rows: n + ones(rows))


def _sum_of_clipped(leaf, low, high):
    dtype = accumulator(leaf.dtype)

    def clipped(row):
        value = smaller(larger(row, low), high).astype(dtype)
        return value if leaf.mask is None else jnp.where(jnp.isnan(row), 0, value)

    if leaf.m <= _NETWORK_ROWS:
        return _sum([clipped(row) for row in leaf.rows()])
    return leaf.fold(
        jnp.zeros(leaf.shape, dtype),
        lambda total, rows: total + _sum([clipped(row) for row in rows]),
    )


def _midpoint(low, high):
    """At the largest k half the values are clipped to each side (all to one, where m is odd)."""
    low, high = (x.astype(accumulator(x.dtype)) for x in (low, high))
    return 0.5 * low + 0.5 * high  # halves first: low + high may overflow


def _sum(terms):
    """By halves: smaller rounding error, and short chains for the processor."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    return _sum(terms[:middle]) + _sum(terms[middle:])
