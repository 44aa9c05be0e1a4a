"""The judge of a language model on curves whose verdict is known; windows, and what cancels."""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
language_model = load(ROOT / "experiments" / "language_model.py")
EXPERIMENT = collect(language_model)
STEP = np.array([0, 10, 30, 100, 400, 600])
JITTER = 1 + 0.01 * np.arange(5)[:, None]  # by seed


def measured(*, true=20.0, shuffled=3.0, equal=30.0, follows=1.0, norms=0.2, late=0.8, last=4.0):
    """Recorded arrays of 5 seeds."""
    loss = np.array([4.5, 3.3, 3.1, 3.0, 2.5, 2.0])
    whole = np.array([100.0, 50.0, equal, true, true * 1.2, true * 1.5])
    other = np.array([100.0, 50.0, 25.0, shuffled, shuffled, shuffled])
    m = 256
    alpha = (whole - 1) / (m - 1)
    kinds = np.stack([norms * np.exp(follows * np.log(alpha)), alpha], -1)
    arrays = {"m": m, "few": 128, "layers": np.array(["a"]), "kinds": np.array(["norms", "rest"])}
    arrays |= {
        "positions": np.array(["0", "15", "3"]),
        "scale": "nowhere",
        "at_source_scale": False,
    }
    for arm, coherence in {"true": whole, "shuffled": other}.items():
        curves = {
            "step": STEP,
            "train_loss": np.tile(loss, (5, 1)),
            "test_loss": np.tile(loss, (5, 1)),
            "m_coherence": coherence * (JITTER if arm == "true" else JITTER[::-1]),
            "by_kinds": np.tile(kinds, (5, 1, 1)) * JITTER[::-1, :, None],
            "by_layers": np.ones((5, 6, 1)),
            "by_positions": np.tile([8.0, last, 99.0], (5, 6, 1)) * JITTER[:, :, None] ** [1, 2, 1],
            "interference": np.array([0.2, 0.3, 0.4, late, late]) * JITTER,
            "entropy": np.full(5, 3.0),
        }
        arrays |= {f"{arm}/{name}": values for name, values in curves.items()}
    return arrays


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def test_gradients_as_claimed_reproduce_every_claim():
    assert set(verdicts(measured(norms=1.5)).values()) == {"reproduced"}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"true": 2.0}, {"true text is more coherent"}),
        ({"equal": 20.0}, {"also at equal loss"}),
        ({"follows": -1.0, "norms": 0.001}, {"norm layers follow the noise scale"}),
        ({"norms": 0.2}, {"norm layers are more coherent"}),
        ({"late": 0.1}, {"characters oppose each other as the loss slows"}),
        ({"last": 16.0}, {"the first position is more coherent than the last"}),
    ],
)
def test_a_claim_that_the_numbers_contradict_is_not_reproduced(change, failing):
    found = verdicts(measured(**change))
    assert {name for name in failing if found[name] == "not reproduced"} == failing


def test_nothing_cancels_where_all_move_one_way_and_all_where_nothing_is_gained():
    losses = np.array([[[1.0, 2.0], [0.5, 1.0], [1.0, 0.5], [2.0, 0.5]]])
    assert language_model.interference(losses) == pytest.approx(np.array([[0.0, 1.0, 0.0]]))


def test_a_noise_scale_that_is_no_number_is_left_out_of_the_correlation():
    a, b = np.array([1.0, np.nan, 2.0, 3.0]), np.array([2.0, 9.0, 4.0, 6.0])
    assert language_model.correlation(a, b) == pytest.approx(1)
    assert np.isnan(language_model.correlation(a[:3], b[:3]))


@pytest.fixture
def short_text(monkeypatch):
    """Two hundred numbers in ascending order."""
    monkeypatch.setattr(language_model, "_numbered", lambda vocabulary: (np.arange(200), 1.0))


def test_windows_are_pieces_of_the_text_none_in_both_parts(short_text):
    train, test, _ = language_model.Messages(length=9, examples=15, tests=5).build()
    windows = np.concatenate([train, test])
    assert windows.shape == (20, 10)
    assert sorted(windows.ravel()) == list(range(200))
    assert (np.diff(windows, axis=1) == 1).all()


def test_shuffled_text_has_the_same_characters_in_another_order(short_text):
    train, test, _ = language_model.Messages(9, 15, 5, shuffled=True).build()
    assert sorted(np.concatenate([train, test]).ravel()) == list(range(200))
    assert (np.diff(train, axis=1) == 1).mean() < 0.1


def test_more_windows_than_there_are_are_refused(short_text):
    with pytest.raises(ValueError, match="the text has 20 windows of 10 characters, got"):
        language_model.Messages(length=9, examples=16, tests=5).build()


@pytest.mark.slow
def test_the_smoke_preset_trains_measures_and_draws(tmp_path):
    recorded = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    assert list(recorded["positions"]) == ["0", "1", "3", "7"]
    assert set(recorded["kinds"]) == {"norms", "rest"}
    assert "entropy" in EXPERIMENT.table(recorded)
    png, *_ = gallery.draw(ROOT, "language_model", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000
