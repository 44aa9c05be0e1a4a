"""Kernels that select values of given ranks among the examples, coordinate by coordinate, exactly.

Two ways: networks of comparators hold the values of a coordinate in one fused loop; bisection
passes over the examples once for each bit. All operands are JAX arrays of one shape and dtype.
Networks call `lax` directly: a kernel has thousands of operations, and `jnp` takes several times as
long to trace one.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from coherence.gradients.arguments import varying_with

_INTEGERS = {1: jnp.int8, 2: jnp.int16, 4: jnp.int32, 8: jnp.int64}


# `lax.min` and `lax.max` spread nan, which takes three instructions on CPU where a comparison and
# a selection become one. Whoever selects looks for nan separately; -0 and +0 count as equal.


def smaller(x: jax.Array, y: jax.Array) -> jax.Array:
    return lax.select(lax.lt(x, y), x, y)


def larger(x: jax.Array, y: jax.Array) -> jax.Array:
    return lax.select(lax.gt(x, y), x, y)


def in_order(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The smaller and the larger of two: one comparison, so that less is compiled."""
    less = lax.lt(x, y)
    return lax.select(less, x, y), lax.select(less, y, x)


@functools.cache
def pairwise_network(m: int) -> tuple[tuple[int, int], ...]:
    """A sorting network for m values: pairs (i, j), i < j, each putting the smaller at i.

    Parberry, The pairwise sorting network (Parallel Processing Letters, 1992). Values at places
    beyond m count as infinite, and stay there. For selection less of it remains than of Batcher's
    odd-even mergesort: of 100, the two middle values need 776 comparators, not 898.
    """
    size = 1 << (m - 1).bit_length()
    pairs = []
    stride = 1
    while stride < size:  # sort pairs of blocks by their first values: pairwise comparisons
        pairs += [(i, i + stride) for i in range(size) if not i & stride]
        stride *= 2
    stride, reach = size // 4, 1
    while stride:  # then merge the columns of larger values back
        distance = reach
        while distance:
            starts = [i for i in range(size - distance * stride) if i & stride]
            pairs += [(i, i + distance * stride) for i in starts]
            distance //= 2
        stride, reach = stride // 2, 2 * reach + 1
    return tuple((i, j) for i, j in pairs if j < m)


@functools.cache
def pruned(m: int, ranks: tuple[int, ...]) -> tuple[tuple[int, int, bool, bool], ...]:
    """The comparators that reach given ranks: (i, j, smaller is needed, larger is needed)."""
    needed, comparators = set(ranks), []
    for i, j in reversed(pairwise_network(m)):
        if i in needed or j in needed:
            comparators.append((i, j, i in needed, j in needed))
            needed |= {i, j}
    return tuple(reversed(comparators))


@functools.cache
def partition(m: int, low: int, high: int) -> tuple[tuple[int, int], ...]:
    """The comparators that put ranks `low` < `high` in place, and between them what belongs there.

    Two places whose values end up on the same side of both ranks need not be compared any more,
    once nothing else looks at them.
    """
    side = lambda i: (i > low) + (i >= low) + (i > high) + (i >= high)
    return _comparators(m, {low, high}, side)


@functools.cache
def sorted_ends(m: int, n: int) -> tuple[tuple[int, int], ...]:
    """The comparators that sort the n smallest and the n largest of m >= 2 n values.

    Between them is what belongs there, in any order.
    """
    side = lambda i: (i >= n) + (i >= m - n)
    return _comparators(m, {*range(n), *range(m - n, m)}, side)


def _comparators(m, places, side):
    """Those of a network that put `places` in order, and every other value on its side."""
    needed, comparators = set(places), []
    for i, j in reversed(pairwise_network(m)):
        if i in needed or j in needed or side(i) != side(j):
            comparators.append((i, j))
            needed |= {i, j}
    return tuple(reversed(comparators))


@functools.cache
def bitonic_network(n: int) -> tuple[tuple[int, int], ...]:
    """Pairs (i, j), i < j, that sort n values which first fall and then rise: the smaller at i.

    Batcher, Sorting networks and their applications (1968). Places beyond n count as infinite.
    """
    pairs = []
    stride = 1 << (n - 1).bit_length() >> 1
    while stride:
        pairs += [(i, i + stride) for i in range(n - stride) if not i & stride]
        stride //= 2
    return tuple(pairs)


