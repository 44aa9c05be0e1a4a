"""What robust methods memorize of garbage, on made-up paths whose verdicts are known."""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
garbage_images = load(ROOT / "experiments" / "garbage_images.py")
EXPERIMENT = collect(garbage_images)
PRISTINE = (8.0, 4.0, 2.0, 1.0, 0.5)
SPREAD = 1 + 0.01 * np.arange(5)[:, None]
SLOWER = (0.5, 0.1)
FRESH = 6.0


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def path(pristine=PRISTINE, share=(0.0, 0.1, 0.2, 0.3, 0.5), test=1.2):
    """One arm's errors, five seeds at five steps.

    What is memorized on the way, and test error as a multiple of the pristine error.
    """
    pristine = np.broadcast_to(pristine, (5, 5))
    return {
        "pristine": pristine,
        "test": test * pristine * SPREAD,
        "corrupt": FRESH * (1 - np.array(share) * SPREAD),
        "fresh": np.full((5, 5), FRESH),
    }


ROBUST = {"share": (0.0, 0.02, 0.05, 0.1, 0.2), "test": 1.0}
MADE = {
    "shuffled,sgd": {},
    "shuffled,c=10": ROBUST,
    "shuffled,m3": ROBUST,
    "shuffled,slower=0.5": {"share": (0.0, 0.08, 0.15, 0.27, 0.45)},
    "shuffled,slower=0.1": {"share": (0.0, 0.05, 0.1, 0.2, 0.4)},
    "noise,sgd": {},
    "noise,c=10": ROBUST,
    "noise,slower=0.5": {},
    "noise,slower=0.1": {},
    "shuffled,adam": {},
    "shuffled,adam,c=10": ROBUST,
}


def recorded(without=(), **changes):
    """Arrays as if measured.

    As the claims have it but for the arms in `changes`, whose names are written with
    underscores.
    """
    named = lambda arm: arm.replace(",", "_").replace("=", "_").replace(".", "_")
    made = {
        arm: path(**usual | changes.get(named(arm), {}))
        for arm, usual in MADE.items()
        if arm not in without
    }
    curves = {
        name: np.array([one[name] for one in made.values()]) for name in garbage_images.CURVES
    }
    return {
        "arms": np.array(list(made)),
        "slower": np.array(SLOWER),
        "step": np.arange(5),
        **curves,
        "scale": "nowhere",
        "at_source_scale": False,
    }


def test_methods_that_keep_garbage_out_reproduce_every_claim():
    assert verdicts(recorded()) == {claim.name: "reproduced" for claim in EXPERIMENT.claims}


MUCH = {"share": (0.0, 0.3, 0.5, 0.6, 0.7)}


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        (
            {"shuffled_c_10": MUCH},
            {
                "c=10 memorizes less",
                "c=10 memorizes less at equal fit",
                "c=10 memorizes less than slower SGD",
            },
        ),
        ({"shuffled_m3": MUCH}, {"m3 memorizes less", "m3 memorizes less than slower SGD"}),
        ({"noise_c_10": MUCH}, {"c=10 memorizes less than slower SGD, noise"}),
        (
            {"shuffled_c_10": {"test": 1.4}},
            {"reconstruction kept", "unseen images better at equal fit"},
        ),
        ({"shuffled_adam_c_10": MUCH}, {"c=10 memorizes less before Adam"}),
        ({"shuffled_slower_0_1": MUCH}, {"a smaller step memorizes less"}),
    ],
)
def test_a_claim_that_the_paths_contradict_is_not_reproduced(changes, failing):
    found = verdicts(recorded(**changes))
    assert {name for name, verdict in found.items() if verdict == "not reproduced"} == failing


def test_memorizing_less_because_less_is_fitted_is_not_counted_at_equal_fit():
    slow = {"pristine": (8, 7, 6, 5, 4), "share": (0.0, 0.03, 0.06, 0.09, 0.12), "test": 1.2}
    found = verdicts(recorded(shuffled_c_10=slow))
    assert found["c=10 memorizes less"] == "reproduced"
    assert found["c=10 memorizes less at equal fit"] == "not reproduced"
    assert found["reconstruction kept"] == "not reproduced"


