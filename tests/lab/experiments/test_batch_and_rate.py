"""Variances of drawn batches against formulas; the judge on curves whose verdict is known."""

from pathlib import Path

import jax
import numpy as np
import pytest

from coherence.lab.claims import judge
from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
batch_and_rate = load(ROOT / "experiments" / "batch_and_rate.py")
EXPERIMENT = collect(batch_and_rate)
SEEDS = 4
LATER = 1 + 0.01 * np.arange(SEEDS)[:, None]
STEPS = {
    "large": np.array([0, 5, 10, 20, 50, 100, 200, 400]),
    "small": np.array([0, 25, 50, 100, 250, 500, 1000, 2000]),
}
LOSS = np.array([2.3, 2.0, 1.5, 1.0, 0.5, 0.2, 0.1, 0.05])
SIZES, N = np.array([1, 10, 100]), 500


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def measured(
    *,
    full=0.0,
    full_small=0.0,
    level=0.95,
    falls=(0.0, 0.0),
    slope=-1.0,
    without=1.0,
    factor=1.0,
    adam=0.0,
    random=0.25,
    loss=LOSS,
):
    """Recorded arrays of 4 seeds, as if measured.

    `full`: what large batches gain in test accuracy, `factor`: of the others' coherence.
    """
    accuracy = np.linspace(0.1, level, len(LOSS))
    arrays = {
        "batches": np.array([10, 100, N]),
        "learning_rate": 0.1,
        "smaller": 5.0,
        "steps": 400,
        "examples": N,
        "drawn": SIZES,
    }
    arrays |= {
        "others": np.array(["momentum", "Adam"]),
        "random": np.array(["SGD", "Adam"]),
        "SGD": "b=100,large",
    }
    for b in arrays["batches"]:
        for size, step in STEPS.items():
            gap = 0.05 * np.arange(len(LOSS))
            dip = np.where(np.arange(len(LOSS)) == 5, 0.35, 0.0) * (size == "small")
            better = (full if b == N else 0.0) + (full_small if b == N and size == "small" else 0.0)
            test = accuracy + better
            arrays |= {
                f"b={b},{size}/step": step,
                f"b={b},{size}/train_loss": loss * LATER,
                f"b={b},{size}/test_loss": (loss + gap - falls[0] * dip) * LATER,
                f"b={b},{size}/test_accuracy": test * LATER,
                f"b={b},{size}/train_accuracy": (test + gap - falls[1] * dip) * LATER,
            }
    coherent = np.linspace(20, 2, len(LOSS))
    arrays["b=100,large/m_coherence"] = coherent * LATER
    for name, times, worse in (
        ("momentum", 1.0, 0.0),
        ("Adam", factor, adam),
        ("SGD,random", random, 0.8),
        ("Adam,random", random, 0.8),
    ):
        arrays |= {
            f"{name}/step": STEPS["large"],
            f"{name}/train_loss": loss * LATER,
            f"{name}/test_accuracy": (accuracy - worse) * LATER,
            f"{name}/m_coherence": times * coherent * LATER,
        }
    one = np.ones((SEEDS, 3))
    formula = (N - SIZES) / (SIZES * (N - 1))
    arrays |= {
        "redrawn/one": one,
        "redrawn/with": one[..., None] * SIZES**slope,
        "redrawn/without": without * one[..., None] * formula,
    }
    return {**arrays, "scale": "nowhere", "at_source_scale": False}


def test_curves_as_claimed_reproduce_every_claim():
    assert set(verdicts(measured()).values()) == {"reproduced"}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"level": 0.3}, {"full batch generalizes"}),
        (
            {"full": -0.05},
            {"full batch as good at equal loss", "full batch as good after equal steps"},
        ),
        (
            {"full_small": -0.05},
            {
                "full batch as good at equal loss",
                "full batch as good after equal steps",
                "small steps as good as large",
            },
        ),
        ({"falls": (1.0, 0.0)}, {"the gap in loss never falls"}),
        ({"falls": (0.0, 1.0)}, {"the gap in accuracy never falls"}),
        ({"slope": -0.9}, {"variance falls as 1/b"}),
        ({"without": 1.3}, {"faster without replacement"}),
        (
            {"random": 1.5},
            {"true labels more coherent with SGD", "true labels more coherent with Adam"},
        ),
        ({"factor": 0.4}, {"other optimizers as coherent"}),
        ({"factor": 2.5}, {"other optimizers as coherent"}),
        ({"adam": 0.05}, {"other optimizers as good"}),
    ],
)
def test_a_claim_that_the_numbers_contradict_is_not_reproduced(change, failing):
    found = verdicts(measured(**change))
    assert {name for name, verdict in found.items() if verdict == "not reproduced"} == failing


def test_each_claim_is_contradicted_by_some_row_above():
    marks = test_a_claim_that_the_numbers_contradict_is_not_reproduced.pytestmark[0].args[1]
    assert set().union(*(failing for _, failing in marks)) == {
        claim.name for claim in EXPERIMENT.claims
    }


