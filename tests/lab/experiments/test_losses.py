"""Losses on one example, and the judge on made-up arrays."""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
FILE = load(ROOT / "experiments" / "losses.py")
EXPERIMENT = collect(FILE)
EXACT = (
    ("p_minus_y", "gradients are p - y"),
    ("entropy_and_kl", "cross-entropy is entropy and KL"),
    ("likelihoods", "losses are likelihoods"),
    ("negative_curvature", "convex in the outputs"),
    ("outliers", "outliers"),
    ("saturation", "saturation"),
)


def recorded(corrupt=None, loud=0.7, early=0.2, start=100.0, equal=1.0, weighted=0.7):
    """Recorded arrays of 4 seeds; what each loss memorizes, and so on, as given."""
    noise = np.linspace(-0.01, 0.01, 4)[:, None]
    ends = {"cross-entropy": 0.5, "squared": 0.2, "huber": 0.1, "smoothed": 0.4} | (corrupt or {})
    arrays = {f"exact/{name}": np.zeros(4) for name, _ in EXACT}
    arrays |= {"losses": np.array([*FILE.LOSSES, FILE.WINSORIZED]), "m": 500}
    for name in arrays["losses"]:
        end = ends.get(name, 0.1)
        first = start if name == "squared" else 10.0
        late = 2.0 * (equal if name == "squared" else 1.0)
        share = early if name == "softmax-squared" else 0.5
        arrays |= {
            f"{name}/fits/step": np.array([0, 100, 1000]),
            f"{name}/fits/pristine_accuracy": np.array([0.1, 0.7, 0.9]) + 0 * noise,
            f"{name}/fits/corrupt_accuracy": np.array([0.1, 0.1, end]) + noise,
            f"{name}/at/step": np.array([0, 100, 1000]),
            f"{name}/at/train/norm_share": np.array([0.3, share, loud]) + noise,
            f"{name}/at/train/m_coherence": np.array([first, late, 1.5]) * np.exp(noise),
        }
    for name, recall in (("rare", 0.5), ("rare, weighted", weighted)):
        arrays[f"{name}/rare_recall"] = recall + noise * (1 + (name == "rare"))
    return arrays | {"scale": "nowhere", "at_source_scale": False}


def verdicts(arrays):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(arrays)}


def test_what_is_as_claimed_reproduces_every_claim():
    found = verdicts(recorded())
    assert found.keys() == {claim.name for claim in EXPERIMENT.claims}
    assert set(found.values()) == {"reproduced"}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"corrupt": {"huber": 0.4}}, {"Huber resists outliers"}),
        ({"corrupt": {"smoothed": 0.7}}, {"smoothed labels resist outliers"}),
        ({"corrupt": {FILE.WINSORIZED: 0.5}}, {"winsorizing takes their influence"}),
        ({"loud": 0.3}, {"corrupt examples are loud"}),
        ({"early": 0.5}, {"saturation mutes them early"}),
        ({"start": 20.0}, {"squared error begins coherent"}),
        ({"equal": 4.0}, {"and not at equal accuracy"}),
        ({"equal": 0.25}, {"and not at equal accuracy"}),
        ({"weighted": 0.4}, {"weights help rare classes"}),
    ],
)
def test_a_claim_that_numbers_contradict_is_not_reproduced(change, failing):
    found = verdicts(recorded(**change))
    assert {name for name, verdict in found.items() if verdict == "not reproduced"} == failing


def test_where_nothing_is_memorized_nothing_is_said_of_memorizing():
    found = verdicts(recorded(corrupt={"cross-entropy": 0.2, "squared": 0.0}))
    unsaid = {name for name, verdict in found.items() if verdict == "inconclusive"}
    assert len(unsaid) == 5
    assert "winsorizing takes their influence" in unsaid


@pytest.mark.parametrize(("name", "claim"), EXACT)
def test_one_seed_refutes_an_exact_statement(name, claim):
    arrays = recorded()
    arrays[f"exact/{name}"][2] = 1e-5
    assert verdicts(arrays)[claim] == "not reproduced"


def test_memorizing_is_compared_where_both_have_fitted_as_much():
    arrays = recorded()
    arrays["squared/fits/pristine_accuracy"][:] = np.array([0.1, 0.5, 0.7])
    # Cross-entropy has 0.7 of the pristine at its second measurement, and 0.1 of the corrupt.
    noise = np.linspace(-0.01, 0.01, 4)
    more = FILE.fitted_more(arrays, "cross-entropy", "squared")
    np.testing.assert_allclose(more, 0.1 + noise - (0.2 + noise), atol=1e-12)


def test_rare_classes_are_rare_and_others_are_all_there():
    few, all_of_them = FILE.Imbalanced(0.1).build(), FILE.digits().build()
    counts, before = (np.bincount(data.y_train) for data in (few, all_of_them))
    np.testing.assert_array_equal(counts[:5], before[:5])
    assert 0.05 < counts[5:].sum() / before[5:].sum() < 0.15
    other = FILE.Imbalanced(0.1, seed=1).build()
    assert len(other.y_train) == len(few.y_train)
    assert not np.array_equal(few.x_train, other.x_train)


@pytest.mark.slow
def test_the_smoke_preset_runs_judges_and_draws(tmp_path):
    arrays = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    judgements = {j.claim.name: j.verdict for j in EXPERIMENT.judgements(arrays)}
    assert {judgements[claim] for _, claim in EXACT} == {"reproduced"}
    assert EXPERIMENT.table(arrays)
    png, *_ = gallery.draw(ROOT, "losses", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000
