"""How many of the m values of a coordinate c percent are."""

import math
import numbers
from fractions import Fraction

import jax.numpy as jnp


def rank(c, m):
    r"""k = c % of m - 1 to the nearest integer, halves down: how many values each side gives up.

    .. math:: k = \lceil c (m - 1) / 100 - 1/2 \rceil

    0 at c = 0; (m - 1) // 2 at c = 50, for even m too. Exact: c counts as the decimal number it is
    written as.

    >>> [rank(c, 100) for c in (0, 1, 2, 8, 50)]
    [0, 1, 2, 8, 49]
    """
    return max(0, math.ceil(Fraction(str(c)) * (m - 1) / 100 - Fraction(1, 2)))


def check_percent(name, c):
    """Refuse what is no percent of the examples on each side; `name` is the aggregator's, as users write it."""
    if not isinstance(c, numbers.Real):
        raise TypeError(
            f"{name}(c): c is a plain number (percent of the examples, in [0, 50]), got {type(c).__name__}."
        )
    if not 0 <= c <= 50:
        raise ValueError(f"{name}(c): c is in percent of the examples, in [0, 50], got {c}.")


def leaf_rank(c, leaf):
    """`rank` of the examples a leaf counts: an int, or with a mask an array (the table of all counts, read at this one)."""
    if leaf.mask is None:
        return rank(c, leaf.m)
    return jnp.asarray([rank(c, n) for n in range(leaf.m + 1)], jnp.int32)[leaf.count]
