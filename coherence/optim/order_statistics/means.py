"""Means of clipped and of trimmed values: ranks, and the choice between the kernels that select."""

import functools
import math
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from coherence.gradients.factors import accumulator

from . import selection
from .coordinates import Coordinates, Formed, Products, is_divided

# Beyond this many examples a network takes minutes to compile.
_NETWORK_ROWS = 128
# Formed numbers that many passes are made over: 256 KiB in float32 stay in a core's cache.
_IN_CACHE = 2**16
# Bounds that are guessed from ranks, before every other one halves a bracket.
_GUESSED_BOUNDS = 10
# Whether CUDA devices take the kernel made for them (`benchmarks/accelerator.py` compares it with
# what XLA makes of the others), and up to which rank: more kept values do not fit into registers.
use_triton = False
_TRITON_RANK = 8


def rank(c: float, m: int) -> int:
    r"""Convert a percentage to a rank: how many of m values each side gives up.

    .. math:: k = \lceil c (m - 1) / 100 - 1/2 \rceil

    c % of m - 1 to the nearest integer, halves down: 0 at c = 0; (m - 1) // 2 at c = 50, for even m
    too. Exact: c counts as the decimal number it is written as.

    >>> [rank(c, 100) for c in (0, 1, 2, 8, 50)]
    [0, 1, 2, 8, 49]
    """
    return max(0, math.ceil(Fraction(str(c)) * (m - 1) / 100 - Fraction(1, 2)))


def leaf_rank(c: float, leaf: Coordinates) -> int | jax.Array:
    """`rank` of the examples a leaf counts: an int, or with a mask an array.

    >>> from coherence.optim.order_statistics import Formed
    >>> leaf_rank(10, Formed(jnp.ones((20, 3))))
    2
    """
    if leaf.mask is None:
        return rank(c, leaf.m)
    return jnp.asarray([rank(c, n) for n in range(leaf.m + 1)], jnp.int32)[leaf.count]


def winsorized_mean(leaf: Coordinates, k: int | jax.Array) -> jax.Array:
    """Mean of each coordinate clipped to its (k+1)-th smallest and (k+1)-th largest value.

    k is an int, or an array where a mask makes the count dynamic. Exact: values are compared in
    their own dtype, the sum is kept in at least float32. k = 0 is the mean; the largest k,
    (m - 1) // 2, the median. A nan in any counted example makes the coordinate nan; infinities are
    values like others.

    >>> from coherence.optim.order_statistics import Formed
    >>> winsorized_mean(Formed(jnp.array([[1.0], [2.0], [9.0]])), 1).tolist()
    [2.0]
    """
    return _mean(leaf, k, trimmed=False)


def trimmed_mean(leaf: Coordinates, k: int | jax.Array) -> jax.Array:
    """Mean of each coordinate without its k smallest and k largest values.

    The rest as `winsorized_mean`.

    >>> from coherence.optim.order_statistics import Formed
    >>> trimmed_mean(Formed(jnp.array([[1.0], [2.0], [9.0]])), 1).tolist()
    [2.0]
    """
    return _mean(leaf, k, trimmed=True)


def _mean(leaf, k, trimmed):
    if isinstance(k, int) and k == 0:
        return leaf.mean()
    if _is_unrolled(leaf, k):
        return leaf.with_nans(_unrolled(leaf, k, trimmed))
    if isinstance(leaf, Formed):
        of_tile = lambda tile: _counting(tile, k, trimmed)
        return leaf.by_tiles(of_tile) if is_divided() else leaf.by_tiles(of_tile, _IN_CACHE)
    return _counting(leaf, k, trimmed)


def _is_unrolled(leaf, k):
    """Whether one loop holds all values of a coordinate; else many passes are made."""
    return isinstance(k, int) and leaf.m <= _NETWORK_ROWS


def _unrolled(leaf, k, trimmed):
    m = leaf.m
    if not trimmed and _is_for_triton(leaf, k):
        from . import triton  # takes a second to import

        scaled, scale = leaf.scaled()
        return triton.winsorized_mean(*_factors(scaled), k=k).reshape(leaf.shape) / scale
    if 2 * k >= m - 2:
        # What is formed is small, mostly: its kernel's speed matters less than its compilation.
        low, high = selection.select(
            leaf.spread().rows(), (k, m - 1 - k), quick_to_compile=isinstance(leaf, Formed)
        )
        return _midpoint(low, high)
    scaled, scale = leaf.scaled()
    low, high, between = selection.split(scaled.spread().rows(), k)
    times, count = (1, m - 2 * k) if trimmed else (k + 1, m)  # how often the bounds count
    wide = lambda x: lax.convert_element_type(x, accumulator(x.dtype))
    total = _sum([wide(x) for x in between]) + times * wide(low) + times * wide(high)
    return total / count / scale.astype(total.dtype)


