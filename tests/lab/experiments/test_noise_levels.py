"""What is claimed of noise levels and of a VAE's losses, on made-up numbers with known verdicts."""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
noise_levels = load(ROOT / "experiments" / "noise_levels.py")
EXPERIMENT = collect(noise_levels)
SPREAD = 1 + 0.01 * np.arange(5)
STEPS = np.array([0, 100, 1000])


def matrix(diagonal, neighbours, far):
    """Alpha between levels after each of three steps, five seeds: [seed, step, level, level]."""
    n = len(diagonal)
    made = np.full((n, n), float(far))
    for i in range(n - 1):
        made[i, i + 1] = made[i + 1, i] = neighbours
    np.fill_diagonal(made, diagonal)
    return np.tile(SPREAD[:, None, None, None] * made, (1, 3, 1, 1))


def curves(*values):
    return np.tile(SPREAD[:, None, None] * np.array(values), (1, 3, 1))


RISING = (0.01, 0.012, 0.015, 0.05, 0.1)  # alpha by level
USUAL = {
    "pixels": {"diagonal": RISING, "seen": (0.9, 0.5, 0.3, 0.2, 0.1)},
    "real": {"diagonal": RISING, "seen": (0.5, 0.35, 0.25, 0.19, 0.1)},
    "shuffled": {"diagonal": RISING, "seen": (0.3, 0.25, 0.2, 0.18, 0.1), "coherence": 3},
}
UNSEEN = (1.0, 0.5, 0.3, 0.2, 0.1)


def arm(diagonal, seen, neighbours=0.01, far=0.001, coherence=9):
    return {
        "step": STEPS,
        "train/alpha_between": matrix(diagonal, neighbours, far),
        "train/loss_by_group": curves(*seen),
        "unseen/loss_by_group": curves(*UNSEEN),
        "train/m_coherence": coherence * SPREAD[:, None] * np.ones(3),
    }


def distances(copied):
    """Of 20 samples, of which a share is copied; one more by every second seed, if any is."""
    shares = copied + 0.05 * (np.arange(5) % 2) * (copied > 0)
    nearest = np.where(np.arange(20) < 20 * shares[:, None], 0.1, 0.9)
    return np.stack([nearest, np.ones((5, 20))], -1)


def recorded(copied=(0.0, 0.4), losses=(0.5, 0.1, -0.4), **changes):
    arrays = {"images": np.array([200, 50])}
    for name, usual in USUAL.items():
        made = arm(**usual | changes.get(name, {}))
        arrays |= {f"{name}/{key}": values for key, values in made.items()}
    between = matrix((1, 1, 1, 1), 0, 0)
    for i, value in enumerate(losses, 1):
        between[..., 0, i] = between[..., i, 0] = value * SPREAD[:, None]
    arrays |= {"vae/step": STEPS, "vae/train/alpha_between": between}
    arrays |= {"vae/train/loss_by_group": curves(1, 1, 1, 1)}
    for name, share in zip(("real", "shuffled"), copied):
        arrays[f"{name}/distances"] = distances(share)
    return {**arrays, "scale": "nowhere", "at_source_scale": False}


def verdicts(arrays):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(arrays)}


def test_levels_and_losses_that_do_what_is_said_reproduce_every_claim():
    judged = verdicts(recorded())
    # Equal rank correlations have no interval, so that one is judged by its value alone.
    assert judged.pop("memorized where coherence is low") in ("reproduced", "inconclusive")
    assert set(judged.values()) == {"reproduced"}


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"pixels": {"diagonal": RISING[::-1]}}, {"most noise, most coherent"}),
        ({"real": {"far": 0.05}}, {"near levels agree more than far ones"}),
        ({"real": {"coherence": 2}}, {"real images are more coherent"}),
        ({"copied": (0.9, 0.4)}, {"shuffled images are copied"}),
        ({"losses": (0.5, 0.1, 0.4)}, {"KL pulls against the squared error"}),
        (
            {"losses": (-0.5, 0.1, -0.4)},
            {"features agree with the squared error", "the discriminator agrees less"},
        ),
    ],
)
def test_a_claim_that_the_numbers_contradict_is_not_reproduced(changes, failing):
    judged = verdicts(recorded(**changes))
    assert {name for name, verdict in judged.items() if verdict == "not reproduced"} == failing


def test_where_nothing_was_memorized_nothing_is_said_of_copies():
    assert verdicts(recorded(copied=(0.0, 0.0)))["shuffled images are copied"] == "inconclusive"


def test_a_copy_is_three_times_nearer_to_one_image_than_to_the_second():
    arrays = {"x/distances": np.array([[[0.3, 1.0], [0.34, 1.0], [0.0, 2.0], [1.0, 1.0]]])}
    assert noise_levels.copies(arrays, "x").tolist() == [0.5]


def test_the_gap_is_the_share_of_the_unseen_images_loss_that_is_gone_on_seen_ones():
    np.testing.assert_allclose(
        noise_levels.gap(recorded(), "real")[0], [0.5, 0.3, 1 / 6, 0.05, 0], atol=1e-9
    )
    assert noise_levels.by_level(recorded(), "real")[0] == pytest.approx(50 * np.array(RISING))


def test_the_table_is_made_of_what_is_recorded():
    assert "dense, shuffled" in EXPERIMENT.table(recorded())


@pytest.mark.slow  # a U-Net and an autoencoder are compiled, with probes
def test_the_smoke_preset_trains_and_draws(tmp_path):
    arrays = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    names = {claim.name for claim in EXPERIMENT.claims}
    assert {j.claim.name for j in EXPERIMENT.judgements(arrays)} == names
    png, *_ = gallery.draw(ROOT, "noise_levels", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000
