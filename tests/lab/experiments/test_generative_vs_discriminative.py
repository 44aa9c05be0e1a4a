"""Learning curves with known answers, the closed-form errors of the two-feature set.

And the judge on made-up curves.
"""

import math
from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
finding = load(ROOT / "experiments" / "generative_vs_discriminative.py")
EXPERIMENT = collect(finding)
SETS = finding.SETS
SIZES = np.array([4, 8, 16, 32, 64, 128])
SOON = np.array([0.2, 0.12, 0.1, 0.1, 0.1, 0.1])  # nearly there with 8 examples
LATE = np.array([0.3, 0.25, 0.2, 0.14, 0.08, 0.05])  # with 64
BAYES, BEST = finding.known_errors()


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def learned(*, bayes=SOON, logistic=LATE, penalized=LATE, excess=BAYES - BEST):
    """Recorded arrays of 5 seeds, as if measured: errors of every model on eight data sets.

    The seeds differ by little.
    """
    jitter = 0.001 * np.arange(5)[:, None]
    recorded = {"sets": np.array(SETS), "scale": "nowhere", "at_source_scale": False}
    for name in SETS:
        error = np.stack(
            [bayes + 0 * jitter, bayes + 0 * jitter, logistic + jitter / 10, penalized + jitter], 1
        )
        if name == finding.PEOPLE:
            error[:, finding.NB, -1] = error[:, finding.LR, -1] + excess
        recorded |= {
            f"{name}/sizes": SIZES,
            f"{name}/chance": 0.5,
            f"{name}/features": 4,
            f"{name}/error": error,
        }
    recorded |= {
        "people": np.array([[60.0, 24], [62, 25], [80, 27], [78, 26]]),
        "sex": np.array([0, 0, 1, 1]),
    }
    ramp = np.linspace(0, 1, 8)[None] * np.ones((8, 1))
    recorded |= {
        "axes": np.stack([np.linspace(40, 100, 8), np.linspace(21, 31, 8)], 1),
        "posterior": ramp,
        "decision": np.round(ramp),
    }
    recorded |= {"joint": np.array([1 - ramp, ramp])}
    rows = [
        ("naive Bayes", "generative", "p(x, y)", True, False),
        ("net", "discriminative, probabilistic", "p(y | x)", False, True),
    ]
    columns = ("label", "how", "models", "generates", "gradients")
    return recorded | {
        f"catalogue/{name}": np.array(column) for name, column in zip(columns, zip(*rows))
    }


def test_curves_that_cross_as_claimed_reproduce_every_claim():
    assert set(verdicts(learned()).values()) == {"reproduced"}


FEW, MANY, CROSS, SOONER = (
    "naive Bayes leads with few examples",
    "logistic regression leads with many",
    "the curves cross",
    "naive Bayes gets to its own end sooner",
)


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"bayes": SOON + 0.2}, {FEW, CROSS, "the lead outlives a penalty"}),
        ({"logistic": LATE + 0.2, "excess": BAYES - BEST}, {MANY, CROSS}),
        (
            {"bayes": LATE + 0.05, "logistic": SOON + 0.2, "penalized": LATE + 0.2},
            {MANY, CROSS, SOONER},
        ),
        ({"penalized": SOON - 0.05}, {"the lead outlives a penalty"}),
        ({"excess": 0.0}, {"ignored correlation costs what algebra says"}),
    ],
)
def test_a_claim_that_the_curves_contradict_is_not_reproduced(change, failing):
    found = verdicts(learned(**change))
    assert {name for name, verdict in found.items() if verdict == "not reproduced"} == failing


def test_examples_needed_are_read_where_a_curve_has_covered_most_of_its_own_way():
    recorded = learned()
    levels = {finding.NB: 0.1 + 0.1 * 0.4, finding.LR: 0.05 + 0.1 * 0.45}
    assert finding.needed(recorded, "iris", finding.NB)[0] == pytest.approx(
        2 + (0.2 - levels[finding.NB]) / 0.08
    )
    assert finding.needed(recorded, "iris", finding.LR)[0] == pytest.approx(
        5 + (0.14 - levels[finding.LR]) / 0.06
    )


def test_the_known_errors_are_those_of_many_people():
    x, sex = finding.people(400_000, np.random.default_rng(0))
    z = (x - finding.MEANS.mean(0)) / finding.SPREADS
    apart = (finding.MEANS[1] - finding.MEANS[0]) / finding.SPREADS
    best = np.linalg.solve([[1, finding.CORRELATION], [finding.CORRELATION, 1]], apart)
    for direction, known in zip((apart, best), (BAYES, BEST)):
        assert np.mean((z @ direction > 0) != sex) == pytest.approx(known, abs=0.002)
    assert (
        pytest.approx(math.erfc(1 / math.sqrt(2)) / 2) == BEST
    )  # the means are two standard deviations apart


def test_any_beginning_of_an_order_has_its_share_of_every_class():
    y = np.repeat([0, 1, 2], [60, 30, 10])
    order = finding.in_proportion(y, np.random.default_rng(0))
    assert sorted(order) == list(range(100))
    for n in (10, 20, 50):
        assert (
            np.abs(np.bincount(y[order[:n]], minlength=3) - n * np.array([0.6, 0.3, 0.1])).max()
            <= 1
        )
    assert not np.array_equal(order, finding.in_proportion(y, np.random.default_rng(1)))


def test_sizes_double_from_two_a_class_to_all_there_are():
    assert finding.sizes_of(np.arange(100) % 2, 1000) == [4, 8, 16, 32, 75]
    assert finding.sizes_of(np.arange(1000) % 2, 64) == [4, 8, 16, 32, 64]


def test_the_judged_naive_bayes_has_one_variance_a_feature_and_a_linear_boundary():
    x, sex = finding.people(200, np.random.default_rng(0))
    tied, own = (finding.fitted(model, x, sex) for model in (finding.NB, finding.OWN))
    assert np.ptp(tied.var_, 0).max() == 0
    assert np.ptp(own.var_, 0).min() > 0
    grid = np.random.default_rng(1).normal(size=(50, 2)) * 20 + x.mean(0)
    odds = np.diff(tied.predict_joint_log_proba(grid))[:, 0]
    plane = np.column_stack([grid, np.ones(50)])
    assert plane @ np.linalg.lstsq(plane, odds)[0] == pytest.approx(odds, abs=1e-6)


@pytest.mark.slow
def test_the_smoke_preset_learns_and_draws(tmp_path):
    recorded = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    assert [j.claim.name for j in EXPERIMENT.judgements(recorded)] == [
        claim.name for claim in EXPERIMENT.claims
    ]
    text = EXPERIMENT.table(recorded)
    assert "iris" in text
    assert "decision tree" in text
    assert (recorded["iris/error"][..., -1] < recorded["iris/chance"]).all()
    png, *_ = gallery.draw(
        ROOT, "generative_vs_discriminative", tmp_path / "recorded.npz", tmp_path
    )
    assert png.stat().st_size > 20_000
