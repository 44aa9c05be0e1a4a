"""Selection by keeping the few smallest and largest values seen so far: 4k + 2 operations an example."""

from .comparators import larger, smaller


def select(rows, k):
    """The (k+1)-th smallest and the (k+1)-th largest of equally shaped arrays."""
    lowest, highest = [], []
    for row in rows:
        _insert(lowest, row, k, smaller, larger)
        _insert(highest, row, k, larger, smaller)
    return lowest[k], highest[k]


def _insert(kept, row, k, keep, pass_on):
    """Put `row` in its place; the last of k + 1 kept falls off."""
    for i, old in enumerate(kept):
        kept[i] = keep(old, row)
        row = pass_on(old, row)
    if len(kept) <= k:
        kept.append(row)
