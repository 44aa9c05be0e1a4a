"""Planting, ranking and contest on cases with known answers; the judge on made-up arrays."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from coherence.lab.experiment import collect, load, perform

ROOT = Path(__file__).resolve().parents[3]
label_errors = load(ROOT / "experiments" / "label_errors.py")
EXPERIMENT = collect(label_errors)


def test_areas_and_precisions_are_scikit_learns():
    rng = np.random.default_rng(0)
    wrong, suspicion = rng.random(50) < 0.3, rng.normal(size=50)
    assert label_errors.area(wrong, suspicion) == pytest.approx(roc_auc_score(wrong, suspicion))
    assert label_errors.average_precision(wrong, suspicion) == pytest.approx(
        average_precision_score(wrong, suspicion)
    )
    coarse = suspicion.round()
    assert label_errors.area(wrong, coarse) == pytest.approx(roc_auc_score(wrong, coarse))


@pytest.mark.parametrize("confused", [False, True])
def test_as_many_labels_are_wrong_as_were_asked_for(confused):
    truth = np.arange(200) % 5
    rng = np.random.default_rng(1)
    y, wrong = label_errors.plant(truth, 0.2, 5, confused, rng)
    assert wrong.sum() == 40
    np.testing.assert_array_equal(y != truth, wrong)
    if confused:
        np.testing.assert_array_equal(y[wrong], (truth[wrong] + 1) % 5)


def test_the_contest_is_won_by_the_better_label():
    under = np.array([[0.5, 0.2, 0.1], [0.5, 0.2, np.nan]])
    np.testing.assert_allclose(label_errors.contest(under, np.array([0, 1])), [0.3, -0.3])


def test_confident_learning_forgives_a_class_that_is_never_sure():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.55, 0.45], [0.5, 0.5]])
    values = label_errors.adjusted(probabilities, np.array([0, 0, 1, 1]))
    assert values[3] > values[2] > 0.4
    assert values.argmin() == 2 or values[1] < values[2]


def made_up(own, reference=0.95, seeds=5):
    """Areas of 4 sets: `own` for agreement, contest and margin, `reference` for the others."""
    roc = np.full((4, 1, seeds, len(label_errors.SCORES)), reference)
    for name in ("own_class", "contest", "aum"):
        roc[..., label_errors.SCORES.index(name)] = own + 0.001 * np.arange(seeds)
    return {
        "sets": np.array(label_errors.SETS),
        "conditions": np.array(["uniform 10%"]),
        "scores": np.array(label_errors.SCORES),
        "roc": roc,
        "precision": roc,
        "argued": np.full((4, 1, seeds), 0.9) + 0.001 * np.arange(seeds),
        "scale": np.array("made up"),
        "at_source_scale": False,
    }


@pytest.mark.parametrize(("own", "verdict"), [(0.99, "reproduced"), (0.8, "not reproduced")])
def test_the_judge_can_come_out_either_way(own, verdict):
    judged = {j.claim.name: j.verdict for j in EXPERIMENT.judgements(made_up(own))}
    assert judged["agreement ranks as well as confident learning"] == verdict
    assert judged["agreement finds wrong labels in MNIST"] == verdict


@pytest.mark.slow
def test_the_smoke_preset_runs_and_is_tabulated(tmp_path):
    recorded = perform(EXPERIMENT, label_errors.PRESETS["smoke"], tmp_path)
    assert recorded["roc"].shape == (1, 1, 2, len(label_errors.SCORES))
    assert ((recorded["roc"] >= 0) & (recorded["roc"] <= 1)).all()
    assert "own_class" in label_errors.table(recorded)
