"""Distances, bounds and packed pictures on cases with known answers.

The judge on numbers whose verdict is known.
"""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
digit_vaes = load(ROOT / "experiments" / "digit_vaes.py")
figure = load(ROOT / "paper_figures" / "digit_vaes.py")
EXPERIMENT = collect(digit_vaes)
BETAS = np.array([1.0, 0.1, 10.0])  # in no order
SEEDS = 5


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def learned(
    *,
    recognized=0.9,
    elbo=(-105.0, -104.0),
    tight=(-100.0, -98.5),
    codes=(0.9, 0.5),
    kl=(20.0, 40.0, 5.0),
    error=(80.0, 70.0, 150.0),
    far=(4.4, 5.0, 4.6),
    midway=(4.3, 5.0),
    recognizer=0.96,
    independent=200.0,
):
    """Recorded arrays of 5 seeds, as if measured.

    By beta in the order of BETAS, by kind not told first.
    """
    jitter = 1e-3 * np.arange(SEEDS)
    over = lambda *values: np.add.outer(jitter, np.array(values))
    between = np.full((SEEDS, 2, len(digit_vaes.ALONG)), 4.0)
    between[:, :, len(digit_vaes.ALONG) // 2] = over(*midway)
    return {
        "betas": BETAS,
        "draws": np.array(50),
        "recognizer": np.array(recognizer),
        "independent": np.array(independent),
        "recognized": np.repeat(over(recognized), 10, 1),
        "elbo": over(*elbo) * [1, 1.00001],
        "bounds": np.stack([over(*elbo), over(*tight) * [1, 1.00001]], -1),
        "code_accuracy": over(*codes) * [1, 1.01],
        "test_kl": over(*kl),
        "test_reconstruction": over(*error) * [1, 1.00001, 1.00002],
        "active": np.full((SEEDS, 3), 10.0),
        "far": np.stack([over(*far) * [1, 1.0001, 1], np.full((SEEDS, 3), 4.0)], -1),
        "m_coherence": np.ones((SEEDS, 3, 2)),
        "between": between * np.array([1, 1.0001])[:, None],
        "scale": "nowhere",
        "at_source_scale": False,
    }


def test_numbers_as_claimed_reproduce_every_claim():
    found = verdicts(learned())
    assert found.keys() == {claim.name for claim in EXPERIMENT.claims}
    assert set(found.values()) == {"reproduced"}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"recognized": 0.7}, "the digit asked for is drawn"),
        ({"elbo": (-105.0, -105.5)}, "the label improves the bound"),
        ({"tight": (-100.0, -97.0)}, "the label tells at most ln 10"),
        ({"codes": (0.9, 0.8)}, "told the label, codes say less of it"),
        ({"kl": (20.0, 40.0, 21.0)}, "KL falls with beta"),
        ({"error": (80.0, 81.0, 150.0)}, "reconstruction suffers with beta"),
        ({"error": (80.0, 70.0, 90.0)}, "beta 1 has the best bound"),
        ({"far": (4.4, 4.3, 4.6)}, "small beta leaves holes"),
        ({"midway": (5.0, 4.3)}, "latent ways stay near digits"),
    ],
)
def test_a_claim_that_the_numbers_contradict_is_not_reproduced(change, failing):
    found = verdicts(learned(**change))
    assert {name for name, verdict in found.items() if verdict != "reproduced"} == {failing}
    assert found[failing] == "not reproduced"


def test_networks_that_learned_nothing_decide_nothing():
    judged = EXPERIMENT.judgements(learned(independent=150.0))
    assert {j.verdict for j in judged} == {"inconclusive"}
    assert {j.reason for j in judged} == {"a network did not learn: 105 nats, 100 asked for"}


def test_a_poor_classifier_decides_nothing_about_samples():
    found = {j.claim.name: j for j in EXPERIMENT.judgements(learned(recognizer=0.9))}
    undecided = [one for one in found.values() if one.verdict != "reproduced"]
    assert [(one.claim.name, one.reason) for one in undecided] == [
        ("the digit asked for is drawn", "the classifier is right on 0.90 < 0.95")
    ]


def test_without_other_betas_nothing_is_said_of_beta():
    recorded = learned()
    one = {
        name: recorded[name][:, :1]
        for name in ("test_kl", "test_reconstruction", "active", "far", "m_coherence")
    }
    found = verdicts(recorded | one | {"betas": BETAS[:1]})
    assert len(found) == len(EXPERIMENT.claims) - 4
    assert not any("beta" in name for name in found)