def _is_for_triton(leaf, k):
    return (
        use_triton
        and jax.default_backend() == "gpu"
        and k <= _TRITON_RANK
        and 2 * k < leaf.m - 2
        and leaf.dtype == jnp.float32
        and not is_divided()
    )


def _factors(leaf):
    """Outer products whose values are the leaf's: formed ones with inputs of one."""
    if isinstance(leaf, Products):
        _, height, width = leaf.shape
        return leaf.inputs[:, :, :height], leaf.cotangents[:, :, :width]
    return jnp.ones((1, leaf.m, 1), leaf.dtype), leaf.values[None]


def _sum(terms):
    """In two chains: one waits for each addition, more do not stay in registers."""
    chains = [functools.reduce(lax.add, chain) for chain in (terms[::2], terms[1::2]) if chain]
    return functools.reduce(lax.add, chains)


def _midpoint(low, high):
    """At the largest k half the values are clipped to each side (all to one, where m is odd)."""
    low, high = (x.astype(accumulator(x.dtype)) for x in (low, high))
    return 0.5 * low + 0.5 * high  # halves first: low + high may overflow


def _counting(leaf, k, trimmed):
    """For large m, or a rank known only at run time: two searches and a pass that sums."""
    leaf, scale = leaf.scaled()
    spread = leaf.spread().without_masked()
    low, high = _bounds(spread, k)
    total = _sum_of_clipped(spread, low, high)
    wide_low, wide_high = (x.astype(accumulator(leaf.dtype)) for x in (low, high))
    if trimmed:
        # What is clipped counts k times as each bound; infinite bounds are infinite means, or none.
        rest = (total - k * wide_low - k * wide_high) / jnp.maximum(leaf.count - 2 * k, 1)
        infinite = jnp.isinf(low) | jnp.isinf(high)
        result = jnp.where(infinite, wide_low + wide_high, rest)
    else:
        result = total / leaf.count
    is_middle = 2 * k >= leaf.count - 2
    result = jnp.where(is_middle, _midpoint(low, high), result)
    return leaf.with_nans(result) / scale.astype(result.dtype)


def _bounds(leaf, k):
    """The (k+1)-th smallest and the (k+1)-th largest value of each coordinate."""
    search = _bracketed(leaf) if isinstance(leaf, Formed) else functools.partial(_searched, leaf)
    low = search(k)
    if isinstance(leaf.count, int) and leaf.count == 2 * k + 2:
        return low, _next(leaf, low, k + 1)
    return low, search(leaf.count - 1 - k)


def _searched(leaf, k):
    """The value of rank k by bisection: a count over all examples for each bit."""
    integer = selection.to_keys(jnp.zeros((), leaf.dtype)).dtype

    def below(keys):
        bound = selection.from_keys(keys, leaf.dtype)
        count = _counted(leaf, lambda row: row < bound)
        # Keys beyond infinity's are above everything.
        return jnp.where(jnp.isnan(bound) & (keys > 0), leaf.m, count)

    least = leaf.filled(jnp.iinfo(integer).min, integer)
    return selection.from_keys(selection.search(below, k, least), leaf.dtype)


class _Bracket(NamedTuple):
    """Keys around the value of a rank, `low` <= it < `high`, and how many values are below each."""

    low: jax.Array
    high: jax.Array
    below_low: jax.Array
    below_high: jax.Array


