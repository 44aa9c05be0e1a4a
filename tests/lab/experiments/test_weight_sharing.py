"""The judge of shared weights on curves whose verdict is known."""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
weight_sharing = load(ROOT / "experiments" / "weight_sharing.py")
EXPERIMENT = collect(weight_sharing)
LAYERS = ("conv_0", "conv_1", "conv_2", "dense_0", "dense_1", "output")
JITTER = 1 + 0.01 * np.arange(5)  # by seed
LOSS = np.array([1.0, 0.7, 0.4, 0.2, 0.01])
AS_CLAIMED = {  # m-coherence of convolutions and of dense layers
    "shared,true": (24.0, 12.0),
    "shared,random": (20.0, 3.0),
    "local,true": (10.0, 12.0),
    "local,random": (4.0, 3.0),
}


def measured(*, fitted=1.0, whole=15.0, **changed):
    """Recorded arrays of 5 seeds."""
    arrays = {
        "levels": np.array(weight_sharing.LEVELS),
        "m": 250,
        "arms": np.array(list(AS_CLAIMED)),
        "layers": np.array(LAYERS),
        "scale": "nowhere",
        "at_source_scale": False,
    }
    for k, (arm, values) in enumerate(AS_CLAIMED.items()):
        convolution, dense = changed.get(arm.replace(",", "_"), values)
        each = np.array([convolution] * 3 + [dense] * 3)
        noise = np.roll(JITTER, k)[:, None, None]
        curves = {
            "train_loss": np.tile(LOSS, (5, 1)),
            "train_accuracy": np.full((5, 5), fitted),
            "test_accuracy": np.full((5, 5), 0.2),
            "m_coherence": np.full((5, 5), whole) * noise[:, 0],
            "by_layer": np.tile(each, (5, 5, 1)) * noise,
        }
        arrays |= {f"{arm}/{name}": values for name, values in curves.items()}
    return arrays


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def test_networks_that_do_as_the_source_says_reproduce_every_claim():
    assert set(verdicts(measured()).values()) == {"reproduced"}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"whole": 3.0}, {"random labels look coherent"}),
        ({"shared_true": (24.0, 2.0)}, {"dense layers tell true from random"}),
        ({"shared_true": (300.0, 4.0)}, {"convolutions tell them apart less"}),
        ({"shared_random": (3.0, 6.0)}, {"convolutions above dense layers on random labels"}),
        ({"local_random": (30.0, 3.0)}, {"weight sharing is why"}),
        ({"local_true": (3.0, 12.0)}, {"locally connected layers tell true from random"}),
    ],
)
def test_a_claim_that_the_numbers_contradict_is_not_reproduced(change, failing):
    found = verdicts(measured(**change))
    assert {name for name in failing if found[name] == "not reproduced"} == failing


def test_nothing_is_tested_where_labels_were_not_fitted():
    judged = EXPERIMENT.judgements(measured(fitted=0.9))
    assert {j.reason for j in judged} == {"labels fitted at the end 0.90 < 0.95"}


def test_values_are_read_at_levels_of_the_loss():
    recorded = measured()
    recorded["shared,true/m_coherence"] = np.tile(LOSS, (5, 1))
    found = weight_sharing.in_the_middle(recorded, "shared,true", "m_coherence")
    assert found == pytest.approx(np.full(5, np.mean(weight_sharing.LEVELS)))


def test_sharing_is_all_that_differs_besides_the_steps():
    arms = weight_sharing.arms(weight_sharing.PRESETS["cpu"])
    for label in ("true", "random"):
        shared, local = (arms[f"{net},{label}"] for net in ("shared", "local"))
        assert shared.model.shared
        assert not local.model.shared
        assert shared.noise == local.noise
        assert shared.optimizer == local.optimizer


@pytest.mark.slow
def test_the_smoke_preset_trains_every_arm_and_draws(tmp_path):
    recorded = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    assert list(recorded["layers"]) == list(LAYERS)
    assert "shared,random" in EXPERIMENT.table(recorded)
    png, *_ = gallery.draw(ROOT, "weight_sharing", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000
