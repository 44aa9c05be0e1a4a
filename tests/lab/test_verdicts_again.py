"""Every recorded verdict once more: with scipy, from claims as files say them, by no code of ours.

Only the numbers that are judged come from the experiments' `judge`; those of the papers' claims are
computed again from the recorded arrays in `test_statistics_again.py`.
"""

import math
import tomllib
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats

from coherence.lab.experiment import collect, load
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[2]
LEVEL = 0.05


def distances(claim, values):
    """What is tested against 0, positive on the claimed side, and the printed effect."""
    side, threshold = (1, claim["above"]) if "above" in claim else (-1, claim["below"])
    if hasattr(values, "numerator"):
        top, bottom = np.array(values.numerator, float), np.array(values.denominator, float)
        return side * (top - 2**threshold * bottom), ratio(top, bottom)
    values = np.atleast_1d(np.asarray(values, float))
    low, high = math.nan, math.nan
    if len(values) > 1 and np.ptp(values) > 0:
        low, high = stats.t.interval(
            0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values)
        )
    elif len(values) > 1:
        low = high = values[0]
    return side * (values - threshold), (values.mean(), low, high)


def ratio(top, bottom):
    """log2 of a ratio of means, and where a t test of their difference just rejects."""
    middle = math.log2(top.mean() / bottom.mean()) if min(top.mean(), bottom.mean()) > 0 else None
    if middle is None or len(top) == 1:
        return middle, math.nan, math.nan

    def margin(logarithm):
        return stats.ttest_1samp(top - 2**logarithm * bottom, 0).pvalue - LEVEL

    ends = []
    for far in (middle - 30, middle + 30):
        inside = margin(far) > 0
        infinite = math.copysign(math.inf, far - middle)
        ends.append(infinite if inside else optimize.brentq(margin, middle, far, xtol=1e-10))
    return middle, *ends


def one_part(claim, values):
    """(how much against the claim, on its side, p, effect), or why nothing can be said."""
    tested, effect = distances(claim, values)
    if not len(tested) or not np.isfinite(tested).all():
        return None
    mean = tested.mean() if np.ptp(tested) else tested[0]
    if len(tested) == 1:
        return (mean <= 0, -mean), mean > 0, math.nan, effect
    p = stats.ttest_1samp(tested, 0).pvalue if np.ptp(tested) else (1.0 if mean == 0 else 0.0)
    return (mean <= 0, p if mean > 0 else -p), mean > 0, p, effect


def again(claim, values, missing):
    """Verdict before adjustment, p (nan where nothing is tested) and effect."""
    parts = values if isinstance(values, dict) else {"": values}
    if "equals" in claim:
        every = np.concatenate([np.atleast_1d(part).ravel() for part in parts.values()])
        exact = np.abs(every - claim["equals"]).max() <= claim["within"]
        return ("reproduced" if exact else "not reproduced"), math.nan, None
    results = [one_part(claim, part) for part in parts.values()]
    if missing or None in results:
        return "inconclusive", math.nan, None
    _, holds, p, effect = max(results, key=lambda result: result[0])
    if math.isnan(p):
        return "inconclusive", p, effect
    if p == 0:  # all values are equal
        return ("reproduced" if holds else "not reproduced"), math.nan, effect
    p = p if holds else min(1.0, len(parts) * p)
    verdict = "reproduced" if holds else "not reproduced"
    return (verdict if p < LEVEL else "inconclusive"), p, effect


def holm_again(ps):
    """Adjusted p values, by the definition: the largest of (n - rank) p of those no larger."""
    ranked = np.sort(ps)
    steps = np.minimum(1, np.arange(len(ranked), 0, -1) * ranked)
    return np.array([steps[: np.searchsorted(ranked, p, "right")].max() for p in ps])


EXPERIMENTS = {path.stem: load(path) for path in sorted((ROOT / "experiments").glob("*.py"))}


@pytest.mark.parametrize("name", gallery.names(ROOT))
def test_a_second_implementation_says_the_same(name):
    stem = gallery.stem(name)
    with np.load(gallery.recording(ROOT, name)) as file:
        recorded = dict(file)
    text = (ROOT / "experiments" / "claims" / f"{stem}.toml").read_text()
    claims = {claim["name"]: claim for claim in tomllib.loads(text)["claims"]}
    tested, second = EXPERIMENTS[stem].judge(recorded), {}
    for claim, result in tested.items():
        values, missing = result if type(result) is tuple else (result, None)
        if not (isinstance(values, dict) and not values):
            second[claim] = again(claims[claim], values, missing)
    family = [claim for claim, (_, p, _) in second.items() if not math.isnan(p)]
    adjusted = dict(zip(family, holm_again([second[claim][1] for claim in family])))
    first = {j.claim.name: j for j in collect(EXPERIMENTS[stem]).judgements(recorded)}
    assert first.keys() == second.keys()
    for claim, (verdict, p, effect) in second.items():
        if adjusted.get(claim, 0) >= LEVEL:
            verdict = "inconclusive"
        judgement = first[claim]
        assert judgement.verdict == verdict, claim
        assert judgement.p == pytest.approx(p, rel=1e-6, nan_ok=True), claim
        if claim in adjusted:
            assert judgement.p_adjusted == pytest.approx(adjusted[claim], rel=1e-6), claim
        if effect is not None and effect[0] is not None:
            assert tuple(judgement.effect) == pytest.approx(
                effect, rel=1e-5, abs=1e-7, nan_ok=True
            ), claim
