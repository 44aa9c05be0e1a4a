"""Claims of a source, and verdicts on them from runs. Numpy and scipy are imported where used.

A claim is fixed before the run: its words, what is measured, and on which side of which threshold
it must lie. The run gives one paired difference per seed; Student's t interval over them, not their
mean, decides. An honest *inconclusive* is a result.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Verdict = Literal["reproduced", "not reproduced", "inconclusive"]

KNOWN = ("read", "second-hand", "remembered", "derived")
DIRECTIONS = ("greater", "less", "within")
VERDICTS: tuple[Verdict, ...] = ("reproduced", "not reproduced", "inconclusive")
LEVEL = 0.05
"""Of significance: intervals cover 1 - LEVEL, and Holm's adjustment holds a whole table to it."""


@dataclass(frozen=True)
class Claim:
    """What a source says, as something that a run can contradict.

    Args:
      name: short, unique in a table.
      text: the claim in words.
      source: paper and section.
      known: how firmly: "read" in the source, "second-hand" from an account of it, "remembered", or
      "derived" by algebra from it.
      statistic: what is measured, in words; for "greater" and "less" a difference paired by seed.
      direction: the side of `threshold` on which the statistic is claimed to be; "within" claims
        exact values, no farther from it than `tolerance`.
      unit: of the statistic, in the field's words.
    """

    name: str
    text: str
    source: str
    known: Literal["read", "second-hand", "remembered", "derived"]
    statistic: str
    direction: Literal["greater", "less", "within"]
    threshold: float = 0.0
    tolerance: float | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if self.known not in KNOWN:
            raise ValueError(
                f"claim {self.name}: known is one of {', '.join(KNOWN)}, got {self.known!r}."
            )
        if self.direction not in DIRECTIONS:
            raise ValueError(
                f"claim {self.name}: direction is one of {', '.join(DIRECTIONS)}, "
                f"got {self.direction!r}."
            )
        if (self.direction == "within") != (self.tolerance is not None):
            raise ValueError(
                f'claim {self.name}: tolerance goes with direction "within" and only with it, '
                f"got {self.direction!r} and {self.tolerance}."
            )


class Expectation(NamedTuple):
    """Where a statistic is claimed to lie; made by `above`, `below` and `exactly`."""

    direction: Literal["greater", "less", "within"]
    threshold: float
    unit: str
    tolerance: float | None = None


def above(threshold: float, unit: str) -> Expectation:
    """Claimed to be greater than a threshold; `unit` is the statistic's, in the field's words."""
    return Expectation("greater", threshold, unit)


def below(threshold: float, unit: str) -> Expectation:
    """Claimed to be less than a threshold."""
    return Expectation("less", threshold, unit)


def exactly(value: float, tolerance: float, unit: str = "") -> Expectation:
    """Claimed to be a value, up to rounding or to a stated tolerance."""
    return Expectation("within", value, unit, tolerance)


class Source(NamedTuple):
    """Where claims come from, and how firmly it is known that the source says so."""

    reference: str
    known: Literal["read", "second-hand", "remembered", "derived"]

    def claim(self, name: str, expected: Expectation) -> Callable[[str], Claim]:
        """A function that makes a claim of this source from its words: `TEXT Measured: STATISTIC.`

        >>> paper = Source("Chatterjee, arXiv:2002.10657, Section 3", "read")
        >>> claim = paper.claim("less memorized", above(0.1, "accuracy"))('''
        ...     Winsorizing slows memorization. Measured: training accuracy at the end, SGD minus
        ...     winsorized.
        ... ''')
        >>> claim.statistic
        'training accuracy at the end, SGD minus winsorized'

        Raises:
            ValueError: the words do not say what is measured.
        """
        direction, threshold, unit, tolerance = expected

        def of_words(words: str) -> Claim:
            text, measured, statistic = " ".join(words.split()).rpartition(" Measured: ")
            if not (measured and statistic.endswith(".")):
                raise ValueError(
                    f"claim {name}: its words end with what is measured, 'Measured: ... .', "
                    f"got {words!r}."
                )
            return Claim(
                name,
                text,
                self.reference,
                self.known,
                statistic.removesuffix("."),
                direction,
                threshold,
                tolerance,
                unit,
            )

        return of_words


class Interval(NamedTuple):
    """A mean, and the bounds between which the true one lies with the stated confidence."""

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
    mean, error, n = _mean_and_error(values)
    if math.isnan(error):
        return Interval(mean, math.nan, math.nan)
    half = error * _t_quantile((1 + confidence) / 2, n - 1)
    return Interval(mean, mean - half, mean + half)


@functools.cache
def _t_quantile(probability: float, degrees: int) -> float:
    """Of Student's t distribution; scipy.stats would give the same and takes a second to import."""
    from scipy import special

    return float(special.stdtrit(degrees, probability))


@dataclass(frozen=True)
class Judgement:
    """A verdict with what it rests on.

    `effect` is the statistic's mean and 95 % interval, in the claim's unit. `p` is two-sided,
    against the claim's threshold: it is below 0.05 exactly when the interval excludes the
    threshold; nan where nothing was tested. `p_adjusted` is Holm's, once a table was adjusted.
    """

    claim: Claim
    verdict: Verdict
    scale: str
    at_source_scale: bool
    effect: Interval
    n: int
    p: float = math.nan
    p_adjusted: float = math.nan
    reason: str = ""
    run: str = ""
    """Which recording: its name and a digest."""

    @property
    def where(self) -> str:
        """The verdict's scope: "holds on digits, MLP 64-10; not tested at the source's scale"."""
        holds = {
            "reproduced": "holds on",
            "not reproduced": "does not hold on",
            "inconclusive": "undecided on",
        }[self.verdict]
        scope = f"{holds} {self.scale}"
        return scope if self.at_source_scale else f"{scope}; not tested at the source's scale"

    @property
    def statement(self) -> str:
        """The claim and what was measured for it, in words."""
        return f"{self.claim.text} Measured: {self.claim.statistic}."


