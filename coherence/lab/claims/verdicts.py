"""Verdicts on claims from one number a seed, held to a whole table's level in both directions.

A claim about several parts (networks, shares of noise, losses) is tested in each by itself, and
holds only if it holds in all: the part that speaks most against it decides. The mean over seeds of
the worst part would not do: it is below the truth wherever there is noise, and the more parts, the
lower.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from .intervals import (
    Interval,
    interval,
    mean_and_error,
    noncentrality,
    ratio_interval,
    two_sided_p,
)
from .statements import Claim

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Verdict = Literal["reproduced", "not reproduced", "inconclusive"]

VERDICTS: tuple[Verdict, ...] = ("reproduced", "not reproduced", "inconclusive")
LEVEL = 0.05
"""Of significance: intervals cover 1 - LEVEL, and Holm's adjustment holds a whole table to it."""


_NOTHING = Interval(math.nan, math.nan, math.nan)


class Ratio(NamedTuple):
    """Two numbers a seed; the claim is about the ratio of their means, in doublings.

    The mean of ratios would be biased where denominators are noisy, and none where one is 0 or
    less, as an estimate of alpha may be.

    Args:
        numerator: [seed].
        denominator: [seed]. Where its mean is below 0, the ratio is beyond any.
        note: the same in another measure, in words.
    """

    numerator: ArrayLike
    denominator: ArrayLike
    note: str = ""


@dataclass(frozen=True)
class Judgement:
    """A verdict with the numbers that it is based on.

    Args:
        claim: fixed before the run.
        verdict: of the part that decides, if there are several.
        scale: on what it was measured, as "digits, MLP 64-128-10".
        at_source_scale: whether that is the source's own setting.
        effect: the statistic's mean and 95 % interval, in the claim's unit.
        n: how many values there are, one a seed.
        p: two-sided, against the claim's threshold; of a refuting part, times the number of parts.
            nan where nothing was tested.
        p_adjusted: Holm's, once a table was adjusted.
        reason: for the verdict, where the interval alone does not say it.
        run: which recording: its name and a digest.
        part: the one that decided; empty where there is one part only.
        parts: how many were tested.
        standard: distance from the threshold in standard deviations over seeds, with its interval;
            above 0 on the claimed side.
        note: the effect in another measure.
        changed: whether the claim was changed after the recording.

    >>> from coherence.lab.claims import GROUPS, VERDICTS, Claim, Source, digest
    >>> source = Source("ours: an example", "derived", group="ours")
    >>> claim = Claim("gap", "A has a lower loss than B.", source, "loss of A - loss of B", "less")
    >>> [judgement] = holm([judge(claim, [-0.3, -0.2, -0.25, -0.28], scale="digits")])
    >>> judgement.verdict in VERDICTS, judgement.verdict, effect(judgement)
    (True, 'reproduced', '-0.258 [-0.327, -0.188]')
    >>> GROUPS[claim.group], isinstance(digest(claim), str)
    ('our own controls and extensions', True)
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
    part: str = ""
    parts: int = 1
    standard: Interval = _NOTHING
    note: str = ""
    changed: bool = False

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
    def remarks(self) -> str:
        """The reason, the part that decided, the effect in another measure, and a late change."""
        decided = f"decided by {self.part}, of {self.parts}" if self.part else ""
        changed = "changed after the recording" if self.changed else ""
        return "; ".join(filter(None, (self.reason, decided, self.note, changed)))


class _Test(NamedTuple):
    """What the values of one part say."""

    effect: Interval
    n: int
    supports: bool
    """Whether the effect is on the claimed side of the threshold."""
    p: float
    rank: float
    """How much it speaks against the claim, among the parts on its side of the threshold."""
    standard: Interval = _NOTHING
    note: str = ""
    reason: str = ""
    """Why it says nothing."""


def judge(
    claim: Claim,
    differences: ArrayLike | Ratio | Mapping[str, ArrayLike | Ratio],
    *,
    scale: str,
    at_source_scale: bool = False,
    precondition: str | None = None,
    run: str = "",
    changed: bool = False,
) -> Judgement:
    """The verdict on a claim, from one number a seed, or from several parts with as many each.

    *Reproduced*: in each part the interval lies on the claimed side of the threshold (an
    intersection-union test: its p is the largest). *Not reproduced*: the interval of one part lies
    on the other side, also at 5 % over the number of parts. Else *inconclusive*. Of exact values
    ("within") there is no interval: every one must be within the tolerance of the threshold.

    Values that are all equal have no spread and so no test: they are compared with the threshold
    as exact values are, have no p (1 where they equal it), and the reason says so.

    Args:
      claim: fixed before the run.
      differences: one number per seed (for "within": any exact values), a `Ratio`, or these by the
            name of the part.
      scale: on what it was measured, as "digits, MLP 64-128-10".
      at_source_scale: whether that is the source's own setting.
      precondition: None, or what is missing for the run to say anything, as "SGD did not memorize:
      train accuracy 0.71 < 0.99".
      run: which recording the differences are from.
      changed: whether the claim was changed after that recording.

    Raises:
      ValueError: values of more than one axis, no parts, or a `Ratio` for exact values.
    """
    parts = differences if isinstance(differences, Mapping) else {"": differences}
    if not parts:
        raise ValueError(f"judge(differences): claim {claim.name} has no parts to be tested in.")
    part, test = _deciding({name: _tested(claim, values) for name, values in parts.items()})
    verdict, p, reason = _verdict(claim, test, len(parts), precondition)
    return Judgement(
        claim,
        verdict,
        scale,
        at_source_scale,
        test.effect,
        test.n,
        p=p,
        reason=reason,
        run=run,
        part=part if len(parts) > 1 else "",
        parts=len(parts),
        standard=test.standard,
        note=test.note,
        changed=changed,
    )


def _deciding(tests: Mapping[str, _Test]) -> tuple[str, _Test]:
    """The part that speaks most against the claim; one that says nothing before all others."""
    part = max(
        tests,
        key=lambda name: (bool(tests[name].reason), not tests[name].supports, tests[name].rank),
    )
    return part, tests[part]


def _verdict(
    claim: Claim, test: _Test, parts: int, precondition: str | None
) -> tuple[Verdict, float, str]:
    """The verdict, its p value (nan where nothing was tested) and the reason for it."""
    if precondition or test.reason:
        return "inconclusive", math.nan, precondition or test.reason
    verdict: Verdict = "reproduced" if test.supports else "not reproduced"
    if claim.direction == "within":
        sign = "<=" if test.supports else ">"
        limits = f"{sign} {claim.tolerance:g}"
        return verdict, math.nan, f"farthest from {claim.threshold:g}: {test.rank:.3g} {limits}"
    if test.n == 1:
        return "inconclusive", math.nan, "one seed has no interval"
    if test.p == 0 and test.standard is _NOTHING:
        mean = test.effect.mean
        return verdict, math.nan, f"all {test.n} values are {mean:.3g}: compared, not tested"
    p = test.p if test.supports else min(1.0, parts * test.p)
    _, low, high = test.effect
    if p < LEVEL:
        return verdict, p, ""
    includes = low <= claim.threshold <= high
    return (
        "inconclusive",
        p,
        f"the interval includes {claim.threshold:g}"
        if includes
        else f"p {format_p(p)} over {parts} parts",
    )


def _tested(claim: Claim, values: ArrayLike | Ratio) -> _Test:
    """What one part's values say."""
    import numpy as np

    if isinstance(values, Ratio):
        each, note = np.array([values.numerator, values.denominator], float), values.note
    else:
        each, note = np.array([values], float), ""
    if each.ndim != 2:
        raise ValueError(
            f"judge(differences): one number per seed, so one axis, got shape {each.shape[1:]}."
        )
    n = each.shape[1]
    if not n:
        return _Test(_NOTHING, 0, False, math.nan, 0, reason="nothing was measured")
    ratio = len(each) == 2
    effect = ratio_interval(*each) if ratio else interval(each[0])
    failed = int((~np.isfinite(each)).any(0).sum())
    if failed:
        reason = f"{failed} of {n} values are nan or infinite"
        return _Test(effect, n, False, math.nan, failed, note=note, reason=reason)
    if claim.direction == "within":
        if ratio:
            raise ValueError(
                f"judge(differences): claim {claim.name} is about exact values, and a Ratio is "
                "tested: give the quotients themselves."
            )
        farthest = float(np.abs(each - claim.threshold).max())
        return _Test(effect, n, farthest <= (claim.tolerance or 0.0), math.nan, farthest)
    distances = each[0] - (2.0**claim.threshold * each[1] if ratio else claim.threshold)
    supports, p, rank, standard = _student(
        distances if claim.direction == "greater" else -distances
    )
    return _Test(effect, n, supports, p, rank, standard, note)


