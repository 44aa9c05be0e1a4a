"""How many of the m values of a coordinate c percent are."""

import math
from fractions import Fraction

import jax.numpy as jnp


def rank(c, m):
    r"""k = c % of m - 1 to the nearest integer, halves down: how many values each side gives up.

    .. math:: k = \lceil c (m - 1) / 100 - 1/2 \rceil

    0 at c = 0; (m - 1) // 2 at c = 50, for even m too. Exact: c counts as the decimal number it is written as.

    >>> [rank(c, 100) for c in (0, 1, 2, 8, 50)]
    [0, 1, 2, 8, 49]
    """
    return max(0, math.ceil(Fraction(str(c)) * (m - 1) / 100 - Fraction(1, 2)))


def leaf_rank(c, leaf):
    """`rank` of the examples a leaf counts: an int, or with a mask an array (the table of all counts, read at this one)."""
    if leaf.mask is None:
        return rank(c, leaf.m)
    return jnp.asarray([rank(c, n) for n in range(leaf.m + 1)], jnp.int32)[leaf.count]
