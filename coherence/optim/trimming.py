"""Trimmed gradients: each coordinate's extremes are left out."""

from coherence.gradients.reductions import mean

from .aggregation import Aggregator, aggregator
from .order_statistics import check_percent, coordinatewise, leaf_rank
from .order_statistics import trimmed_mean as mean_of_middle


def trimmed_mean(c: float = 2.0) -> Aggregator:
    r"""Mean of each coordinate without its most extreme values, on either side: winsorizing drops what this leaves out altogether.

    .. math:: \bar g^{(j)} = \frac{1}{m - 2k}\sum_{i=k+1}^{m-k} g_{(i)}^{(j)}

    with :math:`g_{(1)} \le \dots \le g_{(m)}` the values of coordinate j in order, and k = c % of m
    - 1 to the nearest integer, halves down, as in `winsorize`. c = 0 is the mean, c = 50 the median
    (for even m the mean of the two middle values). Where few examples have a say in a coordinate at
    all, it is zero as soon as they are no more than k on each side.

    A nan in any example makes its coordinate nan; infinities are values like others. Masked
    examples do not count, m is then the rest. Computed from the sum of the winsorized values: where
    only a few of many are left, rounding errors are those of the many.

    Yin, Chen, Ramchandran & Bartlett, Byzantine-Robust Distributed Learning (arXiv:1803.01498). Not
    in the papers on coherent gradients.

    Args:
        c: percent of the examples left out on each side, in [0, 50]; static.

    >>> import jax.numpy as jnp
    >>> trimmed_mean(25).update(jnp.array([[0.0], [1.0], [2.0], [6.0], [100.0]]), trimmed_mean(25).init(None))[0]
    Array([3.], dtype=float32)
    """
    check_percent("trimmed_mean", c)
    if c == 0:
        return aggregator(mean, f"trimmed_mean(c={c})")
    return aggregator(
        coordinatewise(lambda leaf: mean_of_middle(leaf, leaf_rank(c, leaf))),
        f"trimmed_mean(c={c})",
    )