def judge(
    claim: Claim,
    differences: ArrayLike,
    *,
    scale: str,
    at_source_scale: bool = False,
    precondition: str | None = None,
    run: str = "",
) -> Judgement:
    """What paired differences by seed say about a claim.

    *Reproduced* when the whole 95 % interval lies beyond the threshold on the claimed side, *not
    reproduced* when it lies beyond it on the other, else *inconclusive*. For "within" there is no
    interval: every value must be within the tolerance of the threshold.

    Args:
      claim: fixed before the run.
      differences: one number per seed (for "within": any exact values).
      scale: on what it was measured, as "digits, MLP 64-128-10".
      at_source_scale: whether that is the source's own setting.
      precondition: None, or what is missing for the run to say anything, as "SGD did not memorize:
      train accuracy 0.71 < 0.99".
      run: which recording the differences are from.
    """
    import numpy as np

    values = np.asarray(differences, float)
    if values.ndim != 1:
        raise ValueError(
            f"judge(differences): one number per seed, so one axis, got shape {values.shape}."
        )
    n = len(values)
    effect = interval(values.tolist()) if n else Interval(math.nan, math.nan, math.nan)
    verdict, p, reason = _verdict(claim, values, effect, precondition)
    return Judgement(claim, verdict, scale, at_source_scale, effect, n, p=p, reason=reason, run=run)


def _verdict(
    claim: Claim, values: NDArray, effect: Interval, precondition: str | None
) -> tuple[Verdict, float, str]:
    """The verdict, its p value (nan where nothing was tested) and the reason for it."""
    import numpy as np

    if precondition:
        return "inconclusive", math.nan, precondition
    if not len(values):
        return "inconclusive", math.nan, "nothing was measured"
    failed = int((~np.isfinite(values)).sum())
    if failed:
        return "inconclusive", math.nan, f"{failed} of {len(values)} values are nan or infinite"
    if claim.direction == "within":
        farthest = float(np.abs(values - claim.threshold).max())
        tolerance = claim.tolerance or 0.0
        exact = farthest <= tolerance
        sign = "<=" if exact else ">"
        reason = f"farthest from {claim.threshold:g}: {farthest:.3g} {sign} {tolerance:g}"
        return ("reproduced" if exact else "not reproduced"), math.nan, reason
    if len(values) == 1:
        return "inconclusive", math.nan, "one seed has no interval"
    p = _two_sided_p(values, claim.threshold)
    if effect.low <= claim.threshold <= effect.high:
        return "inconclusive", p, f"the interval includes {claim.threshold:g}"
    side = "greater" if effect.low > claim.threshold else "less"
    return ("reproduced" if side == claim.direction else "not reproduced"), p, ""


def holm(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Judgements held to 5 % over the whole table: p values with Holm's step-down adjustment.

    A reproduced claim that does not survive becomes inconclusive. The others keep their verdicts:
    multiplicity is no excuse for a claim that failed. Judgements without a p value (exact values,
    failed preconditions) are neither counted nor changed.

    Holm, A simple sequentially rejective multiple test procedure (Scandinavian Journal of
    Statistics, 1979).
    """
    order = sorted(
        (i for i, judgement in enumerate(judgements) if not math.isnan(judgement.p)),
        key=lambda i: judgements[i].p,
    )
    adjusted = list(judgements)
    running = 0.0
    for rank, i in enumerate(order):
        judgement = judgements[i]
        running = max(running, min(1.0, (len(order) - rank) * judgement.p))
        changes: dict = {"p_adjusted": running}
        if judgement.verdict == "reproduced" and running >= LEVEL:
            changes |= {
                "verdict": "inconclusive",
                "reason": f"does not survive Holm's adjustment over {len(order)} tests: "
                f"p {format_p(running)}",
            }
        adjusted[i] = dataclasses.replace(judgement, **changes)
    return adjusted


def _mean_and_error(values: ArrayLike) -> tuple[float, float, int]:
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


def _two_sided_p(values: NDArray, threshold: float) -> float:
    """Of Student's t test of a mean against a threshold."""
    mean, error, n = _mean_and_error(values)
    if error == 0:
        return 1.0 if mean == threshold else 0.0
    from scipy import special

    return float(2 * special.stdtr(n - 1, -abs(mean - threshold) / error))


def effect(judgement: Judgement) -> str:
    """The effect as printed: mean, interval, unit, and the claim's threshold if it is not 0."""
    claim, (mean, low, high) = judgement.claim, judgement.effect
    text = f"{mean:+.3g}"
    if claim.direction != "within" and not math.isnan(low) and low != high:
        text += f" [{low:+.3g}, {high:+.3g}]"
    text = f"{text} {claim.unit}".rstrip()
    sign = {"greater": ">", "less": "<"}.get(claim.direction)
    return f"{text} (claimed: {sign} {claim.threshold:g})" if sign and claim.threshold else text


def format_p(p: float) -> str:
    """A p value as printed; `-` where nothing was tested."""
    if math.isnan(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
