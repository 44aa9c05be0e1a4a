"""The judge of attribution methods on made-up arrays; the smoke preset."""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform

ROOT = Path(__file__).resolve().parents[3]
attribution = load(ROOT / "experiments" / "attribution.py")
EXPERIMENT = collect(attribution)


def made_up(good, seeds=5):
    """Scores in which influence, GradCos and averages win, or lose."""
    better = 0.1 if good else -0.1
    scores = 0.3 + 1e-4 * np.random.default_rng(0).normal(size=(seeds, 2, len(attribution.METHODS)))
    winners = {"GradCos": 1, "damped influence, 0.01": 1, "K-FAC influence, 0.01": 2}
    for name, times in winners.items():
        scores[..., attribution.METHODS.index(name)] += times * better
    scores[:, 1] += better
    return {
        "datamodel": scores,
        "methods": np.array(attribution.METHODS),
        "whole": 3,
        "scale": np.array("made up"),
        "at_source_scale": False,
    }


@pytest.mark.parametrize(("good", "verdict"), [(True, "reproduced"), (False, "not reproduced")])
def test_the_judge_can_come_out_either_way(good, verdict):
    verdicts = {j.claim.name: j.verdict for j in EXPERIMENT.judgements(made_up(good))}
    assert len(verdicts) == len(EXPERIMENT.claims) == 5
    assert set(verdicts.values()) == {verdict}


@pytest.mark.slow
def test_the_smoke_preset_runs_and_is_tabulated(tmp_path):
    recorded = perform(EXPERIMENT, attribution.PRESETS["smoke"], tmp_path)
    assert recorded["datamodel"].shape == (2, 2, len(attribution.METHODS))
    assert np.isfinite(recorded["datamodel"]).all()
    assert "K-FAC influence, 0.01" in attribution.table(recorded)
