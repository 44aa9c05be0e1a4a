"""Coordinate-wise aggregators: no coordinate moves because of a few examples."""

import numbers

from coherence.gradients.reductions import mean

from .aggregation import Aggregator, aggregator
from .order_statistics import leaf_rank, over_coordinates, winsorized_mean
from .order_statistics import trimmed_mean as mean_of_middle


def winsorize(c: float = 2.0) -> Aggregator:
    r"""Coordinate-wise winsorized mean: each coordinate's outliers are pulled in first.

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
    >>> g = jnp.array([[0.0], [1.0], [2.0], [3.0], [100.0]])
    >>> winsorize(25).update(g, winsorize(25).init(None))[0]
    Array([2.], dtype=float32)
    """
    _check_percent("winsorize", c)
    if c == 0:
        return aggregator(mean, f"winsorize(c={c})")
    return aggregator(
        over_coordinates(lambda leaf: winsorized_mean(leaf, leaf_rank(c, leaf))),
        f"winsorize(c={c})",
    )


def trimmed_mean(c: float = 2.0) -> Aggregator:
    r"""Coordinate-wise trimmed mean: each coordinate's outliers are left out.

    .. math:: \bar g^{(j)} = \frac{1}{m - 2k}\sum_{i=k+1}^{m-k} g_{(i)}^{(j)}

    with :math:`g_{(1)} \le \dots \le g_{(m)}` the values of coordinate j in order, and k = c % of m
    - 1 to the nearest integer, halves down, as in `winsorize`. c = 0 is the mean, c = 50 the median
    (for even m the mean of the two middle values). Where few examples have a say in a coordinate at
    all, it is zero as soon as they are no more than k on each side.

    A nan in any example makes its coordinate nan; infinities are values like others. Masked
    examples do not count, m is then the rest. Of more than 128
    examples, or with a mask, computed from the sum of the winsorized values: where only a few of
    many are left, rounding errors are those of the many.

    Yin, Chen, Ramchandran & Bartlett, Byzantine-Robust Distributed Learning (arXiv:1803.01498). Not
    in the papers on coherent gradients.

    Args:
        c: percent of the examples left out on each side, in [0, 50]; static.

    >>> import jax.numpy as jnp
    >>> g = jnp.array([[0.0], [1.0], [2.0], [6.0], [100.0]])
    >>> trimmed_mean(25).update(g, trimmed_mean(25).init(None))[0]
    Array([3.], dtype=float32)
    """
    _check_percent("trimmed_mean", c)
    if c == 0:
        return aggregator(mean, f"trimmed_mean(c={c})")
    return aggregator(
        over_coordinates(lambda leaf: mean_of_middle(leaf, leaf_rank(c, leaf))),
        f"trimmed_mean(c={c})",
    )


def median() -> Aggregator:
    r"""Coordinate-wise median: zero unless half of the examples pull the same way.

    .. math:: \bar g^{(j)} = \mathrm{median}_i\, g_i^{(j)}

    the mean of the two middle values for even m: `winsorize(50)`. Unlike the mean it ignores any
    minority of examples, however large their gradients; unlike a mean it is not linear, so the step
    need not descend the mean loss. A nan in any example makes its coordinate nan. Masked examples
    do not count.

    Chatterjee & Zielinski, On the Generalization Mystery in Deep Learning (arXiv:2203.10036),
    Section 7.

    >>> import jax.numpy as jnp
    >>> median().update(jnp.array([[0.0], [1.0], [50.0]]), median().init(None))[0]
    Array([1.], dtype=float32)
    """
    return aggregator(
        over_coordinates(lambda leaf: winsorized_mean(leaf, leaf_rank(50, leaf))), "median()"
    )


def _check_percent(name, c):
    if not isinstance(c, numbers.Real):
        raise TypeError(
            f"{name}(c): c is a plain number (percent of the examples, in [0, 50]), "
            f"got {type(c).__name__}."
        )
    if not 0 <= float(c) <= 50:
        raise ValueError(f"{name}(c): c is in percent of the examples, in [0, 50], got {c}.")
