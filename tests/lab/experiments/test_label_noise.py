"""Who pays for the loss reduction, on contributions whose answer is known.

The judge on curves whose verdict is known.
"""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.analysis import first_at
from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
label_noise = load(ROOT / "experiments" / "label_noise.py")
EXPERIMENT = collect(label_noise)
STEP = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096])
NOISE = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
PRISTINE, CORRUPT = (
    (20.0, 24.0, 30.0, 40.0, 400.0),
    (320.0, 350.0, 380.0, 390.0, 400.0),
)  # steps to half fitted, by noise
ONE_REVERSED = np.array([[0.1], [0.1], [-0.1]])  # at 75 % noise
EARLY = {
    "noise slows learning to 50%",
    "pristine pay early",
    "pristine gain more early",
}  # need no memorization


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def curves(half_fitted):
    """[noise, seed, step].

    Sigmoids that reach one half at each noise's step, a little later with every seed.
    """
    later = 1 + 0.02 * np.arange(5)
    return 1 / (1 + (np.multiply.outer(half_fitted, later)[..., None] / np.maximum(STEP, 0.1)) ** 4)


def learned(
    *,
    pristine=PRISTINE,
    corrupt=CORRUPT,
    falls=0.2,
    clean_falls=0.0,
    fitted=1.0,
    early=0.1,
    late=-0.1,
    lead=1.0,
):
    """Recorded arrays of 5 seeds, as if measured.

    `early` and `late`: f of the pristine beyond the null worlds.
    """
    p, c = curves(np.array(pristine)), fitted * curves(np.array(corrupt))
    train = (1 - NOISE)[:, None, None] * p + NOISE[:, None, None] * c
    hump = p - np.where(NOISE > 0, falls, clean_falls)[:, None, None] * c
    jitter = 0.01 * np.arange(5)
    share, spread = np.broadcast_to(1 - NOISE[1:4, None], (3, 5)), 0.02
    f = np.stack([share + early + jitter, share + late + jitter], -1)
    null = np.stack([share - spread, share + spread], -1)
    gained = np.stack(
        [
            np.broadcast_to(lead * STEP, (3, 5, len(STEP))) * (1 + jitter[:, None]),
            np.zeros((3, 5, len(STEP))),
        ],
        2,
    )
    return {
        "noise": NOISE,
        "mixed": NOISE[1:4],
        "step": STEP,
        "levels": np.array(label_noise.LEVELS),
        "steps_to": np.array([first_at(train, STEP, level) for level in label_noise.LEVELS]),
        "worlds": 200,
        "train_accuracy": train,
        "test_accuracy": hump,
        "pristine_accuracy": p,
        "corrupt_accuracy": c,
        "half_fitted": np.stack([first_at(one, STEP, 0.5)[1:4] for one in (p, c)], -1),
        "share": share,
        "phases": f,
        "null_phases": np.stack([null, null], 2),
        "null_change": np.full((3, 5), 0.05),
        "i": gained,
        "scale": "nowhere",
        "at_source_scale": False,
    }