def test_runs_that_did_not_fit_say_nothing_of_what_is_compared_at_equal_loss():
    reasons = {j.claim.name: j.reason for j in EXPERIMENT.judgements(measured(loss=LOSS + 0.6))}
    for name in (
        "full batch as good at equal loss",
        "the gap in loss never falls",
        "the gap in accuracy never falls",
    ):
        assert reasons[name] == "a run never reached a training loss of 0.1 nats: 0.67"
    assert (
        reasons["true labels more coherent with Adam"]
        == "random labels were not learned: training loss 0.67 > 0.5 nats"
    )


def test_without_random_labels_there_is_nothing_to_compare_true_ones_with():
    recorded = measured() | {"random": np.array(["SGD"])}
    found = {j.claim.name: (j.verdict, j.reason) for j in EXPERIMENT.judgements(recorded)}
    assert found["true labels more coherent with SGD"][0] == "reproduced"
    reason = "Adam was not run with true and with random labels"
    assert found["true labels more coherent with Adam"] == ("inconclusive", reason)


def test_variances_of_drawn_batches_are_those_of_their_gradients_and_follow_the_formulas():
    rng = np.random.default_rng(0)
    gradients = rng.normal(1, 1, (60, 5)) * rng.gamma(1, 1, (60, 1))
    sizes = (5, 60)
    found = batch_and_rate.variances(jax.random.key(0), gradients @ gradients.T, sizes, 3000)
    one = np.mean(np.sum((gradients - gradients.mean(0)) ** 2, 1))
    assert float(found["one"]) == pytest.approx(one, rel=1e-4)
    assert np.asarray(found["with"]) == pytest.approx(one / np.array(sizes), rel=0.1)
    assert np.asarray(found["without"]) == pytest.approx(
        [one * 55 / (5 * 59), 0], rel=0.1, abs=1e-5
    )
    naive = [
        np.sum((gradients[rng.integers(0, 60, 5)].mean(0) - gradients.mean(0)) ** 2)
        for _ in range(3000)
    ]
    assert np.mean(naive) == pytest.approx(float(found["with"][0]), rel=0.1)


def test_a_gap_falls_from_any_measurement_to_a_later_one():
    gaps = np.array([[0.0, 0.4, 0.35, 0.3, 0.5], [0.0, 0.1, 0.2, 0.3, 0.5]])
    recorded = {"a/step": np.arange(5), "a/train_loss": 0 * gaps, "a/test_loss": gaps}
    fall = batch_and_rate.falls(recorded, "a", "loss")
    assert len(fall) == 10
    assert fall["steps 1 to 3"] == pytest.approx([0.2, -0.4])
    assert batch_and_rate.mean_fall(recorded, "a", "loss") == "-0.050"


def test_a_gap_that_never_falls_is_not_refuted_by_noise_and_one_that_does_is():
    """The largest fall of each seed's own curve read 0.7 where the mean only rises."""
    rng, claim = np.random.default_rng(0), EXPERIMENT.claims[4]
    assert claim.name == "the gap in loss never falls"
    rising = np.linspace(0, 1, 20)
    falling = np.where(np.arange(20) < 10, 2 * rising, rising)

    def found(mean, seeds, noise):
        gaps = mean + noise * rng.normal(size=(seeds, 20))
        recorded = {"a/step": np.arange(20), "a/train_loss": 0 * gaps, "a/test_loss": gaps}
        return judge(claim, batch_and_rate.falls(recorded, "a", "loss"), scale="").verdict

    noisy = [found(rising, 8, 0.3) for _ in range(100)]
    assert (noisy.count("not reproduced") <= 5, noisy.count("reproduced")) == (True, 0)
    assert {found(rising, 32, 0.03) for _ in range(20)} == {"reproduced"}
    assert {found(falling, 32, 0.1) for _ in range(20)} == {"not reproduced"}


def test_a_level_is_first_reached_between_two_measurements():
    recorded = {
        "a/train_loss": np.array([[2.0, 1.0, 0.2], [2.0, 0.5, 0.7]]),
        "a/test": np.array([[0.0, 0.5, 0.9], [0.1, 0.4, 0.4]]),
    }
    assert batch_and_rate.at_level(recorded, "a", "test", 0.6) == pytest.approx([0.7, 0.38])
    assert np.isnan(batch_and_rate.at_level(recorded, "a", "test", 0.3)).tolist() == [False, True]


def test_each_seed_draws_its_own_examples_and_none_is_trained_on_and_tested():
    one, again, other = (
        batch_and_rate.Drawn(batch_and_rate.digits(), 50, 100, seed).build() for seed in (0, 0, 1)
    )
    assert (one.x_train.shape, one.x_test.shape) == ((50, 64), (100, 64))
    assert (one.x_train == again.x_train).all()
    assert (one.x_train != other.x_train).any()
    trained = {row.tobytes() for row in one.x_train}
    assert sum(row.tobytes() in trained for row in one.x_test) == 0


@pytest.mark.slow
def test_the_smoke_preset_trains_draws_batches_and_draws(tmp_path):
    settings = EXPERIMENT.presets["smoke"]
    recorded = perform(EXPERIMENT, settings, tmp_path)
    assert list(verdicts(recorded)) == [claim.name for claim in EXPERIMENT.claims]
    assert verdicts(recorded)["faster without replacement"] == "reproduced"
    assert recorded["redrawn/with"].shape == (settings.seeds, 2, len(settings.drawn))
    assert "slope of log variance" in EXPERIMENT.table(recorded)
    png, *_ = gallery.draw(ROOT, "batch_and_rate", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000
