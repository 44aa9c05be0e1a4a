"""The judge of batch norm on curves whose verdict is known, and how images and batches are cut."""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
batch_norm = load(ROOT / "experiments" / "batch_norm.py")
EXPERIMENT = collect(batch_norm)
LOSS = np.array([2.0, 1.4, 0.8, 0.4, 0.02])
JITTER = 1 + 0.01 * np.arange(5)  # by seed


def measured(*, true=20.0, random=3.0, group_true=15.0, off=1.0, fitted=1.0):
    """Recorded arrays of 5 seeds: `off`, the inversion over what examples give."""
    arrays = {"m": 1000, "batch_size": 50, "scale": "nowhere", "at_source_scale": False}
    values = {"batch,true": true, "batch,random": random}
    values |= {"group,true": group_true, "group,random": 2.0}
    for k, (arm, value) in enumerate(values.items()):
        direct = np.full((5, 5), value) * np.roll(JITTER, k)[:, None]
        factor = off if arm.startswith("group") else 1.0
        partitions = np.array([0.98, 1.0, 1.02])
        curves = {
            "step": np.arange(5),
            "loss": np.tile(LOSS, (5, 1)),
            "accuracy": np.full((5, 5), fitted),
            "test_accuracy": np.full((5, 5), 0.3),
            "inverted": factor * direct[..., None] * partitions * JITTER[:, None, None] ** 0.1,
            "m_coherence": direct if arm.startswith("group") else np.full((5, 5), np.nan),
        }
        arrays |= {f"{arm}/{name}": array for name, array in curves.items()}
    return arrays


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def test_an_inversion_that_is_right_and_labels_that_differ_reproduce_every_claim():
    assert set(verdicts(measured()).values()) == {"reproduced"}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"off": 1.3}, {"inverted as measured, not above"}),
        ({"off": 0.7}, {"inverted as measured, not below"}),
        ({"true": 2.0}, {"true above random with batch norm"}),
        ({"group_true": 1.5}, {"true above random with group norm"}),
        ({"random": 8.0}, {"random labels usually below 5 with batch norm"}),
    ],
)
def test_a_claim_that_the_numbers_contradict_is_not_reproduced(change, failing):
    found = verdicts(measured(**change))
    assert {name for name, verdict in found.items() if verdict == "not reproduced"} == failing


def test_nothing_is_tested_where_labels_were_not_fitted():
    judged = EXPERIMENT.judgements(measured(fitted=0.9))
    assert {j.reason for j in judged} == {"labels fitted at the end 0.90 < 0.95"}


def test_squares_of_pixels_are_averaged():
    images = np.arange(16.0).reshape(1, 4, 4, 1)
    assert batch_norm.halved(images)[0, :, :, 0] == pytest.approx(
        np.array([[2.5, 4.5], [10.5, 12.5]])
    )


def test_batches_take_every_example_once_an_epoch():
    batches = batch_norm._batches(np.random.default_rng(0), 10, 5)
    assert sorted(np.concatenate([next(batches), next(batches)])) == list(range(10))


@pytest.mark.slow
def test_the_smoke_preset_measures_both_ways_and_draws(tmp_path):
    recorded = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    assert np.isnan(recorded["batch,true/m_coherence"]).all()
    assert np.isfinite(recorded["group,true/m_coherence"]).all()
    assert recorded["batch,true/inverted"].shape[-1] == 2
    assert "per example" in EXPERIMENT.table(recorded)
    png, *_ = gallery.draw(ROOT, "batch_norm", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000