@functools.cache
def block_sizes(m: int, k: int) -> tuple[int, ...]:
    """How many of m values to sort at a time, for `split` with the fewest comparators.

    Blocks hold 2 (k + 1) values at least. One block is a network of all.

    >>> block_sizes(30, 2), block_sizes(30, 8)
    ((8, 8, 7, 7), (30,))
    """
    most = max(1, m // (2 * (k + 1)))
    ways = [tuple(m // b + (i < m % b) for i in range(b)) for b in range(1, most + 1)]
    return min(ways, key=lambda sizes: comparator_count(k, sizes))


def comparator_count(k: int, sizes: Sequence[int]) -> int:
    """Comparators of `split` with blocks of these sizes, two operations each.

    >>> comparator_count(2, (8, 8, 7, 7)), comparator_count(2, (30,))
    (98, 132)
    """
    n, m = k + 1, sum(sizes)
    if len(sizes) == 1:
        return len(partition(m, k, m - 1 - k))
    merge = 2 * (n + len(bitonic_network(n)))
    return sum(len(sorted_ends(size, n)) for size in sizes) + merge * (len(sizes) - 1)


def select(
    rows: Sequence[jax.Array], ranks: Sequence[int], quick_to_compile: bool = False
) -> list[jax.Array]:
    """The values of the given ranks (0 is the smallest) among m arrays.

    With two comparisons a comparator instead of one the compiler finds code that keeps more values
    in registers (5 to 10 % faster), in half as much time again.
    """
    rows = list(rows)
    for i, j, smaller_needed, larger_needed in pruned(len(rows), tuple(ranks)):
        a, b = rows[i], rows[j]
        if quick_to_compile:
            rows[i], rows[j] = in_order(a, b)
            continue
        if smaller_needed:
            rows[i] = smaller(a, b)
        if larger_needed:
            rows[j] = larger(a, b)
    return [rows[rank] for rank in ranks]


def split(rows: Sequence[jax.Array], k: int) -> tuple[jax.Array, jax.Array, Sequence[jax.Array]]:
    """The (k+1)-th smallest, the (k+1)-th largest, and the values between them, in any order.

    A block of rows at a time: its ends are sorted, and merged with the k + 1 smallest and largest
    so far. These are few enough for the registers; a network of all rows does not fit.
    """
    m = len(rows)
    sizes = block_sizes(m, k)
    if len(sizes) == 1:
        rows, high = _compared(rows, partition(m, k, m - 1 - k)), m - 1 - k
        return rows[k], rows[high], rows[k + 1 : high]
    n = k + 1
    lowest: list[jax.Array] = []  # falling
    highest: list[jax.Array] = []  # rising
    between: list[jax.Array] = []
    for end, size in zip(itertools.accumulate(sizes), sizes):
        block = _compared(rows[end - size : end], sorted_ends(size, n))
        low, high = block[:n], block[: -n - 1 : -1]
        between += block[n:-n]
        if not lowest:
            lowest, highest = low[::-1], high[::-1]
            continue
        # Falling beside rising: the smaller of each pair are the n smallest of both. They rise and
        # then fall.
        pairs = [in_order(x, y) for x, y in zip(lowest, low)]
        between += [y for _, y in pairs]
        lowest = _compared([x for x, _ in pairs], bitonic_network(n), falling=True)
        pairs = [in_order(x, y) for x, y in zip(highest, high)]
        between += [x for x, _ in pairs]
        highest = _compared([y for _, y in pairs], bitonic_network(n))
    return lowest[0], highest[0], between


def _compared(rows, comparators, falling=False):
    rows = list(rows)
    for i, j in comparators:
        i, j = (j, i) if falling else (i, j)
        rows[i], rows[j] = in_order(rows[i], rows[j])
    return rows


def to_keys(x: jax.Array) -> jax.Array:
    """Floats as integers in the same order: negative ones have their magnitude bits flipped.

    -0 is just below +0; nan is beyond the infinities.
    """
    return _flip(lax.bitcast_convert_type(x, _INTEGERS[x.dtype.itemsize]))


def from_keys(keys: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """The inverse of `to_keys`: the flip undoes itself."""
    return lax.bitcast_convert_type(_flip(keys), dtype)


def _flip(bits):
    info = jnp.iinfo(bits.dtype)
    return bits ^ ((bits >> (info.bits - 1)) & info.max)


def search(
    below: Callable[[jax.Array], jax.Array], k: int | jax.Array, least: jax.Array
) -> jax.Array:
    """The value of rank k as an integer key; `below(keys)` counts each coordinate's smaller values.

    The answer is the largest key with at most k values below it; its bits are found from the top,
    one count each: 32 rounds for float32, 16 for bfloat16, 64 for float64. `least` is the least
    integer at every coordinate.
    """
    dtype, bits = least.dtype, jnp.iinfo(least.dtype).bits

    def one_bit(i, key):
        bit = lax.shift_left(jnp.ones((), dtype), (bits - 1 - i).astype(dtype))
        # From the least integer up: flipping the sign bit first adds half the range.
        higher = key ^ bit
        return jnp.where(below(higher) <= k, higher, key)

    return lax.fori_loop(0, bits, one_bit, least)


def bisect(keys: jax.Array, k: int | jax.Array) -> jax.Array:
    """The key of rank k along the first axis of `keys` [m, ...]."""
    below = lambda key: jnp.sum(keys < key, 0, dtype=jnp.int32)
    least = jnp.full(keys.shape[1:], jnp.iinfo(keys.dtype).min, keys.dtype)
    return search(below, k, varying_with(least, keys))
