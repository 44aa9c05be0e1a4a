"""Student's intervals of means, and of ratios of means, over seeds."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_FAR = 300.0  # of a t variable: there the approximation is right to 2e-4


class Interval(NamedTuple):
    """A mean, and the bounds between which the true one lies with the stated confidence.

    >>> Interval(mean=0.5, low=0.4, high=0.6).low
    0.4
    """

    mean: float
    low: float
    high: float


def interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    r"""Student's t interval for a mean over seeds.

    .. math:: \bar v \pm t_{n-1} \, s / \sqrt n

    One value has no spread: its bounds are nan. Equal values give an interval of length 0. A nan or
    infinite value makes everything nan: a run that failed is a result, and leaving it out would
    flatter the others. (A bootstrap over 5 seeds covers 84 %, not 95.)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"interval(confidence): between 0 and 1, got {confidence}.")
    mean, error, n = mean_and_error(values)
    if math.isnan(error):
        return Interval(mean, math.nan, math.nan)
    half = error * t_quantile((1 + confidence) / 2, n - 1)
    return Interval(mean, mean - half, mean + half)


def ratio_interval(
    numerator: ArrayLike, denominator: ArrayLike, confidence: float = 0.95
) -> Interval:
    """Fieller's interval for log2 of a ratio of means over the same seeds.

    It holds the logarithms of all ratios r for which a t test of numerator - r denominator against
    0 does not reject. Its ends may be infinite: above, where the denominator's mean may be 0.

    Args:
        numerator: [seed].
        denominator: [seed], of the same seeds. Where its mean is below 0, a ratio is beyond any.

    Fieller, Some problems in interval estimation (Journal of the Royal Statistical Society B,
    1954).

    >>> ratio_interval([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]).mean  # always the double: a doubling
    1.0
    """
    import numpy as np

    pair = np.array([numerator, denominator], float)
    n = pair.shape[1]
    a, b = pair.mean(1)
    if not np.isfinite(pair).all():
        return Interval(math.nan, math.nan, math.nan)
    point = _log2(a / b) if b > 0 else math.inf if a > 0 else math.nan
    if n < 2:
        return Interval(point, math.nan, math.nan)
    t = t_quantile((1 + confidence) / 2, n - 1)
    (aa, ab), (_, bb) = np.outer((a, b), (a, b)) - t**2 * np.cov(pair) / n
    if bb <= 0 and aa <= 0:  # both means may be 0
        return Interval(point, -math.inf, math.inf)
    if bb > 0 and b < 0:  # beyond any ratio
        return Interval(point, point, point)
    root = math.sqrt(max(0.0, ab**2 - aa * bb))
    if bb <= 0:  # all but the ratios between the roots, of which those below 0 cannot be
        return Interval(point, _log2(max((ab - root) / bb, (ab + root) / bb)), math.inf)
    return Interval(point, _log2((ab - root) / bb), _log2((ab + root) / bb))


def _log2(ratio: float) -> float:
    return math.log2(ratio) if ratio > 0 else -math.inf


def mean_and_error(values: ArrayLike) -> tuple[float, float, int]:
    """Mean, standard error and number of values; of equal values exactly the value and 0."""
    import numpy as np

    array = np.asarray(values, float)
    if array.ndim != 1 or not len(array):
        raise ValueError(
            f"interval(values): at least one number, on one axis, got shape {array.shape}."
        )
    n = len(array)
    if not np.isfinite(array).all():
        return math.nan, math.nan, n
    if n == 1:
        return float(array[0]), math.nan, n
    if (array == array[0]).all():
        return float(array[0]), 0.0, n
    return float(array.mean()), float(array.std(ddof=1) / math.sqrt(n)), n


@functools.cache
def t_quantile(probability: float, degrees: int) -> float:
    """Of Student's t distribution; scipy.stats would give the same and takes a second to import."""
    from scipy import special

    return float(special.stdtrit(degrees, probability))


def noncentrality(t: float, probability: float, degrees: int) -> float:
    """At which a noncentral t variable is at most `t` with this probability.

    So the mean in standard deviations has the interval between two of them, over the root of n:
    the deviation is estimated, too (Cumming & Finch, Educational and Psychological Measurement,
    2001).
    """
    from scipy import special

    if abs(t) > _FAR:  # then the deviation's error is all that counts; scipy's time grows with t
        share = 1 - probability if t > 0 else probability
        return t * math.sqrt(2 * special.gammaincinv(degrees / 2, share) / degrees)
    return float(special.nctdtrinc(degrees, probability, t))


def two_sided_p(t: float, degrees: int) -> float:
    """Of Student's t test."""
    from scipy import special

    return float(2 * special.stdtr(degrees, -abs(t)))
