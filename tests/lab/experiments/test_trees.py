"""Leaf sizes and orders of pairs on cases with known answers.

The judge on numbers whose verdict is known.
"""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
trees = load(ROOT / "experiments" / "trees.py")
EXPERIMENT = collect(trees)
NOISE, LEAVES, C = np.array([0.0, 0.25, 0.5, 1.0]), np.array([1, 8]), np.array([0.0, 4.0])
JITTER = 1 + 0.002 * np.arange(5)


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def test_a_leaf_size_is_how_many_examples_share_the_leaf():
    np.testing.assert_array_equal(
        trees.leaf_sizes(np.array([7, 3, 7, 7, 9, 3])), [3, 2, 3, 3, 1, 2]
    )


def test_the_mean_leaf_size_is_the_m_coherence_of_one_direction_a_leaf():
    from coherence import m_coherence

    leaves = np.array([0, 0, 0, 1, 1, 2])
    gradients = np.eye(3, dtype=np.float32)[leaves]
    assert trees.leaf_sizes(leaves).mean() == pytest.approx(float(m_coherence({"w": gradients})))


def test_fits_tell_pristine_from_corrupt():
    right, corrupt = np.array([True, True, False, True]), np.array([False, False, True, True])
    assert trees.fits(right, corrupt, np.array([True, False])) == [1.0, 0.5, 0.75, 0.5]
    assert np.isnan(trees.fits(right, np.zeros(4, bool), right)[1])


def test_larger_is_the_share_of_pairs_with_ties_by_half():
    values, first = np.array([5.0, 2.0, 2.0, 1.0]), np.array([True, True, False, False])
    assert trees.larger(values, first) == (1 + 1 + 0.5 + 1) / 4
    assert trees.larger(values, ~first) == pytest.approx(1 - (1 + 1 + 0.5 + 1) / 4)


def test_memorized_beyond_is_read_where_a_path_first_fits_as_well():
    path = np.array([[[0.2, 0.0], [0.6, 0.2], [1.0, 0.6], [0.6, 1.0]]])
    assert trees.memorized_beyond(path, np.array([[0.8, 0.1]])) == pytest.approx([0.4 - 0.1])
    assert np.isnan(trees.memorized_beyond(path[:, :2], np.array([[0.8, 0.1]])))


def grown(
    *,
    sizes=(32.0, 16.0, 8.0, 4.0),
    coherence=(8.0, 4.0, 2.0, 1.0),
    tree=(0.0, 0.2),
    net=(0.0, 0.2),
    leaf=0.2,
    c=0.2,
    sgd=1.0,
    depth=0.4,
    stopped=0.4,
    corrupt_first=False,
    late=1,
):
    """Recorded arrays of 5 seeds, as if measured.

    `tree`, `net`: gain of test accuracy by listening to many, without noise and with half. `leaf`,
    `c`, `sgd`: corrupt examples fitted; `depth`, `stopped`: those of the controls where they fit
    the pristine as well. `late`: sign of learning small leaves late.
    """
    fit = lambda pristine, corrupt, test: np.column_stack(
        [np.full((5, 1), pristine), corrupt * JITTER, np.full((5, 1), 0.7), test * JITTER]
    )
    path = lambda corrupt: np.stack([fit(0.5, 0.1, 0), fit(0.8, corrupt, 0), fit(1.0, 1.0, 0)], 1)
    forest = {
        noise: np.stack([fit(1, 1, 0.5), fit(0.8, leaf, 0.5 + tree[int(noise == 0.5)])], 1)
        for noise in NOISE
    }
    pristine = np.tile(np.arange(40) < 20, (5, 1))
    size = np.where(pristine, 10, 1) + np.tile(np.arange(20), 2)
    learned = (late * size + np.sin(np.arange(5))[:, None] * np.arange(40) % 3) / 100
    return {
        "noise": NOISE,
        "leaf": LEAVES,
        "c": C,
        "batch_size": 100,
        "shapes": np.multiply.outer(np.array(sizes), JITTER)[..., None, None]
        ** JITTER[:, None, None]
        * np.ones((1, 1, 2, 3)),
        "m_coherence": (np.multiply.outer(np.array(coherence), JITTER) ** JITTER)[..., None]
        * np.ones(len(trees.LEVELS)),
        "trees": np.array([forest[noise] for noise in NOISE]),
        "forests": np.array([forest[noise] for noise in NOISE]),
        "shallow": np.array([path(depth) for _ in NOISE]),
        "ends": np.array(
            [
                [fit(1, 1, 0.5), fit(0.8, 0.1, 0.5 + net[0])],
                [fit(1, sgd, 0.5), fit(0.8, c, 0.5 + net[1])],
            ]
        ),
        "stopped": path(stopped),
        "sizes": size,
        "learned": learned,
        "corrupt": pristine if corrupt_first else ~pristine,
        "scale": "nowhere",
        "at_source_scale": False,
    }


