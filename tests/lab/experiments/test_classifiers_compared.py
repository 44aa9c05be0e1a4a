"""Calibration with known answers, what the variants are, and the judge on made-up accuracies."""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
finding = load(ROOT / "experiments" / "classifiers_compared.py")
EXPERIMENT = collect(finding)
ACCURACY = {  # with true labels, with most wrong ones
    "gaussian_nb": (0.9, 0.85),
    "softmax_regression": (0.95, 0.8),
    "knn": (0.95, 0.85),
    "one_neighbour": (0.96, 0.7),
    "tree": (0.75, 0.5),
    "large_leaves": (0.7, 0.6),
    "random_forest": (0.95, 0.9),
    "adaboost": (0.94, 0.8),
    "mlp": (0.95, 0.7),
    "mlp_m3": (0.94, 0.85),
    "mlp_stopped_30": (0.9, 0.75),
    "mlp_stopped_100": (0.93, 0.8),
}


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def learned(accuracy=(), *, too_sure=(), errors=(), coherence=(4.0, 2.0), fitted=0.99):
    """Recorded arrays of 5 seeds, as if measured; the arguments change what some models did."""
    jitter = 0.001 * np.arange(5)
    accuracy = ACCURACY | dict(accuracy)
    values = np.array(list(accuracy.values()))[..., None] * (1 + jitter / 10)
    recorded = {
        "name": np.array(list(accuracy)),
        "label": np.array(list(accuracy)),
        "noise": np.array([0, 0.4]),
        "m": 300,
    }
    recorded |= {
        "accuracy": values,
        "fitted": np.full_like(values, fitted),
        "wrong_fitted": np.full_like(values, fitted),
    }
    for name, value in ({"gaussian_nb": 0.1, "random_forest": -0.2} | dict(too_sure)).items():
        recorded[f"{name}/too_sure"] = value + jitter
    for name, value in ({"gaussian_nb": 0.1, "softmax_regression": 0.02} | dict(errors)).items():
        recorded[f"{name}/calibration_error"] = value * (1 + jitter)
    for name in ("softmax_regression", "mlp"):
        recorded[f"{name}/coherence"] = np.array(coherence)[:, None] * (1 + jitter * [[1], [2]])
    return recorded | {"scale": "nowhere", "at_source_scale": False}


def test_numbers_as_claimed_reproduce_every_claim():
    assert verdicts(learned()) == {claim.name: "reproduced" for claim in EXPERIMENT.claims}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"too_sure": {"gaussian_nb": -0.1}}, {"naive Bayes says more than it knows"}),
        (
            {"errors": {"softmax_regression": 0.2}},
            {"naive Bayes is worse calibrated than softmax regression"},
        ),
        ({"too_sure": {"random_forest": 0.1}}, {"a forest says less than it knows"}),
        ({"accuracy": {"knn": (0.95, 0.6)}}, {"one neighbour loses more than five"}),
        ({"accuracy": {"large_leaves": (0.75, 0.4)}}, {"leaves with few examples lose more"}),
        (
            {"accuracy": {"random_forest": (0.95, 0.6)}},
            {"a tree loses more than a forest", "boosting loses more than bagging"},
        ),
        (
            {"accuracy": {"mlp_m3": (0.95, 0.6)}},
            {"the median of means loses less", "the median of means beats stopping early"},
        ),
        (
            {"accuracy": {"mlp_stopped_30": (0.9, 0.88)}},
            {"the median of means beats stopping early"},
        ),
        ({"coherence": (2.0, 4.0)}, {"wrong labels make gradients less coherent"}),
    ],
)
def test_a_claim_that_the_numbers_contradict_is_not_reproduced(change, failing):
    found = verdicts(learned(**change))
    assert {name for name, verdict in found.items() if verdict != "reproduced"} == failing
    assert {found[name] for name in failing} == {"not reproduced"}


def test_where_the_plain_network_memorizes_nothing_the_median_of_means_is_not_tested():
    found = EXPERIMENT.judgements(learned(fitted=0.7))
    undecided = {j.claim.name: j.reason for j in found if j.verdict == "inconclusive"}
    assert undecided.keys() == {
        "the median of means loses less",
        "the median of means beats stopping early",
    }
    assert all(
        "did not memorize: a seed fits 0.70 < 0.9" in reason for reason in undecided.values()
    )


def test_calibration_of_known_probabilities():
    sure = np.array([0.95] * 10 + [0.55] * 10)
    right = np.array([1] * 7 + [0] * 3 + [1] * 8 + [0] * 2)
    found = finding.calibration(sure, right)
    assert found["bins"][9] == pytest.approx([10, 9.5, 7])
    assert found["bins"][5] == pytest.approx([10, 5.5, 8])
    assert found["bins"].sum(0) == pytest.approx([20, 15, 15])
    assert found["calibration_error"] == pytest.approx(
        (2.5 + 2.5) / 20
    )  # too sure here, not sure enough there
    assert found["too_sure"] == pytest.approx(0)
    assert finding.calibration(np.ones(4), np.ones(4))["calibration_error"] == 0


def test_variants_differ_from_their_rows_in_one_setting():
    rows = finding.every_row()
    assert rows["one_neighbour"].make(0)[-1].n_neighbors == 1
    assert rows["knn"].make(0)[-1].n_neighbors == 5
    assert rows["large_leaves"].make(3).get_params() == rows["tree"].make(3).get_params() | {
        "min_samples_leaf": 10
    }
    plain, median = (rows[name].make(0)[-1].get_params() for name in ("mlp", "mlp_m3"))
    assert {name for name in plain if plain[name] != median[name]} == {"aggregator"}
    assert [rows[name].make(0)[-1].steps for name in finding.STOPPED] == [30, 100]


def test_drawn_digits_are_recognized_if_they_are_the_real_ones():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)

    class Remembering:
        def sample(self, labels, seed):
            return np.array([x[1000:][y[1000:] == label][0] / 16 for label in labels])

    found = finding.drawn(Remembering(), x[:1000] / 16, y[:1000], 2, 0)
    assert found["recognized"] >= 0.9
    assert found["pictures"].shape == (20, 64)
    assert found["pictures"].max() == 255
    wrong = finding.drawn(Remembering(), x[:1000] / 16, 9 - y[:1000], 2, 0)
    assert wrong["recognized"] <= 0.1


@pytest.mark.slow
def test_the_smoke_preset_learns_and_draws(tmp_path):
    recorded = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    assert {
        "one neighbour loses more than five",
        "wrong labels make gradients less coherent",
    } <= verdicts(recorded).keys()
    assert "random forest" in EXPERIMENT.table(recorded)
    assert (recorded["accuracy"][:, 0] > recorded["accuracy"][:, -1]).all()
    assert np.isfinite(recorded["softmax_regression/coherence"]).all()
    png, *_ = gallery.draw(ROOT, "classifiers_compared", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000
