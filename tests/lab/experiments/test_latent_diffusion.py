"""What is claimed of diffusion in a latent space, on made-up numbers whose verdicts are known."""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
latent = load(ROOT / "experiments" / "latent_diffusion.py")
EXPERIMENT = collect(latent)
SPREAD = 1 + 0.01 * np.arange(5)[:, None]


def arm(frechet=(40, 2, 3, 1), score=(3, 7, 9, 8), sharpness=0.8):
    """Numbers of one VAE, five seeds: by prior, diffusion, guided and reconstructions."""
    others = {name: np.ones(4) * SPREAD for name in latent.MEASURES}
    return {
        **others,
        "frechet": np.array(frechet) * SPREAD,
        "score": np.array(score) * SPREAD,
        "recognized": np.array([0.9, 0.97]) * np.ones((5, 1)),
        "sharpness": sharpness * SPREAD[:, 0],
        "error": SPREAD[:, 0],
        "by_steps": np.linspace(50, 2, len(latent.STEPS)) * SPREAD,
        "smoothed": np.linspace(1, 0.2, 30) * SPREAD,
        "pictures": np.zeros((4, latent.SHOWN, 8, 8), np.uint8),
    }


def recorded(near=(0.0, 0.2, 0.5, 0.7, 0.9, 0.92, 0.92), **changes):
    worse = {"frechet": (40, 4, 4, 2), "score": (5, 7, 8, 8)}
    arms = {"all": {}, **dict.fromkeys(latent.ABLATIONS, worse), "neither": {"sharpness": 0.5}}
    arrays = {"steps": np.array(latent.STEPS), "ring/near": np.array(near) * SPREAD}
    arrays["ring/points"] = np.random.default_rng(0).normal(size=(len(latent.STEPS), 300, 2))
    for name, usual in arms.items():
        made = arm(**usual | changes.get(name.replace(" ", "_"), {}))
        arrays |= {f"{name}/{key}": value for key, value in made.items()}
    return {**arrays, "scale": "nowhere", "at_source_scale": False}


def verdicts(arrays):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(arrays)}


def test_diffusion_that_does_what_is_said_reproduces_every_claim():
    assert verdicts(recorded()) == {claim.name: "reproduced" for claim in EXPERIMENT.claims}


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        (
            {"all": {"score": (7, 7, 9, 8)}},
            {"the VAE alone draws badly", "weak KL suits diffusion"},
        ),
        ({"all": {"frechet": (3, 2, 3, 1)}}, {"diffusion brings the VAE's samples nearer"}),
        ({"all": {"frechet": (40, 2, 3, 3)}}, {"no better than reconstructions"}),
        ({"strong_KL": {"score": (2, 7, 8, 8)}}, {"weak KL suits diffusion"}),
        (
            {"without_spatial": {"frechet": (40, 1, 1, 1)}},
            {"diffusion needs it: without spatial"},
        ),
        ({"neither": {"sharpness": 0.95}}, {"both terms sharpen"}),
        ({"near": (0.5, 0.6, 0.6, 0.7, 0.8, 0.8, 0.8)}, {"20 steps instead of 1"}),
        ({"near": (0.0, 0.2, 0.3, 0.4, 0.6, 0.8, 0.8)}, {"50 steps add little to 20"}),
    ],
)
def test_a_claim_that_the_numbers_contradict_is_not_reproduced(changes, failing):
    judged = verdicts(recorded(**changes))
    assert {name for name, verdict in judged.items() if verdict == "not reproduced"} == failing


def test_the_largest_rise_is_above_the_lowest_before():
    curves = np.array([[4.0, 2.0, 3.0, 0.0], [4.0, 3.0, 1.0, 0.0]])
    np.testing.assert_allclose(latent.largest_rise(curves), [0.25, 0])


def test_high_frequencies_are_those_beyond_a_quarter_of_a_cycle_a_pixel():
    x = np.mgrid[:8, :8][1]
    wave = lambda cycles: np.cos(2 * np.pi * cycles * x / 8)[None]
    assert latent.high_frequencies(wave(2)) == pytest.approx(0, abs=1e-9)
    assert latent.high_frequencies(wave(3)) == pytest.approx(np.square(wave(3)).sum() * 64)
    assert latent.smoothed(np.arange(50.0))[0] == 2


def test_the_table_is_made_of_what_is_recorded():
    assert "without adversarial" in EXPERIMENT.table(recorded())


@pytest.mark.slow  # six autoencoders are compiled
def test_the_smoke_preset_trains_and_draws(tmp_path):
    arrays = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    assert {j.claim.name for j in EXPERIMENT.judgements(arrays)} == {
        claim.name for claim in EXPERIMENT.claims
    }
    png, *_ = gallery.draw(ROOT, "latent_diffusion", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000