def test_curves_as_the_source_describes_them_reproduce_every_claim():
    assert set(verdicts(learned()).values()) == {"reproduced"}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (
            {"pristine": CORRUPT[::-1], "corrupt": PRISTINE[::-1]},
            {"pristine learned before corrupt", "noise slows learning to 90%"},
        ),
        ({"pristine": (20.0, 300.0, 300.0, 300.0, 400.0)}, {"pristine learned as without noise"}),
        ({"corrupt": (30.0, 30.0, 30.0, 30.0, 400.0)}, {"corrupt learned as all random"}),
        ({"pristine": (40.0, 20.0, 30.0, 50.0, 400.0)}, {"noise slows learning to 50%"}),
        ({"pristine": (20.0, 24.0, 30.0, 500.0, 600.0)}, {"pristine learned before corrupt"}),
        ({"falls": 0.0}, {"test accuracy rises, then falls"}),
        ({"clean_falls": 0.2}, {"test accuracy rises, then falls"}),
        ({"early": -0.03}, {"pristine pay early"}),  # within the null worlds
        ({"late": -0.01}, {"corrupt pay late"}),
        ({"early": ONE_REVERSED}, {"pristine pay early", "null worlds stay flat"}),
        ({"late": -ONE_REVERSED}, {"corrupt pay late", "null worlds stay flat"}),
        (
            {"early": -0.1, "late": 0.1},
            {"pristine pay early", "corrupt pay late", "null worlds stay flat"},
        ),
        ({"lead": -1.0}, {"pristine gain more early"}),
    ],
)
def test_a_claim_that_the_numbers_contradict_is_not_reproduced(change, failing):
    found = verdicts(learned(**change))
    assert {name for name in failing if found[name] == "not reproduced"} == failing


def test_no_claim_about_memorization_is_tested_where_nothing_was_memorized():
    found = verdicts(learned(fitted=0.8))
    assert {name for name, verdict in found.items() if verdict == "reproduced"} == EARLY
    reasons = {
        j.reason for j in EXPERIMENT.judgements(learned(fitted=0.8)) if j.claim.name not in EARLY
    }
    assert reasons == {"a run did not memorize: corrupt accuracy 0.80 < 0.9"}


def test_without_clean_or_random_labels_there_is_nothing_to_compare_with():
    recorded = learned() | {"noise": np.array([0.25, 0.5]), "mixed": np.array([])}
    assert EXPERIMENT.judgements(recorded) == []


def paid(pristine, early, late):
    """[step, m].

    What examples bring, one amount for the pristine before step 64 and another from then on, 1
    - that for the corrupt.
    """
    amounts = np.where(STEP < 64, early, late)[:, None]
    return np.where(pristine, amounts, 1 - amounts)


def test_who_pays_is_seen_in_f_and_not_in_the_null_worlds():
    pristine = np.arange(400) < 200
    worlds = label_noise.null_worlds(pristine, 300, seed=0)
    found = label_noise.attribution(STEP, paid(pristine, 0.8, 0.3), pristine, worlds, 32.0, 64.0)
    assert found["share"] == 0.5
    assert found["phases"] == pytest.approx([0.8, 0.3])
    assert found["f"] == pytest.approx(np.where(STEP < 64, 0.8, 0.3))
    assert (found["null_phases"][:, 0] < 0.5).all()
    assert (found["null_phases"][:, 1] > 0.5).all()
    assert np.abs(found["null_phases"] - 0.5).max() < 0.05
    assert np.abs(found["null"] - 0.5).max() < 0.05
    assert found["null_change"] < 0.2


def test_examples_that_bring_the_same_pay_their_share_in_every_world():
    pristine = np.arange(10) < 7
    found = label_noise.attribution(
        STEP,
        np.ones((len(STEP), 10)),
        pristine,
        label_noise.null_worlds(pristine, 5, seed=0),
        32.0,
        64.0,
    )
    for name in ("f", "null", "phases", "null_phases"):
        assert found[name] == pytest.approx(np.full_like(found[name], 0.7)), name
    assert found["null_change"] == pytest.approx(0, abs=1e-12)


def test_attribution_is_what_loops_over_examples_and_steps_find():
    rng = np.random.default_rng(0)
    dots, pristine = rng.normal(1, 1, (len(STEP), 30)), rng.random(30) < 0.6
    found = label_noise.attribution(
        STEP, dots, pristine, label_noise.null_worlds(pristine, 5, seed=0), 64.0, 512.0
    )
    phases = []
    for begin, end in ((0, 64), (512, 4096)):
        by_pristine = by_all = 0.0
        for t in range(len(STEP) - 1):
            if begin <= STEP[t] and STEP[t + 1] <= end:
                for i in range(30):
                    area = (STEP[t + 1] - STEP[t]) * (dots[t, i] + dots[t + 1, i]) / 2
                    by_pristine, by_all = by_pristine + area * pristine[i], by_all + area
        phases.append(by_pristine / by_all)
    assert found["phases"] == pytest.approx(phases)
    assert found["f"] == pytest.approx([sum(row[pristine]) / sum(row) for row in dots])


