"""GANs: the judge on numbers whose verdict is known, and pictures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform

ROOT = Path(__file__).resolve().parents[3]
gan = load(ROOT / "experiments" / "gan.py")
EXPERIMENT = collect(gan)
SEEDS = 6
JITTER = 1e-3 * np.arange(SEEDS)


def measured(
    *,
    recognized=(0.97, 0.96, 0.97),
    recognizer=0.95,
    lengths=((1.0, 1e-6), (1.0, 900.0)),
    left=(4.0, 60.0),
    coherence=((60.0, 5.0), (117.0, 6.0)),
    gaps=(0.5, 0.2, 0.3),
    coverage=0.8,
    modes=7,
    radii=8,
    odds=1e-5,
):
    """Recorded arrays of six seeds, as if measured at two steps."""
    ones = 1 + JITTER
    arrays = {"sure/odds": np.full((SEEDS, 2), odds), "ring/modes": np.full(SEEDS, modes)}
    arrays |= {"circles/radii": np.full(SEEDS, radii), "ring/near": ones, "circles/distance": ones}
    players = np.array(coherence).T * ones[:, None, None]
    robust = ("conditional", "winsorized", "m3")
    for arm, share, gap in zip((*robust, "unconditional"), (*recognized, np.nan), (*gaps, 0.4)):
        arrays |= {
            f"{arm}/{name}": values * ones
            for name, values in {
                "recognized": share,
                "recognizer": recognizer,
                "coverage": coverage,
                "perfect_coverage": 0.97,
                "spread": 2.0,
            }.items()
        }
        arrays |= {f"{arm}/{name}": ones for name in ("frechet", "density", "label_entropy")}
        arrays |= {f"{arm}/{name}": ones for name in ("to_training", "real_to_training", "floor")}
        arrays[f"{arm}/m_coherence"] = players
        arrays[f"{arm}/test_real_score"] = np.zeros((SEEDS, 2))
        arrays[f"{arm}/train_real_score"] = np.outer(ones, [0, gap])
    for arm, squares, m in zip(gan.SURE, lengths, left):
        columns = [squares[0] * ones, squares[1] * ones**2]
        arrays[f"{arm}/mean_squared_norm"] = np.stack(columns, 1)[..., None]
        arrays[f"{arm}/m_coherence"] = np.array([60.0, m])[:, None] * ones[:, None, None]
    return {**arrays, "scale": "made up", "at_source_scale": False}


def beside_wasserstein(*, length=1.0, coverage=(0.7, 0.9), spread=(0.1, 0.01), gaps=(0.5, 0.1)):
    """The same of the preset `wasserstein`, pairs of the plain GAN and the other one."""
    ones, sign = 1 + JITTER, np.resize([1, -1], SEEDS)
    arrays = {}
    for i, arm in enumerate(("conditional", "wasserstein")):
        arrays[f"{arm}/coverage"] = coverage[i] * ones
        arrays[f"{arm}/frechet"] = 2.0 ** (spread[i] * sign * ones)
        arrays[f"{arm}/spread"] = 2.0 * ones
        arrays[f"{arm}/test_real_score"] = np.zeros((SEEDS, 2))
        arrays[f"{arm}/train_real_score"] = np.outer(ones, [0, gaps[i]])
    squares = np.stack([ones, length**2 * ones**2], 1)[..., None]
    arrays[f"{gan.CRITIC}/mean_squared_norm"] = squares
    return {**arrays, "scale": "made up", "at_source_scale": False}


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def test_what_is_claimed_is_reproduced_where_it_holds():
    whole, critic = verdicts(measured()), verdicts(beside_wasserstein())
    assert {*whole.values(), *critic.values()} == {"reproduced"}
    assert {*whole, *critic} == {claim.name for claim in EXPERIMENT.claims}


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("a sure critic leaves a gradient", {"length": 1e-2}),
        ("a Wasserstein GAN covers more", {"coverage": (0.9, 0.7)}),
        ("a Wasserstein GAN depends less on the seed", {"spread": (0.01, 1.0)}),
        ("a penalized critic memorizes less", {"gaps": (0.1, 0.5)}),
    ],
)
def test_each_claim_on_a_critic_can_fail(claim, changes):
    assert verdicts(beside_wasserstein(**changes))[claim] == "not reproduced"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("the digit asked for is generated", {"recognized": (0.8, 0.8, 0.8)}),
        (
            "the gradient vanishes where the discriminator is sure",
            {"lengths": ((1.0, 0.1), (1.0, 900.0))},
        ),
        ("the non-saturating gradient does not vanish", {"lengths": ((1.0, 1e-6), (1.0, 1e-3))}),
        ("the two losses differ by the odds", {"odds": 0.1}),
        ("what is left of the gradient is a few examples'", {"left": (50.0, 60.0)}),
        ("both players use their coherence up", {"coherence": ((60.0, 55.0), (117.0, 6.0))}),
        ("the discriminator memorizes", {"gaps": (0.0, -0.1, -0.1)}),
        ("an even ring is generated unevenly", {"modes": 8}),
        ("some kinds of digits are not generated", {"coverage": 0.96}),
        ("some radii are not generated", {"radii": 10}),
        ("winsorizing the discriminator delays memorizing", {"gaps": (0.2, 0.6, 0.7)}),
    ],
)
def test_each_claim_can_fail(claim, changes):
    assert verdicts(measured(**changes))[claim] == "not reproduced"


def test_a_poor_classifier_or_generator_tests_nothing():
    assert verdicts(measured(recognizer=0.7))["the digit asked for is generated"] == "inconclusive"
    worse = verdicts(measured(recognized=(0.97, 0.85, 0.97)))
    assert worse["winsorizing the discriminator delays memorizing"] == "inconclusive"


@pytest.mark.slow
def test_the_smoke_preset_runs_and_is_drawn(tmp_path):
    recorded = perform(EXPERIMENT, gan.PRESETS["smoke"], tmp_path)
    assert recorded["conditional/images"].shape == (10, 4, 8, 8)
    assert "conditional" in EXPERIMENT.table(recorded)
    np.testing.assert_allclose(recorded["sure/odds"], 0, atol=1e-3)
    figure = load(ROOT / "paper_figures" / "gan.py").draw(recorded)
    assert len(figure.axes) == 6


@pytest.mark.slow
def test_a_wasserstein_gan_runs_beside_the_plain_one_and_is_drawn(tmp_path):
    settings = replace(gan.PRESETS["smoke"], wasserstein=True, wasserstein_steps=12)
    recorded = perform(EXPERIMENT, settings, tmp_path)
    assert "wasserstein" in EXPERIMENT.table(recorded)
    figure = load(ROOT / "paper_figures" / "gan.py").draw(recorded)
    assert len(figure.axes) == 3
