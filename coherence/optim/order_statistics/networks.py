"""Selection by a sorting network of which only the comparators that matter are kept: branch-free, the same for every coordinate."""

import functools

from .comparators import larger, smaller


def odd_even_mergesort(m):
    """Batcher's network for m values: pairs (i, j), i < j, each putting the smaller at i.

    Batcher, Sorting networks and their applications (AFIPS 1968), in the iterative form of Knuth's
    Algorithm 5.2.2M for any m.
    """
    pairs = []
    p = 1
    while p < m:
        k = p
        while k >= 1:
            for start in range(k % p, m - k, 2 * k):
                for i in range(start, min(start + k, m - k)):
                    if i // (2 * p) == (i + k) // (2 * p):
                        pairs.append((i, i + k))
            k //= 2
        p *= 2
    return pairs


@functools.cache
def pruned(m, wires):
    """The comparators that reach the wanted wires: (i, j, smaller is needed, larger is needed)."""
    needed, kept = set(wires), []
    for i, j in reversed(odd_even_mergesort(m)):
        if i in needed or j in needed:
            kept.append((i, j, i in needed, j in needed))
            needed |= {i, j}
    return tuple(reversed(kept))


def select(rows, wires):
    """The values of the given ranks (0 is the smallest) among m equally shaped arrays."""
    rows = list(rows)
    for i, j, smaller_needed, larger_needed in pruned(len(rows), tuple(wires)):
        a, b = rows[i], rows[j]
        if smaller_needed:
            rows[i] = smaller(a, b)
        if larger_needed:
            rows[j] = larger(a, b)
    return [rows[w] for w in wires]