def test_a_null_world_is_what_the_truth_would_be_if_its_designation_were_true():
    rng = np.random.default_rng(2)
    dots, pristine = rng.normal(1, 1, (len(STEP), 30)), rng.random(30) < 0.6
    worlds = label_noise.null_worlds(pristine, 6, seed=0)
    found = label_noise.attribution(STEP, dots, pristine, worlds, 40.0, 500.0)
    as_true = [label_noise.attribution(STEP, dots, world, worlds, 40.0, 500.0) for world in worlds]
    phases = np.array([one["phases"] for one in as_true])
    assert found["null_phases"] == pytest.approx(np.quantile(phases, (0.025, 0.975), axis=0).T)
    assert found["null"] == pytest.approx(
        np.quantile([one["f"] for one in as_true], (0.025, 0.975), axis=0)
    )
    assert found["null_change"] == pytest.approx(max(abs(early - late) for early, late in phases))


def test_f_and_the_gains_are_two_views_of_the_same_payments():
    rng = np.random.default_rng(1)
    dots, pristine = rng.normal(1, 1, (len(STEP), 30)), rng.random(30) < 0.6
    gained = label_noise.gains(STEP, dots, pristine)[:, -1] * [pristine.sum(), (~pristine).sum()]
    found = label_noise.attribution(STEP, dots, pristine, pristine[None], float(STEP[-1]), 0.0)
    assert found["phases"] == pytest.approx(np.full(2, gained[0] / gained.sum()))


def test_a_phase_that_never_begins_has_no_f():
    pristine = np.arange(10) < 7
    found = label_noise.attribution(
        STEP, np.ones((len(STEP), 10)), pristine, pristine[None], 32.0, np.nan
    )
    assert found["phases"][0] == pytest.approx(0.7)
    assert np.isnan(found["phases"][1])
    assert np.isnan(found["null_change"])


def test_null_worlds_permute_who_is_pristine_and_follow_the_seed():
    pristine = np.arange(50) < 35
    worlds = label_noise.null_worlds(pristine, 20, seed=3)
    assert worlds.shape == (20, 50)
    assert (worlds.sum(1) == 35).all()
    assert len(np.unique(worlds, axis=0)) == 20
    assert (worlds == label_noise.null_worlds(pristine, 20, seed=3)).all()
    assert (worlds != label_noise.null_worlds(pristine, 20, seed=4)).any()


def test_the_distance_of_curves_is_their_mean_difference_over_the_logarithm_of_the_step():
    step = np.array([0, 1, 10, 100])
    assert label_noise.distance(step, np.zeros(4), np.full(4, 0.3)) == pytest.approx(0.3)
    assert label_noise.distance(
        step, np.array([9, 0, 0, 0.0]), np.array([0, 0, 1, -1.0])
    ) == pytest.approx(0.75)


@pytest.mark.slow
def test_the_smoke_preset_trains_measures_who_pays_and_draws(tmp_path):
    settings = EXPERIMENT.presets["smoke"]
    recorded = perform(EXPERIMENT, settings, tmp_path)
    assert [j.claim.name for j in EXPERIMENT.judgements(recorded)] == [
        claim.name for claim in EXPERIMENT.claims
    ]
    assert "null worlds" in EXPERIMENT.table(recorded)
    low, high = recorded["null"][0, :, 0], recorded["null"][0, :, 1]
    assert recorded["f"].shape == low[None].shape
    assert (low <= high).all()
    png, *_ = gallery.draw(ROOT, "label_noise", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000
