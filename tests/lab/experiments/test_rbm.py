"""The Boltzmann machine's experiment: its judge on numbers whose verdict is known, and its arms."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
rbm = load(ROOT / "experiments" / "rbm.py")
EXPERIMENT = collect(rbm)
SEEDS, STEPS = 5, np.array([0, 10, 100, 1000, 3000])
JITTER = 1 + 1e-3 * np.arange(SEEDS)


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def learned(
    *,
    accuracy=0.95,
    recognized=0.9,
    recognizer=0.95,
    cosine=0.8,
    likelihoods=(-35.0, -34.0, -33.0),
    gaps=(1.3, 1.0, 1.1),
    fitted=(0.6, 0.4, 0.5),
    phases=(110.0, 111.0, 1.5),
    labels=(4.0, 2.0),
):
    """Recorded arrays as if measured: robust means last, small machines CD-1, CD-5, persistent."""
    course = lambda last: np.outer(JITTER * last, np.linspace(0, 1, len(STEPS)))
    constant = lambda value: np.outer(JITTER * value, np.ones(len(STEPS)))
    names = ("plain", *rbm.ROBUST)
    arms = [*names, "permuted", *(f"permuted, {name}" for name in rbm.ROBUST)]
    small = ("small", "small, CD-5", "small, persistent")
    recorded = {"arms": np.array([*arms, *small]), "m": 300}
    for arm in arms:
        place = names.index(arm.removeprefix("permuted, ").replace("permuted", "plain"))
        recorded |= {
            f"{arm}/step": STEPS,
            f"{arm}/test_accuracy": course(accuracy),
            f"{arm}/corrupt_accuracy": course(fitted[place]),
            f"{arm}/train_free_energy": constant(-100.0),
            f"{arm}/test_free_energy": constant(-100.0) + course(gaps[place]),
        }
    for arm, value in zip(small, likelihoods):
        recorded |= {
            f"{arm}/step": STEPS,
            f"{arm}/test_log_likelihood": np.outer(JITTER, np.full(len(STEPS), value)),
            f"{arm}/train_log_likelihood": constant(value),
            f"{arm}/cosine": constant(cosine),
        }
    for arm, on_labels in zip(("plain", "permuted"), labels):
        whole = np.array([constant(value) for value in phases])
        recorded |= {
            f"{arm}/probed": STEPS,
            f"{arm}/coherence": whole,
            f"{arm}/label_coherence": np.array([constant(on_labels)] * 3),
        }
    return recorded | {
        "recognized": recognized * JITTER,
        "recognizer": recognizer * JITTER,
        "others": np.full((SEEDS, 5), 0.9),
        "scale": "nowhere",
        "at_source_scale": False,
    }


def test_numbers_as_claimed_reproduce_every_claim():
    judged = verdicts(learned())
    assert judged.keys() == {claim.name for claim in EXPERIMENT.claims}
    assert set(judged.values()) == {"reproduced"}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"accuracy": 0.9}, "p(y | x) classifies"),
        ({"recognized": 0.7}, "draws are recognized"),
        ({"cosine": 0.3}, "CD-1 follows the likelihood"),
        ({"likelihoods": (-35.0, -36.0, -33.0)}, "longer chains fit better"),
        ({"gaps": (0.2, 0.1, 0.1)}, "free energies move apart"),
        ({"phases": (110.0, 20.0, 1.5)}, "learning is a difference of two shared directions"),
        ({"labels": (2.0, 2.5)}, "true labels agree more"),
        ({"fitted": (0.6, 0.62, 0.5)}, "robust means memorize fewer permuted labels"),
        ({"gaps": (1.3, 1.0, 1.4)}, "robust means keep free energies together"),
    ],
)
def test_a_claim_that_the_numbers_contradict_is_not_reproduced(change, failing):
    judged = verdicts(learned(**change))
    assert {name for name, verdict in judged.items() if verdict != "reproduced"} == {failing}
    assert judged[failing] == "not reproduced"


def test_a_poor_classifier_and_unfitted_labels_decide_nothing():
    judged = {j.claim.name: j for j in EXPERIMENT.judgements(learned(recognizer=0.8))}
    assert judged["draws are recognized"].reason == "the classifier is right on 0.80 < 0.9"
    unfitted = learned(fitted=(0.15, 0.05, 0.05))
    judged = {j.claim.name: j for j in EXPERIMENT.judgements(unfitted)}
    said = judged["robust means memorize fewer permuted labels"]
    assert (said.verdict, said.reason) == ("inconclusive", "permuted labels fitted 0.15 < 0.2")


def test_arms_differ_from_the_plain_machine_in_what_they_are_named_for():
    arms = EXPERIMENT.arms(EXPERIMENT.presets["cpu"])
    plain = arms["plain"]
    assert next(iter(arms)) == "plain"
    assert replace(arms["permuted"], noise=plain.noise) == plain
    for name, aggregator in rbm.ROBUST.items():
        robust = replace(arms["permuted"], aggregator=aggregator, sample=0)
        assert arms[f"permuted, {name}"] == robust
    assert arms["small, persistent"] == replace(arms["small"], persistent=True)
    assert arms["small"].hidden <= 20


@pytest.mark.slow
def test_the_smoke_preset_learns_draws_and_is_judged(tmp_path):
    recorded = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    judged = EXPERIMENT.judgements(recorded)
    assert [j.claim.name for j in judged] == [claim.name for claim in EXPERIMENT.claims]
    assert "log-likelihood, test" in EXPERIMENT.table(recorded)
    assert np.isfinite(recorded["plain/coherence"]).all()
    # An exact gradient's step is uphill: the likelihood rises.
    likelihood = recorded["small/train_log_likelihood"]
    assert (likelihood[:, -1] > likelihood[:, 0] + 5).all()
    png = gallery.draw(ROOT, "rbm", tmp_path / "recorded.npz", tmp_path)[0]
    assert png.stat().st_size > 20_000
