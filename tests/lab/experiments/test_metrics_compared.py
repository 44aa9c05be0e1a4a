"""Measures compared: identities on gradients that break nothing and on numbers that do.

The judge on measures whose verdict is known.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence import metrics
from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
compared = load(ROOT / "experiments" / "metrics_compared.py")
EXPERIMENT = collect(compared)
LOSSES, MEASURES = compared.LOSSES, compared.MEASURES
JITTER = 0.01 * np.arange(6)[:, None]
IDENTITIES, BY_LEVEL = (
    tuple(compared.IDENTITIES),
    [f"m-coherence separates at {level:g}" for level in compared.LEVELS],
)


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def measured(*, opposite=(), at=None, broken=(), unreached=False):
    """Recorded arrays of 6 seeds in which every measure separates as theory has it.

    `opposite`: not these, `at` some losses or at all.
    """
    recorded = {
        "losses": np.array(LOSSES),
        "sample": 100,
        "scale": "nowhere",
        "at_source_scale": False,
    }
    flat = np.ones(len(LOSSES))
    for name, measure in MEASURES.items():
        sign = (
            np.where([name in opposite and (at is None or loss in at) for loss in LOSSES], -1, 1)
            * measure.sense
        )
        recorded |= {
            f"real/{name}": 2 * flat + sign * (0.5 + JITTER),
            f"random/{name}": 2 * flat + 0 * JITTER,
        }
    for arm in compared.ARMS:
        recorded |= {f"{arm}/{name}": 1 + JITTER * flat for name in compared.GUISES}
        recorded[f"{arm}/deviations"] = (
            np.where([name in broken and arm == "random" for name in IDENTITIES], 0.1, 1e-6)
            + 0 * JITTER
        )
        recorded |= {f"{arm}/final": np.ones((6, 2)), f"{arm}/sharpness_residual": np.full(6, 0.01)}
        if unreached:
            recorded[f"{arm}/m_coherence"][:, -1] = np.nan
    return recorded


def test_measures_that_separate_at_every_loss_reproduce_every_claim():
    assert set(verdicts(measured()).values()) == {"reproduced"}


@pytest.mark.parametrize("name", [name for name in MEASURES if name not in compared.UNCLAIMED])
@pytest.mark.parametrize("at", [None, (0.5,)])
def test_a_measure_that_fails_at_one_loss_does_not_separate(name, at):
    found = verdicts(measured(opposite=(name,), at=at))
    assert {claim for claim, verdict in found.items() if verdict == "not reproduced"} == {
        f"{MEASURES[name].label} separates"
    }


@pytest.mark.parametrize("level", compared.LEVELS)
def test_m_coherence_is_judged_level_by_level(level):
    found = verdicts(measured(opposite=("m_coherence",), at=(level,)))
    assert {claim for claim, verdict in found.items() if verdict == "not reproduced"} == {
        f"m-coherence separates at {level:g}"
    }


@pytest.mark.parametrize("name", IDENTITIES)
def test_an_identity_that_one_arm_breaks_is_not_reproduced(name):
    found = verdicts(measured(broken=(name,)))
    assert {claim for claim, verdict in found.items() if verdict == "not reproduced"} == {name}


def test_a_loss_that_was_never_reached_is_inconclusive():
    found = verdicts(measured(unreached=True))
    assert {claim for claim, verdict in found.items() if verdict == "inconclusive"} == {
        BY_LEVEL[-1]
    }


@pytest.fixture(scope="module")
def small():
    """Gradients of six examples, two of whose seven parameters are dead.

    And all that is found in them, compiled once.
    """
    rows = np.random.default_rng(0).normal(0.3, 1, (6, 7)) * (np.arange(7) < 5)

    def find(rows):
        gradients = {"w": rows}
        found = compared.of_gradients(gradients, jnp.array([0, 0, 0, 1, 1, 1]), 2)
        wrong = {
            name: found | {name: 1.1 * found[name]}
            for name in (
                "m_coherence",
                "diversity",
                "noise_scale",
                "generalization_ratio",
                "evidence",
            )
        }
        pooled = metrics.pool(gradients, variances=True)
        return found, {
            name: jnp.stack(compared.deviations(one, gradients, pooled))
            for name, one in wrong.items()
        }

    return rows[:, :5], *jax.device_get(jax.jit(find)(jnp.asarray(rows)))


def test_every_measure_is_as_its_definition(small):
    rows, found, _ = small
    lengths, mean = np.linalg.norm(rows, axis=1), rows.mean(0)
    cosines = rows @ rows.T / lengths[:, None] / lengths
    pairs = cosines[np.triu_indices(6, 1)]
    assert found["m_coherence"] == pytest.approx(6 * mean @ mean / (lengths**2).mean(), rel=1e-5)
    assert found["cosine_stiffness"] == pytest.approx(pairs.mean(), rel=1e-4)
    assert found["minimum_cosine"] == pytest.approx(pairs.min(), rel=1e-5)
    assert found["negative_share"] == pytest.approx((pairs < 0).mean())
    assert found["between"] == pytest.approx(cosines[:3, 3:].mean(), rel=1e-4)
    assert found["mean_gsnr"] == pytest.approx((mean**2 / rows.var(0)).mean(), rel=1e-4)
    assert found["gradient_norm"] == pytest.approx(np.linalg.norm(mean), rel=1e-5)


def test_identities_hold_and_a_wrong_number_shows_in_its_own(small):
    _, found, wrong = small
    assert found["deviations"].shape == (len(IDENTITIES),)
    assert found["deviations"].max() < 1e-4
    for k, name in enumerate(("diversity", "noise_scale", "generalization_ratio")):
        assert (wrong[name] > compared.EXACT).nonzero()[0].tolist() == [k]
    assert (wrong["evidence"] > compared.EXACT).nonzero()[0].tolist() == [5]
    assert (wrong["m_coherence"] > compared.EXACT).nonzero()[0].tolist() == [0, 1, 2, 3, 4]


def test_agreement_is_of_ranks_until_the_loss_is_lowest():
    loss = np.array([2.0, 1.0, 0.5, 0.1, 0.05])
    rises = np.array([1.0, 2.0, 4.0, 8.0, -99.0])  # what comes after the lowest loss does not count
    found = compared.agreement(loss, np.stack([rises, rises**3, -rises, np.ones(5)]), 0.2)
    assert found[0, :3] == pytest.approx([1, 1, -1])
    assert np.isnan(found[3]).all()


def test_separation_is_turned_to_where_theory_has_it():
    apart = np.array([-1.0, -1.1, -0.9])
    assert compared.separation(apart, -1) == ("+10.0", "yes")
    assert compared.separation(apart, +1) == ("-10.0", "reversed")
    assert compared.separation(np.array([-1.0, 1.1, 0.1]), +1)[1] == "no"


@pytest.mark.slow
def test_the_smoke_preset_measures_everything_and_draws(tmp_path):
    recorded = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    found = verdicts(recorded)
    assert list(found) == [claim.name for claim in EXPERIMENT.claims]
    assert {found[name] for name in IDENTITIES} == {"reproduced"}
    assert "cosine stiffness" in EXPERIMENT.table(recorded)
    png, *_ = gallery.draw(ROOT, "metrics_compared", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000
