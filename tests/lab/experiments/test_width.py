"""The judge on numbers whose verdict is known, the most coherent layer, and the arms."""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
width = load(ROOT / "experiments" / "width.py")
EXPERIMENT = collect(width)
WIDTHS = np.array([32, 128, 512])
JITTER = 1 + 0.002 * np.arange(5)[:, None]


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def learned(
    *,
    accuracy=(0.8, 0.85, 0.9),
    early=(2.0, 3.0, 4.0),
    late=(1.2, 1.4, 1.6),
    layer=(3.0, 4.0, 5.0),
    mu=1.0,
):
    """Recorded arrays of 5 seeds as if measured.

    `mu`: what the differences between widths are times in that parametrization.
    """
    recorded = {"widths": WIDTHS, "levels": np.array(width.LEVELS), "m": 100, "sample": 500}
    for how, factor in (("standard", 1.0), ("mu", mu)):
        for w, *values in zip(
            WIDTHS,
            *(
                np.array(v[0]) + factor * (np.array(v) - v[0])
                for v in (accuracy, early, late, layer)
            ),
        ):
            test, high, low, most = values
            coherence = np.where(np.array(width.LEVELS) >= width.EARLY, high, low)
            recorded |= {
                f"{how}-{w}/test_accuracy": test * JITTER * np.ones(len(width.LEVELS)),
                f"{how}-{w}/m_coherence": coherence * JITTER[::-1],
                f"{how}-{w}/most_coherent_layer": most * JITTER * np.ones(len(width.LEVELS)),
                f"{how}-{w}/parameters": 1000,
            }
    return recorded | {"scale": "nowhere", "at_source_scale": False}


def test_numbers_as_claimed_reproduce_every_claim():
    assert set(verdicts(learned()).values()) == {"reproduced"}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"accuracy": (0.9, 0.85, 0.8)}, {"wider generalizes better"}),
        ({"early": (4.0, 3.0, 2.0)}, {"wider is more coherent at 1.5"}),
        ({"late": (1.6, 1.4, 1.2)}, {"wider is more coherent at 0.65"}),
        (
            {"layer": (5.0, 4.0, 3.0)},
            {f"wider is more coherent at {x} in its most coherent layer" for x in ("1.5", "0.65")},
        ),
    ],
)
def test_a_claim_that_the_numbers_contradict_is_not_reproduced(change, failing):
    found = verdicts(learned(**change))
    assert {
        name.rpartition(",")[0] for name, verdict in found.items() if verdict == "not reproduced"
    } == failing
    assert list(found.values()).count("reproduced") == 2 * (5 - len(failing))


def test_each_parametrization_is_judged_by_itself():
    found = verdicts(learned(mu=-0.5))
    assert {
        verdict for name, verdict in found.items() if name.endswith("standard parametrization")
    } == {"reproduced"}
    assert {verdict for name, verdict in found.items() if name.endswith("maximal update")} == {
        "not reproduced"
    }


def test_a_loss_that_one_seed_never_reaches_decides_nothing():
    recorded = learned()
    recorded["mu-32/test_accuracy"][2, width.LEVELS.index(width.FITTED)] = np.nan
    assert {name for name, verdict in verdicts(recorded).items() if verdict == "inconclusive"} == {
        "wider generalizes better, maximal update"
    }


def test_the_most_coherent_layer_is_that_of_the_other_seeds():
    """A layer that is first by noise in one seed is not taken there."""
    by_layer = np.array([[2.0, 1.0], [2.0, 1.0], [2.0, 9.0]])
    assert width.most_coherent(by_layer).tolist() == [1.0, 1.0, 2.0]


def test_both_parametrizations_start_from_one_network_at_the_base_width():
    arms = EXPERIMENT.arms(EXPERIMENT.presets["cpu"])
    assert len(arms) == 2 * len(EXPERIMENT.presets["cpu"].widths)
    bases = {
        how: arms[f"{how}-{EXPERIMENT.presets['cpu'].base_width}"].model
        for how in ("standard", "mu")
    }
    assert bases["mu"].width == bases["mu"].base_width
    assert {arm.optimizer for arm in arms.values()} == {width.RUN.optimizer}  # one rate for all


@pytest.mark.slow
def test_the_smoke_preset_trains_every_width_and_draws(tmp_path):
    recorded = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    assert [j.claim.name for j in EXPERIMENT.judgements(recorded)] == [
        claim.name for claim in EXPERIMENT.claims
    ]
    assert "parameters" in EXPERIMENT.table(recorded)
    png, *_ = gallery.draw(ROOT, "width", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000
