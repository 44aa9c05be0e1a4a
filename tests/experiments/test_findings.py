"""Experiments end to end at their smallest, and judges on arrays whose verdict is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from coherence import gallery, runs
from coherence.experiment import load, perform

ROOT = Path(__file__).resolve().parents[2]


def experiment(name):
    return load(ROOT / "experiments" / f"{name}.py").EXPERIMENT


@pytest.mark.parametrize("name", ["real_vs_random", pytest.param("winsorization", marks=pytest.mark.slow)])
def test_the_smoke_preset_trains_judges_resumes_and_draws(name, tmp_path):
    one = experiment(name)
    settings = one.presets["smoke"]
    recorded = perform(one, settings, tmp_path)
    judgements = one.judgements(recorded)
    assert [j.claim.name for j in judgements] == [claim.name for claim in one.claims]
    assert json.loads(str(recorded["settings"]))["seeds"] == settings.seeds
    assert "not tested at the source's scale" in judgements[0].where
    assert one.table(recorded)
    assert len(runs.find(tmp_path, done=True)) == settings.seeds * len(one.arms(settings))
    before = (tmp_path / "recorded.npz").read_bytes()
    perform(one, settings, tmp_path)
    assert (tmp_path / "recorded.npz").read_bytes() == before
    png, *_ = gallery.draw(ROOT, name, tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000


def test_presets_are_complete_and_seeds_do_not_name_a_run():
    for path in (ROOT / "experiments").glob("*.py"):
        presets = experiment(path.stem).presets
        assert {"smoke", "cpu", "paper"} <= set(presets)
        assert all(preset.seeds >= 1 for preset in presets.values())


def _real_vs_random(real, random, fitted=1.0):
    """Recorded arrays of 5 seeds, as if measured."""
    noise = np.linspace(-0.01, 0.01, 5)
    arrays = {"levels": np.array([0.75, 0.5, 0.25]), "m": 100, "sample": 500, "c": 2.0, "scale": "nowhere", "at_source_scale": False}
    ends = {"real-sgd": (1, 0.95), "real-winsorized": (0.99, 0.95), "random-sgd": (fitted, 0.1), "random-winsorized": (0.3, 0.1)}
    for arm, (train, test) in ends.items():
        arrays[f"{arm}/train_accuracy"] = (train + noise * (train < 1))[:, None]
        arrays[f"{arm}/test_accuracy"] = (test + noise)[:, None]
        arrays[f"{arm}/at_levels"] = np.full((5, 3), real if "real" in arm else random) + noise[:, None]
    return arrays


def verdicts(name, recorded):
    return {j.claim.name: j.verdict for j in experiment(name).judgements(recorded)}


def test_the_judge_follows_the_numbers():
    as_claimed = verdicts("real_vs_random", _real_vs_random(5.0, 2.0))
    assert set(as_claimed.values()) == {"reproduced"}
    reversed_order = verdicts("real_vs_random", _real_vs_random(2.0, 5.0))
    assert [v for k, v in reversed_order.items() if k.startswith("real above random")] == ["not reproduced"] * 3
    assert verdicts("real_vs_random", _real_vs_random(5.0, 0.5))["out of nothing"] == "not reproduced"


def test_a_network_that_did_not_fit_makes_the_claims_inconclusive():
    found = verdicts("real_vs_random", _real_vs_random(5.0, 2.0, fitted=0.5))
    assert found["winsorizing prevents memorization"] == "inconclusive"
    assert found["winsorizing keeps generalization"] == "reproduced"
    diverged = _real_vs_random(5.0, 2.0)
    diverged["real-sgd/train_accuracy"] = diverged["real-sgd/train_accuracy"] * 0.1
    assert verdicts("real_vs_random", diverged)["winsorizing keeps generalization"] == "inconclusive"


def test_memorization_at_equal_fit_is_interpolated_between_measurements():
    memorized_at = load(ROOT / "experiments" / "winsorization.py").memorized_at
    pristine, corrupt = np.array([0.1, 0.5, 0.9, 0.8]), np.array([0.0, 0.1, 0.5, 0.9])
    assert memorized_at(pristine, corrupt, 0.7) == pytest.approx(0.3)
    assert memorized_at(pristine, corrupt, 0.05) == 0.0
    assert np.isnan(memorized_at(pristine, corrupt, 0.95))
