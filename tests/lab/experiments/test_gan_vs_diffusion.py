"""A GAN against diffusion: the judge on numbers whose verdict is known, and what it reads."""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform

ROOT = Path(__file__).resolve().parents[3]
versus = load(ROOT / "experiments" / "gan_vs_diffusion.py")
EXPERIMENT = collect(versus)
SEEDS = 5
JITTER = 1 + 1e-3 * np.array([0.3, -0.5, 0.9, 0.1, -0.7])


def measured(
    *,
    recognized=(0.97, 0.95),
    seconds=(1e-3, 0.1),
    many=(4.0, 2.0),
    few=(8.0, 20.0),
    modes=(7, 8),
    spread=50.0,
    unsteady=(0.9, 0.02),
):
    """Recorded arrays of five seeds, as if measured; of diffusion 20 steps are the second."""
    arrays = {"drawing_steps": np.array([1, 20]), "scale": "made up", "at_source_scale": False}

    def put(name, gan, diffusion, wider=1.0):
        arrays[f"GAN, {name}"] = (gan * JITTER**wider)[:, None]
        arrays[f"diffusion, {name}"] = np.outer(JITTER, [99.0 * diffusion, diffusion])

    put("many/frechet", *many, wider=spread)
    put("few/frechet", *few)
    put("ring/modes", *modes)
    put("ring/near", 0.8, 0.9)
    for size in versus.SIZES:
        put(f"{size}/recognized", *recognized)
        put(f"{size}/seconds", *seconds)
        for name in ("coverage", "density", "to_training", "floor"):
            put(f"{size}/{name}", 1.0, 1.0)
    for model, share in zip(versus.MODELS, unsteady):
        arrays[f"{model}, many/unsteady"] = share * JITTER
    return arrays


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def test_what_is_claimed_is_reproduced_where_it_holds():
    assert set(verdicts(measured()).values()) == {"reproduced"}
    assert "diffusion, few" in EXPERIMENT.table(measured())


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("both draw the digit asked for", {"recognized": (0.97, 0.8)}),
        ("a GAN draws in a fraction of the time", {"seconds": (0.1, 0.2)}),
        ("diffusion draws better", {"many": (2.0, 4.0)}),
        ("with a hundred images the GAN draws better", {"few": (20.0, 8.0)}),
        ("diffusion covers more modes", {"modes": (8, 7)}),
        ("a GAN's quality depends more on the seed", {"spread": 0.01}),
        ("diffusion converges steadily", {"unsteady": (0.9, 0.5)}),
        ("a GAN's loss does not fall", {"unsteady": (0.1, 0.02)}),
    ],
)
def test_each_claim_can_fail(claim, changes):
    assert verdicts(measured(**changes))[claim] == "not reproduced"


def test_a_loss_is_as_unsteady_as_it_rises():
    falling = np.linspace(2, 1, 500)
    assert versus.unsteady(falling) == 0
    assert versus.unsteady(falling[::-1]) == pytest.approx(1)
    halfway = np.concatenate([np.linspace(2, 1, 500), np.linspace(1, 1.5, 500)])
    assert versus.unsteady(halfway) == pytest.approx(0.5, abs=0.1)


@pytest.mark.slow
def test_the_smoke_preset_runs_and_is_drawn(tmp_path):
    recorded = perform(EXPERIMENT, versus.PRESETS["smoke"], tmp_path)
    assert recorded["diffusion, many/images"].shape == (10, 3, 8, 8)
    assert len(load(ROOT / "paper_figures" / "gan_vs_diffusion.py").draw(recorded).axes) == 6