def test_slower_sgd_is_followed_over_step_sizes_from_the_smallest():
    arrays = recorded(
        shuffled_slower_0_1={"pristine": (8, 7, 6, 5, 4)},
        shuffled_slower_0_5={"pristine": (8, 7, 6, 5, 1)},
    )
    pristine, share, test = garbage_images.by_rate(arrays, "shuffled")
    assert pristine == pytest.approx(np.tile([4, 1, 0.5], (5, 1)))
    assert share == pytest.approx(SPREAD * [0.4, 0.45, 0.5])
    assert test == pytest.approx(1.2 * SPREAD * [4, 1, 0.5])


def test_at_equal_fit_both_are_read_where_the_worse_of_them_ends():
    one = np.array([[4.0, 2.0, 1.0]]), np.array([[0.0, 0.2, 0.6]])
    other = np.array([[4.0, 3.0, 1.5]]), np.array([[0.0, 0.1, 0.3]])
    assert garbage_images.at_equal_fit(one, other) == pytest.approx(np.array([[0.4], [0.3]]))
    assert garbage_images.at_equal_fit(other, one) == pytest.approx(np.array([[0.3], [0.4]]))


def test_what_is_memorized_is_what_fresh_garbage_does_not_share():
    arrays = recorded()
    arrays["corrupt"], arrays["fresh"] = (
        np.full_like(arrays["fresh"], 3.0),
        np.full_like(arrays["fresh"], 4.0),
    )
    assert garbage_images.memorized(arrays, "noise,sgd") == pytest.approx(np.full((5, 5), 0.25))
    arrays["corrupt"] = arrays[
        "fresh"
    ]  # both reconstructed well: a general code, nothing memorized
    assert not garbage_images.memorized(arrays, "noise,sgd").any()


def test_where_plain_training_memorizes_nothing_nothing_is_tested():
    found = EXPERIMENT.judgements(recorded(noise_sgd={"share": (0, 0, 0, 0, 0.1)}))
    (judged,) = [j for j in found if j.claim.name.endswith("noise")]
    assert judged.verdict == "inconclusive"
    assert (
        judged.reason
        == "noise,sgd did not memorize: 0.10 < 0.2 of the error of fresh garbage is gone"
    )


def test_claims_about_methods_that_were_not_run_are_left_out():
    without = [arm for arm in MADE if "c=10" in arm or arm.startswith("noise")]
    assert set(verdicts(recorded(without))) == {
        "m3 memorizes less",
        "m3 memorizes less than slower SGD",
        "a smaller step memorizes less",
    }


def test_per_example_gradients_are_only_asked_for_where_a_method_needs_them():
    arms = garbage_images.arms(EXPERIMENT.presets["cpu"])
    assert len(arms) == 18
    assert {
        name for name, one in arms.items() if not one.aggregator.build().takes_batch_gradient
    } == {
        *(f"shuffled,{name}" for name in ("c=2", "c=10", "m3", "median", "adam,c=10")),
        *(f"noise,{name}" for name in ("c=10", "m3")),
    }
    assert {one.garbage_kind for name, one in arms.items() if name.startswith("noise")} == {"noise"}


@pytest.mark.slow
def test_the_smoke_preset_trains_shows_pictures_and_draws(tmp_path):
    found = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    assert "m3" in EXPERIMENT.table(found)
    assert {j.claim.name for j in EXPERIMENT.judgements(found)} <= {
        claim.name for claim in EXPERIMENT.claims
    }
    assert found["pictures"].shape == (4, 9, 8, 8, 1)
    assert list(found["shown"]) == ["image", "sgd", "slower=0.1", "m3"]
    png, *_ = gallery.draw(ROOT, "garbage_images", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000