def test_numbers_as_claimed_reproduce_every_claim():
    found = verdicts(grown())
    assert set(found) == {claim.name for claim in EXPERIMENT.claims}
    assert set(found.values()) == {"reproduced"}
    assert "leaves of 8" in EXPERIMENT.table(grown())


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"sizes": (32.0, 16.0, 20.0, 4.0)}, {"leaves shrink with noise"}),
        ({"coherence": (8.0, 4.0, 2.0, 3.0)}, {"coherence falls with noise"}),
        ({"corrupt_first": True}, {"corrupt examples fall into small leaves"}),
        ({"late": -1}, {"small leaves are learned late"}),
        ({"tree": (-0.2, 0.02)}, {"trees: many restore accuracy"}),
        ({"tree": (0.3, 0.2)}, {"trees: because of noise"}),
        ({"net": (-0.2, 0.02)}, {"networks: many restore accuracy"}),
        ({"net": (0.3, 0.2)}, {"networks: because of noise"}),
        ({"leaf": 0.6}, {"trees: less memorized than by limited depth"}),
        ({"c": 0.6}, {"networks: less memorized than by stopping"}),
    ],
)
def test_a_claim_that_the_numbers_contradict_is_not_reproduced(change, failing):
    found = verdicts(grown(**change))
    assert {name for name, verdict in found.items() if verdict != "reproduced"} == failing
    assert {found[name] for name in failing} == {"not reproduced"}


def test_where_sgd_did_not_memorize_only_trees_are_judged():
    judged = EXPERIMENT.judgements(grown(sgd=0.8))
    lacking = {
        j.claim.name
        for j in judged
        if j.reason == "SGD did not memorize: corrupt accuracy 0.80 < 0.9"
    }
    assert lacking == {
        "small leaves are learned late",
        *(name for name in verdicts(grown()) if name.startswith("networks")),
    }
    assert {j.verdict for j in judged if j.claim.name not in lacking} == {"reproduced"}


def test_a_coherence_that_was_never_reached_decides_nothing():
    recorded = grown()
    recorded["m_coherence"][-1, 0] = np.nan
    assert verdicts(recorded)["coherence falls with noise"] == "inconclusive"


def test_training_examples_change_with_the_seed_and_test_examples_do_not():
    data = trees.SomeDigits(50)
    one, other = data.build(), trees.SomeDigits(50, seed=1).build()
    assert one.x_train.shape == (50, 64)
    assert not np.array_equal(one.y_train, other.y_train)
    np.testing.assert_array_equal(one.x_test, other.x_test)


@pytest.mark.slow
def test_trees_are_grown_on_what_the_network_is_trained_on():
    settings = EXPERIMENT.presets["smoke"]
    arms = trees.arms(settings)
    assert arms["trees,noise=0.5"].network == arms["noise=0.5,c=0"]
    found = arms["trees,noise=0.5"].compute(0)
    assert found["trees"].shape == (len(settings.leaf), len(trees.FITS))
    assert found["trees"][0, :3] == pytest.approx(1)  # fully grown: every label is fitted
    assert found["sizes"].shape == (settings.run.data.examples,)
    assert found["sizes"].mean() == pytest.approx(found["shapes"][0, 0])


@pytest.mark.slow
def test_the_smoke_preset_trains_grows_and_draws(tmp_path):
    recorded = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    assert [j.claim.name for j in EXPERIMENT.judgements(recorded)] == [
        claim.name for claim in EXPERIMENT.claims
    ]
    assert "network, c" in EXPERIMENT.table(recorded)
    png, *_ = gallery.draw(ROOT, "trees", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000