def test_the_first_arm_has_beta_1_and_the_others_differ_from_it_in_one_thing():
    import dataclasses

    arms = EXPERIMENT.arms(EXPERIMENT.presets["cpu"])
    first, *_ = arms.values()
    assert next(iter(arms)) == "beta=1"
    for beta in (0.1, 3.0):
        assert arms[f"beta={beta:g}"].factor == pytest.approx(1 / beta)
        assert dataclasses.replace(arms[f"beta={beta:g}"], factor=1.0) == first
    for arm in ("conditional", "plane"):
        assert dataclasses.replace(arms[arm], model=first.model) == first
    assert (arms["conditional"].model.width, arms["conditional"].model.latents) == (
        first.model.width,
        first.model.latents,
    )


def test_a_way_begins_at_the_one_end_ends_at_the_other_and_is_half_of_each_midway():
    a, b = np.arange(6.0).reshape(3, 2), np.ones((3, 2))
    way = digit_vaes.mixtures(a, b).reshape(len(digit_vaes.ALONG), 3, 2)
    assert way[0] == pytest.approx(a)
    assert way[-1] == pytest.approx(b)
    assert way[len(way) // 2] == pytest.approx((a + b) / 2)


def test_pixels_that_are_white_every_other_time_cost_ln_2_each():
    train = np.repeat([[0.0], [1.0]], 5, 1)
    assert digit_vaes.independent_pixels(train, train) == pytest.approx(5 * np.log(2))


class Line:
    """z, one number, is the logit of the single pixel.

    The code's distribution is N(1, 1/4), whatever the image.
    """

    def apply(self, params, x, method):
        import jax.numpy as jnp

        return (jnp.ones(1), jnp.full(1, np.log(0.25))) if method == "encode" else x


def test_bounds_are_those_of_the_exact_probability():
    import jax

    z = np.linspace(-12, 12, 20_001)
    prior = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    coded = np.exp(-((z - 1) ** 2) * 2) * 2 / np.sqrt(2 * np.pi)
    white = 1 / (1 + np.exp(-z))
    exact = np.log(np.trapezoid(white * prior, z))
    elbo = np.trapezoid(coded * np.log(white * prior / coded), z)
    single, many = digit_vaes.bounds(Line(), 20_000)(
        {}, (np.ones(1), np.array([True]), jax.random.key(0))
    )
    assert single == pytest.approx(elbo, abs=0.02)
    assert many == pytest.approx(exact, abs=0.1)  # its weights have heavy tails
    assert many > single + 0.3


def test_pictures_are_the_same_in_16_grey_levels_after_packing():
    pictures = np.random.default_rng(0).random((4, 3, 5, 6))
    unpacked = figure.images(digit_vaes.packed("some", pictures), "some")
    assert unpacked.dtype == np.uint8
    assert unpacked.shape == pictures.shape
    assert len(np.unique(unpacked)) == 16
    assert np.abs(unpacked / 255 - pictures).max() <= 0.5 / 15 + 1e-6


def test_tiles_stand_in_their_rows_and_columns():
    pictures = np.arange(1, 7, dtype=np.uint8).reshape(2, 3, 1, 1)
    assert figure.tiles(pictures, gap=0).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert figure.tiles(pictures, gap=1)[1::2, 1::2].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert figure.tiles(pictures, gap=1).shape == (5, 7)
    assert figure.enlarged(figure.tiles(pictures, gap=0), 2).shape == (4, 6)


@pytest.mark.slow
def test_the_smoke_preset_learns_draws_and_moves(tmp_path):
    recorded = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    assert [j.claim.name for j in EXPERIMENT.judgements(recorded)] == [
        claim.name for claim in EXPERIMENT.claims
    ]
    assert "label read off codes" in EXPERIMENT.table(recorded)
    assert (recorded["bounds"][..., 1] > recorded["bounds"][..., 0]).all()
    assert np.isfinite(recorded["m_coherence"]).all()
    files = gallery.draw(ROOT, "digit_vaes", tmp_path / "recorded.npz", tmp_path)
    png, gif = files[0], next(file for file in files if file.suffix == ".gif")
    assert png.stat().st_size > 20_000
    from PIL import Image

    with Image.open(gif) as film:
        assert film.n_frames > digit_vaes.FRAMES / 2  # equal neighbours are joined