def _bracketed(leaf):
    """`k -> value of rank k`, by a pass over the examples for each bound of a bracket around it.

    A pass counts the values below a bound inside the bracket, until the rank is the first or the
    last there; a last pass finds it. A coordinate of 256 normal values takes 5 bounds, the slowest
    of 128 coordinates 9, the slowest of a million 20, which are no better than 32 bits.
    """
    least, largest = _least(leaf, lambda row: row), _largest(leaf, lambda row: row)
    none = leaf.filled(0, jnp.int32)
    ends = selection.to_keys(least), selection.to_keys(largest) + 1
    whole = _Bracket(*ends, none, none + leaf.count)

    def is_open(bracket, k):
        # By value: where the processor takes numbers below the smallest normal one for zero, it
        # cannot tell them apart.
        first = selection.from_keys(bracket.low, leaf.dtype)
        last = selection.from_keys(bracket.high - 1, leaf.dtype)
        return (bracket.below_low != k) & (bracket.below_high != k + 1) & (first < last)

    def narrowed(bracket, i, k):
        bound = _bound_inside(bracket, i, k, leaf)
        value = selection.from_keys(bound, leaf.dtype)
        below = _counted(leaf, lambda row: row < value)
        is_lower = is_open(bracket, k) & (below <= k)
        is_higher = is_open(bracket, k) & (below > k)
        return _Bracket(
            jnp.where(is_lower, bound, bracket.low),
            jnp.where(is_higher, bound, bracket.high),
            jnp.where(is_lower, below, bracket.below_low),
            jnp.where(is_higher, below, bracket.below_high),
        )

    def search(k):
        bracket, _ = lax.while_loop(
            lambda state: jnp.any(is_open(state[0], k)),
            lambda state: (narrowed(*state, k), state[1] + 1),
            (whole, jnp.zeros((), jnp.int32)),
        )
        low, high = (selection.from_keys(x, leaf.dtype) for x in (bracket.low, bracket.high))
        first = _least(leaf, lambda row: jnp.where(row >= low, row, jnp.inf))
        below_high = _largest(leaf, lambda row: jnp.where(row < high, row, -jnp.inf))
        last = jnp.where(bracket.high == whole.high, largest, below_high)
        is_last = bracket.below_high == k + 1
        return jnp.where(bracket.below_low == k, first, jnp.where(is_last, last, low))

    return search


def _bound_inside(bracket, i, k, leaf):
    """A key inside the bracket, or anything where it is closed, for the i-th pass.

    Near to where the rank is if the values are distributed as the logistic distribution, but not at
    the edges. The first two bounds close the bracket where the value is zero, as it is for many
    weights of a rectifier; and halving the keys comes to an end however the values are distributed.
    """
    wide = accumulator(leaf.dtype)
    first = selection.from_keys(bracket.low, leaf.dtype).astype(wide)
    last = selection.from_keys(bracket.high - 1, leaf.dtype).astype(wide)
    logit = lambda rank: jnp.log((rank + 0.5) / (leaf.count - rank + 0.5))
    at = lambda rank: (logit(rank) - logit(bracket.below_low)).astype(wide)
    share = jnp.clip(at(k) / at(bracket.below_high), 0.2, 0.8)
    bound = selection.to_keys((first + (last - first) * share).astype(leaf.dtype))
    tiny = selection.to_keys(jnp.finfo(leaf.dtype).tiny.astype(leaf.dtype))
    bound = jnp.where(i == 0, 0, jnp.where((i == 1) & (bracket.low == 0), tiny, bound))
    middle = (bracket.low >> 1) + (bracket.high >> 1) + (bracket.low & bracket.high & 1)
    is_late = (i >= _GUESSED_BOUNDS) & (i % 2 == 1)
    is_inside = (bound > bracket.low) & (bound < bracket.high)
    return jnp.where(is_late | ~is_inside, middle, bound).astype(middle.dtype)


def _least(leaf, values):
    """The least of `values(row)` over all examples."""
    return _extreme(leaf, values, jnp.inf, selection.smaller)


def _largest(leaf, values):
    return _extreme(leaf, values, -jnp.inf, selection.larger)


def _extreme(leaf, values, start, better):
    # Of a row that is nan and the extreme so far, the second stays.
    step = lambda extreme, row: better(values(row), extreme)
    return leaf.fold(
        leaf.filled(start, leaf.dtype), lambda extreme, rows: functools.reduce(step, rows, extreme)
    )


def _next(leaf, value, k):
    """The value of rank k, given that of rank k - 1, in two passes: the same, or the next above."""

    def step(least, rows):
        for row in rows:
            least = jnp.where((row > value) & (row < least), row, least)
        return least

    above = leaf.fold(leaf.filled(jnp.inf, leaf.dtype), step)
    return jnp.where(_counted(leaf, lambda row: row <= value) > k, value, above)


def _counted(leaf, condition):
    """How many examples' values meet the condition."""
    ones = lambda rows: sum(jnp.where(condition(row), 1, 0) for row in rows)
    return leaf.fold(leaf.filled(0, jnp.int32), lambda n, rows: n + ones(rows))


def _sum_of_clipped(leaf, low, high):
    dtype = accumulator(leaf.dtype)

    def clipped(row):
        value = selection.smaller(selection.larger(row, low), high).astype(dtype)
        return value if leaf.mask is None else jnp.where(jnp.isnan(row), 0, value)

    step = lambda total, rows: total + _halved_sum([clipped(row) for row in rows])
    return leaf.fold(leaf.filled(0, dtype), step)


def _halved_sum(terms):
    """By halves: smaller rounding error, and short chains for the processor."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    return _halved_sum(terms[:middle]) + _halved_sum(terms[middle:])
