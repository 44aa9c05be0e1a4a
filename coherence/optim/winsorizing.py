"""Winsorized gradients: no coordinate moves because of a few examples."""

from coherence.gradients.reductions import mean

from .aggregation import Aggregator, aggregator
from .order_statistics import check_percent, clipped_mean, coordinatewise, leaf_rank


def winsorize(c: float = 2.0) -> Aggregator:
    r"""Mean over examples after pulling each coordinate's outliers in.

    .. math:: \bar g^{(j)} = \frac1m\sum_i \mathrm{clip}(g_i^{(j)}, l^{(j)}, u^{(j)})

    with l the (k+1)-th smallest and u the (k+1)-th largest of the m values of coordinate j, k = c %
    of m - 1 to the nearest integer, halves down. So c = 0 is the mean, c = 50 the median, and
    negating the gradients negates the result. Beware small batches: k is 0, and this the mean,
    where c (m - 1) <= 50.

    A nan in any example makes its coordinate nan; infinities are values like others. Masked
    examples do not count, m is then the rest. The paper *sums* where this takes the mean (its
    per-example gradients are of the mean loss, ours of one example's).

    Chatterjee, Coherent Gradients (arXiv:2002.10657), Section 3.

    Args:
        c: percent of the examples pulled in on each side, in [0, 50]; static.

    >>> import jax.numpy as jnp
    >>> winsorize(25).update(jnp.array([[0.0], [1.0], [2.0], [3.0], [100.0]]), winsorize(25).init(None))[0]
    Array([2.], dtype=float32)
    """
    check_percent("winsorize", c)
    if c == 0:
        return aggregator(mean, f"winsorize(c={c})")
    return aggregator(
        coordinatewise(lambda leaf: clipped_mean(leaf, leaf_rank(c, leaf))), f"winsorize(c={c})"
    )
