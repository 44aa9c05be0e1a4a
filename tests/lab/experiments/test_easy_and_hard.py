"""The judge of easy and hard examples on numbers whose verdict is known.

How parts are drawn, and what is reliable about them.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
easy_and_hard = load(ROOT / "experiments" / "easy_and_hard.py")
EXPERIMENT = collect(easy_and_hard)
JITTER = 0.002 * np.arange(5)  # by seed
AS_CLAIMED = np.array(
    [[0.97, 0.9, 0.8], [0.95, 0.9, 0.75], [0.7, 0.7, 0.65]]
)  # accuracy, [trained on, tested on]
BOUNDARY = {"hard ones do not define the boundary", "nor that of easy and hard alike"}


def measured(
    *,
    accuracy=AS_CLAIMED,
    gap=(0.1, 0.4, 0.6),
    agreement=0.5,
    coherence=(4.0, 3.0, 2.0),
    fitted=True,
    lack=(-0.1, 0.05, 0.1, 0.2),
    reliable=0.5,
    wrong=(0.2, 0.9),
    agree=(0.6, 0.2),
    random_fitted=1.0,
):
    """Recorded arrays of 5 seeds.

    `lack`: what hard ones lack on random test examples, by length of the brief training; `wrong`
    and `agree`: of ordinary and of adversarial starts.
    """
    swept = np.full((4, 2, 3, 5), 0.9) + JITTER * np.arange(2)[:, None, None]
    swept[:, 1, 1] -= np.array(lack)[:, None]
    by_seed = lambda values, size: np.multiply.outer(np.asarray(values), 1 + size * JITTER)
    steps = by_seed((500.0, 900.0, 1300.0), 1)
    return {
        "step": np.array([0, 10, 100]),
        "levels": np.array(easy_and_hard.LEVELS),
        "m": 500,
        "brief_steps": 60,
        "accuracy": np.asarray(accuracy)[..., None] + JITTER * np.arange(3)[:, None, None],
        "gap": by_seed(gap, 1),
        "steps": steps if fitted else np.where(steps > 1300, np.nan, steps),
        "coherence": np.array([by_seed(coherence, 1 + k) for k in range(4)]),
        "learned": np.full((5, 10), 0.5),
        "agreement": agreement + JITTER,
        "lengths": np.array([30, 100, 300, 1000]),
        "sweep/accuracy": swept * np.linspace(1, 1.001, 4)[:, None, None, None],
        "sweep/learned": np.full((4, 5), 0.5),
        "sweep/agreement": np.full((4, 5), reliable) + JITTER,
        "adversary/wrong": wrong + JITTER[:, None] * [1, 2],
        "adversary/agreement": agree + JITTER[:, None] * [1, 2],
        "adversary/fitted": np.full((5, 3), random_fitted),
        "scale": "nowhere",
        "at_source_scale": False,
    }


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def swapped(*pairs):
    """The accuracies as claimed, with entries exchanged."""
    accuracy = AS_CLAIMED.copy()
    for a, b in pairs:
        accuracy[a], accuracy[b] = AS_CLAIMED[b], AS_CLAIMED[a]
    return accuracy


SHORTEST = "hard ones do not define the boundary, 30 steps"


def test_parts_that_generalize_as_the_sources_say_reproduce_every_claim():
    found = verdicts(measured())
    assert {name for name, verdict in found.items() if verdict != "reproduced"} == {SHORTEST}
    assert found[SHORTEST] == "not reproduced"
    assert set(verdicts(measured(lack=(0.02, 0.05, 0.1, 0.2))).values()) == {"reproduced"}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (
            {"accuracy": swapped(((0, 0), (2, 2)))},
            {"easy generalize better than hard", "random in between"},
        ),
        ({"accuracy": swapped(((1, 1), (2, 2)))}, {"random in between"}),
        ({"accuracy": swapped(((0, 1), (2, 1)))}, {"hard ones do not define the boundary"}),
        ({"accuracy": AS_CLAIMED[::-1]}, BOUNDARY),
        ({"gap": (0.1, 0.6, 0.4)}, {"gaps in reverse order"}),
        ({"gap": (0.6, 0.4, 0.1)}, {"gaps in reverse order"}),
        ({"agreement": 0.05}, {"reliably learned early"}),
        ({"coherence": (2.0, 3.0, 4.0)}, {"easy are more coherent"}),
        ({"lack": (0.2, 0.1, 0.05, 0.02)}, {"a longer brief training leaves harder ones"}),
        (
            {"lack": (0.1, 0.1, -0.1, 0.2)},
            {"hard ones do not define the boundary, 300 steps"},
        ),
        ({"reliable": 0.1}, {"reliably learned, 1000 steps"}),
        ({"wrong": (0.2, 0.25)}, {"an adversarial start makes easy ones hard"}),
        ({"agree": (0.2, 0.3)}, {"what is easy depends on the start"}),
    ],
)
def test_a_claim_that_the_numbers_contradict_is_not_reproduced(change, failing):
    found = verdicts(measured(**change))
    assert {name for name in failing if found[name] == "not reproduced"} == failing


def test_parts_are_not_compared_unless_all_are_fitted():
    found = {j.claim.name: j for j in EXPERIMENT.judgements(measured(fitted=False))}
    assert {name for name, j in found.items() if j.verdict == "reproduced"} == {
        "reliably learned early",
        "easy are more coherent",
        "reliably learned, 1000 steps",
        "a longer brief training leaves harder ones",
        "an adversarial start makes easy ones hard",
        "what is easy depends on the start",
        *(f"hard ones do not define the boundary, {steps} steps" for steps in (100, 300, 1000)),
    }
    assert (
        found["random in between"].reason == "a run never got down to a training loss of 0.02 nats"
    )


def test_a_length_whose_hard_ones_were_not_fitted_is_not_judged():
    found = {j.claim.name: j for j in EXPERIMENT.judgements(measured(lack=(0, 0, 0, np.nan)))}
    for name in ("hard ones do not define the boundary, 1000 steps", LONGER):
        assert found[name].reason == "a run never got down to a training loss of 0.02 nats"


LONGER = "a longer brief training leaves harder ones"


def test_starts_that_did_not_fit_random_labels_are_not_adversarial():
    found = {j.claim.name: j for j in EXPERIMENT.judgements(measured(random_fitted=0.9))}
    for name in ("an adversarial start makes easy ones hard", "what is easy depends on the start"):
        assert found[name].reason == "random labels fitted 0.90 < 0.95"


def test_the_lowest_losses_are_marked_beside_their_class():
    losses, labels = np.array([[0.1, 0.9, 0.2, 0.8]]), np.array([0, 0, 1, 1])
    assert easy_and_hard.lowest(losses, labels, 0.5) == pytest.approx(
        np.array([[0.5, -0.5, 0.5, -0.5]])
    )


def test_the_table_says_what_share_of_a_class_was_learned():
    assert (
        "50% were learned in 60 steps of brief training; of a class 50% to 50%"
        in EXPERIMENT.table(measured())
    )


def pool(count=3000, starts=8, *, alike):
    """Labels, and which examples each start learns.

    The same ones where `alike`, else anew for each; more of one class than of another.
    """
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, count)
    rates = np.array([0.3, 0.5, 0.8])[y]
    drawn = rng.random(count) if alike else rng.random((starts, count))
    right = np.broadcast_to(drawn < rates, (starts, count))
    x = rng.random((count, 4)).astype(np.float32)
    data = SimpleNamespace(outputs=3, x_train=x)
    loss = np.where(right, 0.1, 2.0) + 0.01 * x[:, 0]
    return easy_and_hard.Pool(data, np.arange(count), y, right, loss)


@pytest.mark.parametrize("kind", easy_and_hard.KINDS)
def test_parts_hold_their_kind_as_many_of_every_class_and_no_test_example_among_training_examples(
    kind,
):
    one = pool(alike=False)
    train, test = easy_and_hard.chosen(one.right[0], one.y, kind, 90, 30)
    assert np.bincount(one.y[train]).tolist() == [30, 30, 30]
    assert np.bincount(one.y[test]).tolist() == [10, 10, 10]
    assert one.right[0][np.r_[train, test]].mean() == {"easy": 1, "hard": 0}.get(
        kind, pytest.approx(0.55, abs=0.15)
    )
    of_all_kinds = [
        easy_and_hard.chosen(one.right[0], one.y, each, 90, 30) for each in easy_and_hard.KINDS
    ]
    assert max(each[0].max() for each in of_all_kinds) < min(each[1].min() for each in of_all_kinds)


def test_too_few_examples_of_a_class_are_named_with_the_way_out():
    one = pool(alike=False)
    with pytest.raises(
        ValueError,
        match=r"Part: 300 hard examples of class 2 are needed, of which there are \d+. Take fewer",
    ):
        easy_and_hard.chosen(one.right[0], one.y, "hard", 900, 30)


def test_starts_that_learn_the_same_examples_agree_and_independent_ones_do_not():
    alike, independent = easy_and_hard.seen(pool(alike=True)), easy_and_hard.seen(pool(alike=False))
    assert alike["agreement"] == pytest.approx(1)
    assert independent["agreement"] == pytest.approx(
        0, abs=0.02
    )  # though some classes are learned more often than others
    assert independent["times_learned"] == pytest.approx(independent["by_chance"], abs=0.03)
    assert alike["times_learned"][1:-1] == pytest.approx(0)
    assert alike["times_learned"].sum() == pytest.approx(1)


def test_pictures_are_of_the_examples_with_the_least_and_the_greatest_mean_loss_of_their_class():
    one = pool(alike=True)
    shown = easy_and_hard.seen(one)["pictures"]
    assert shown.shape == (2, 3, easy_and_hard.EXAMPLES_SHOWN, 4)
    for k in range(3):
        of_class = one.loss.mean(0) + np.where(one.y == k, 0, np.nan)
        for kind, index in enumerate((np.nanargmin(of_class), np.nanargmax(of_class))):
            assert shown[kind, k, 0] == pytest.approx(
                255 * one.data.x_train[index] / one.data.x_train.max(), abs=0.5
            )


def test_chance_is_the_distribution_of_independent_events():
    assert easy_and_hard.poisson_binomial([0.5, 0.5, 0.5]) == pytest.approx(
        [1 / 8, 3 / 8, 3 / 8, 1 / 8]
    )
    assert easy_and_hard.poisson_binomial([1.0, 0.0, 0.25]) == pytest.approx([0, 0.75, 0.25, 0])


def test_values_are_read_where_the_loss_first_falls_to_a_level():
    loss, values = np.array([1.0, 0.1, 0.01, 0.2]), np.array([0.0, 1.0, 2.0, 9.0])
    at = lambda level: easy_and_hard.at_loss(loss, values, level)
    assert at(10**-1.5) == pytest.approx(1.5)  # halfway in log loss
    assert at(0.01) == pytest.approx(2)
    assert at(3.0) == 0  # there from the start
    assert np.isnan(at(0.001))
    assert easy_and_hard.at_loss(np.array([[loss], [loss / 10]]), values, 0.1) == pytest.approx(
        np.array([[1.0], [0.0]])
    )


@pytest.mark.slow
def test_the_smoke_preset_splits_trains_on_every_kind_and_draws(tmp_path):
    recorded = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    longer = {f"hard ones do not define the boundary, {steps} steps" for steps in (100, 300, 1000)}
    assert {j.claim.name for j in EXPERIMENT.judgements(recorded)} == {
        claim.name for claim in EXPERIMENT.claims
    } - longer - {"reliably learned, 1000 steps"}
    assert "40 steps of brief training" in EXPERIMENT.table(recorded)
    assert recorded["pictures"].shape == (2, 10, 2, 64)
    assert (
        recorded["learned"][0] != recorded["learned"][1]
    ).any()  # a pool of its own for every seed
    png, *_ = gallery.draw(ROOT, "easy_and_hard", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000