def _student(distances: NDArray) -> tuple[bool, float, float, Interval]:
    """Of a mean above 0: whether it is, two-sided p, rank, and the mean in standard deviations.

    p is 0 where all values are equal, and not 0.
    """
    mean, error, n = mean_and_error(distances)
    supports = mean > 0
    if n == 1:  # not tested: before all that support, behind all that refute, the worst first
        rank = 1 + 1 / (1 + abs(mean))
        return supports, math.nan, rank if supports else -rank, _NOTHING
    if error == 0:
        p = float(mean == 0)
        return supports, p, -p, _NOTHING
    t = mean / error
    p = two_sided_p(t, n - 1)
    ends = (t, noncentrality(t, 1 - LEVEL / 2, n - 1), noncentrality(t, LEVEL / 2, n - 1))
    return supports, p, p if supports else -p, Interval(*(end / math.sqrt(n) for end in ends))


def holm(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Judgements with p values adjusted by Holm's method: 5 % of errors over the whole table.

    One family is all that was tested in one recording, with a p value each; both *reproduced* and
    *not reproduced* must survive, else they become inconclusive. Judgements without a p value
    (exact values, failed preconditions) are neither counted nor changed.

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
        if judgement.verdict != "inconclusive" and running >= LEVEL:
            changes |= {
                "verdict": "inconclusive",
                "reason": f"p {format_p(judgement.p)}, but {format_p(running)} by Holm over the "
                f"{len(order)} tests of the recording",
            }
        adjusted[i] = dataclasses.replace(judgement, **changes)
    return adjusted


def effect(judgement: Judgement) -> str:
    """The effect as printed: mean, interval, unit, and the claim's threshold if it is not 0.

    `-` where nothing was measured.
    """
    claim, (mean, low, high) = judgement.claim, judgement.effect
    if math.isnan(mean):
        return "-"
    text = f"{mean:+.3g}"
    if claim.direction != "within" and not math.isnan(low) and low != high:
        text += f" [{low:+.3g}, {high:+.3g}]"
    text = f"{text} {claim.unit}".rstrip()
    sign = {"greater": ">", "less": "<"}.get(claim.direction)
    return f"{text} (claimed: {sign} {claim.threshold:g})" if sign and claim.threshold else text


def format_p(p: float) -> str:
    """A p value as printed; `-` where nothing was tested.

    >>> format_p(0.03), format_p(float("nan"))
    ('0.030', '-')
    """
    if math.isnan(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
