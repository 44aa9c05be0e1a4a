"""Robust generative models: copying of known sets, and the judge on curves with known verdicts."""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform

ROOT = Path(__file__).resolve().parents[3]
robust = load(ROOT / "experiments" / "robust_generative.py")
EXPERIMENT = collect(robust)
SEEDS = 5
QUALITY = np.array([64.0, 16.0, 4.0])  # Frechet distance, halved twice in two measurements


def measured(*, slope=0.5, kept=0.3, worse=1.0):
    """As if measured at three steps: copying grows by `slope` in each while quality gets better.

    A robust model copies `kept` of that; its Frechet distances are `worse` times as large.
    """
    jitter = 1 + 1e-3 * np.arange(SEEDS)[:, None]
    arrays = {}
    for model in robust.CLAIMS:
        for kind in robust.AGGREGATORS:
            plain = kind == "mean"
            arm = f"{model}, {kind}"
            copies = slope * np.arange(3) * (1 if plain else kept)
            arrays[f"{arm}/copying"] = copies * jitter
            arrays[f"{arm}/frechet"] = QUALITY * (1 if plain else worse) * jitter
            arrays[f"{arm}/step"] = np.array([10, 20, 40])
    return {**arrays, "scale": "made up", "at_source_scale": False}


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def test_models_that_copy_less_and_draw_as_well_reproduce_every_claim():
    assert verdicts(measured()) == {claim.name: "reproduced" for claim in EXPERIMENT.claims}


def test_copying_is_compared_where_both_first_draw_equally_well():
    recorded = measured(slope=1.0, kept=1.0, worse=2.0)
    plain, other = robust.at_equal_quality(recorded, "VAE", "M3")
    # The worse one ends at 8, which the plain one passes two thirds of the way from 16 to 4.
    assert plain == pytest.approx(1 + 2 / 3, rel=0.01)
    assert other == pytest.approx(2, rel=0.01)


def test_a_slower_model_that_copies_as_much_at_equal_quality_fails():
    decided = verdicts(measured(kept=1.5))
    assert decided["a robust VAE copies less"] == "not reproduced"
    assert decided["trained equally long, robust models copy less"] == "not reproduced"
    assert verdicts(measured(worse=4.0))["robust models draw as well"] == "not reproduced"


def test_where_the_plain_model_copies_nothing_there_is_nothing_to_prevent():
    reasons = {j.claim.name: j.reason for j in EXPERIMENT.judgements(measured(slope=0.01))}
    assert "copies nothing there" in reasons["a robust GAN copies less"]


def test_copying_of_known_sets():
    rng = np.random.default_rng(0)
    training, unseen = rng.normal(size=(2, 400, 2))
    assert robust.copying(training + 1e-3, training, unseen) > 4
    assert robust.copying(unseen + 1e-3, training, unseen) < -4
    assert abs(robust.copying(rng.normal(size=(4000, 2)), training, unseen)) < 0.2
    assert robust.copying(training, training, unseen) == pytest.approx(np.log2(1e6))


@pytest.mark.slow
def test_the_smoke_preset_runs_and_is_drawn(tmp_path):
    recorded = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    assert recorded["diffusion, M3/shown"].shape == (10, 8, 8)
    assert "at equal quality" in EXPERIMENT.table(recorded)
    figure = load(ROOT / "paper_figures" / "robust_generative.py").draw(recorded)
    assert len(figure.axes) == 8
