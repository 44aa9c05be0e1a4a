"""Masks of the largest weights, and the judges of tickets and of few examples on made-up arrays."""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
TICKET = load(ROOT / "experiments" / "lottery_ticket.py")
FEW = load(ROOT / "experiments" / "few_examples.py")
NOISE = np.linspace(-0.001, 0.001, 5)


def tickets(winning=4.0, better=0.1, kept=0.0, rise=1.0, own=0.5):
    """Recorded arrays of 5 seeds; as given, and the best random mask rising by width."""
    arrays = {"widths": np.array([16, 64, 256])}
    for i, w in enumerate(arrays["widths"]):
        mean = 2.0 ** (rise * i * (1 - own))
        spread = 2.0 ** (2 + rise * own * i)
        arrays |= {
            f"width={w}/winning": winning * mean * np.exp(NOISE),
            f"width={w}/random": mean * np.stack([np.ones(5) / spread, np.ones(5) * spread], 1),
            f"width={w}/whole_accuracy": np.full((5, 2), 0.95),
            f"width={w}/winning_accuracy": np.full((5, 2), 0.95) + kept + NOISE[:, None],
            f"width={w}/random_accuracy": np.full((5, 3, 2), 0.95 + kept - better),
        }
    return arrays | {"scale": "nowhere", "at_source_scale": False}


def few(alpha=(-0.02, 0.0, 0.01), gap=(1.0, 0.5, 0.1)):
    """Recorded arrays of 5 seeds: values at the level, by number of examples."""
    arrays = {"examples": np.array([20, 100, 500])}
    for n, a, g in zip(arrays["examples"], alpha, gap):
        ones = np.ones((5, 3))
        arrays |= {
            f"n={n}/loss": ones * [2.0, FEW.LEVEL, 1.0],
            f"n={n}/alpha": ones * [0.5, a, 0.5],
            f"n={n}/test_loss": ones * [2.0, FEW.LEVEL + g, 1.0],
        }
    return arrays | {"scale": "nowhere", "at_source_scale": False}


def verdicts(module, arrays):
    return {j.claim.name: j.verdict for j in collect(module).judgements(arrays)}


@pytest.mark.parametrize(("module", "arrays"), [(TICKET, tickets()), (FEW, few())])
def test_what_is_as_claimed_reproduces_every_claim(module, arrays):
    found = verdicts(module, arrays)
    assert found.keys() == {claim.name for claim in collect(module).claims}
    assert set(found.values()) == {"reproduced"}


@pytest.mark.parametrize(
    ("module", "arrays", "failing"),
    [
        (TICKET, tickets(winning=0.5), {"winning tickets are coherent from the start"}),
        (TICKET, tickets(better=-0.1), {"winning tickets learn"}),
        (TICKET, tickets(kept=-0.1), {"winning tickets keep the accuracy"}),
        (TICKET, tickets(own=-0.5), {"beyond the network's own coherence"}),
        (
            FEW,
            few(alpha=(0.01, 0.0, -0.02)),
            {"more examples agree more", "agreement goes with the gap"},
        ),
        (
            FEW,
            few(gap=(0.1, 0.5, 1.0)),
            {"more examples generalize better", "agreement goes with the gap"},
        ),
    ],
)
def test_a_claim_that_numbers_contradict_is_not_reproduced(module, arrays, failing):
    found = verdicts(module, arrays)
    assert {name for name, verdict in found.items() if verdict == "not reproduced"} == failing


def test_a_mask_keeps_the_largest_in_size():
    kernel = np.array([[1.0, -5.0, 0.1], [3.0, 0.0, -2.0]])
    np.testing.assert_array_equal(TICKET.largest(kernel, 0.5), [[0, 1, 0], [1, 0, 1]])
    ties = TICKET.largest(np.ones((4, 5)), 0.2)
    assert ties.sum() == 4


@pytest.mark.slow
@pytest.mark.parametrize("module", [TICKET, FEW], ids=["lottery_ticket", "few_examples"])
def test_the_smoke_preset_runs_judges_and_draws(module, tmp_path):
    experiment = collect(module)
    arrays = perform(experiment, experiment.presets["smoke"], tmp_path)
    names = {j.claim.name for j in experiment.judgements(arrays)}
    assert names == {claim.name for claim in experiment.claims}
    assert experiment.table(arrays)
    png, *_ = gallery.draw(ROOT, experiment.name, tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 10_000
