"""Training examples drawn by the seed of a run: which, alone and side by side, and on resume."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest

from coherence.lab.runs import Run
from coherence.lab.settings import AE, MLP, Probing, circles, digits, label_noise
from coherence.lab.training import Autoencoding, Classification, train
from coherence.lab.training.samples import draw, pool_of
from coherence.probes.schedules import Every

SETTINGS = Classification(
    data=digits(examples=60),
    model=MLP(width=4, depth=1),
    noise=label_noise(0.5),
    probes=(Probing(m=20, quantities="light", when=Every(4)),),
    batch_size=10,
    steps=8,
)


def trained(folder, settings, seeds, steps=8, **options):
    """Runs of some seeds, finished at `steps`."""
    with contextlib.ExitStack() as open_runs:
        runs = [
            open_runs.enter_context(Run.open(folder / f"seed={s}", {"batch_size": 10}, seed=s))
            for s in seeds
        ]
        problems = [settings.build(seed) for seed in seeds]
        train(problems, runs, steps=steps, batch_size=10, schedule=(0, 4, 8), **options)
    return runs


def test_each_seed_has_examples_of_its_own_and_the_tests_are_shared():
    pool, problems = digits().build(), [SETTINGS.build(seed) for seed in range(2)]
    for problem in problems:
        index = problem.drawn["examples"]
        assert len(set(index)) == 60
        np.testing.assert_array_equal(problem.data["train"][0], pool.x_train[index])
        pristine = ~problem.drawn["corrupt"]
        np.testing.assert_array_equal(
            problem.data["train"][1][pristine], pool.y_train[index][pristine]
        )
    first, second = (set(problem.drawn["examples"]) for problem in problems)
    assert len(first & second) < 20
    tests = [problem.data["test"] for problem in problems]
    assert all(a is b for a, b in zip(*tests))
    again = SETTINGS.build(1)
    np.testing.assert_array_equal(again.drawn["examples"], problems[1].drawn["examples"])


def test_or_all_seeds_have_the_first_ones():
    settings = Classification(
        data=digits(examples=60), model=MLP(width=4), probes=(), data_by_seed=False
    )
    problems = [settings.build(seed) for seed in range(2)]
    assert problems[0].data["train"][0] is problems[1].data["train"][0]
    np.testing.assert_array_equal(problems[0].data["train"][0], digits().build().x_train[:60])
    assert "examples" not in problems[0].drawn


def test_data_with_a_seed_get_the_runs():
    settings = Autoencoding(data=circles(30, 10), model=AE(width=4, latents=2), probes=())
    for seed in range(2):
        images = circles(30, 10, seed).build()
        np.testing.assert_array_equal(settings.build(seed).data["train"][0], images.x_train)
    assert settings.describe().startswith("circles (30 examples, drawn by seed), AE")
    fixed = dataclasses.replace(settings, data=circles(30, 10, 7), data_by_seed=False)
    images = circles(30, 10, 7).build()
    for seed in range(2):
        np.testing.assert_array_equal(fixed.build(seed).data["train"][0], images.x_train)


def test_what_is_taken_whole_is_one_sample():
    for data in (digits(), circles(30, 10)):
        assert pool_of(data) is None
    assert pool_of(digits(examples=60)) == digits()
    problems = [Classification(model=MLP(width=4)).build(seed) for seed in range(2)]
    assert problems[0].data["train"][0] is problems[1].data["train"][0]


def test_more_examples_keep_those_of_fewer():
    pool = digits().build()
    few, more = (draw(pool, examples, 7)[1] for examples in (20, 50))
    np.testing.assert_array_equal(few, more[:20])


@pytest.mark.parametrize("examples", [0, 1438])
def test_there_are_only_so_many(examples):
    message = rf"digits\(examples\): from 1 to the 1437 training examples there are, got {examples}"
    with pytest.raises(ValueError, match=message):
        draw(digits().build(), examples, 0)


def test_runs_say_so():
    assert "digits (60 of 1,437 examples, drawn by seed), MLP" in SETTINGS.describe()
    images = Autoencoding(
        data=digits(examples=50), model=AE(width=4, latents=2, shape=(8, 8, 1)), probes=()
    )
    assert images.describe().startswith("digits (50 of 1,437 examples, drawn by seed), AE")
    problems = [images.build(seed) for seed in range(2)]
    pool = digits().build().x_train.reshape(-1, 8, 8, 1)
    for problem in problems:
        np.testing.assert_array_equal(problem.data["train"][0], pool[problem.drawn["examples"]])
    assert problems[0].data["test"][0] is problems[1].data["test"][0]


def test_seeds_side_by_side_see_each_its_own(tmp_path):
    alone = trained(tmp_path / "alone", SETTINGS, range(2), vmapped=False)
    together = trained(tmp_path / "together", SETTINGS, range(2), vmapped=True)
    for a, b in zip(alone, together):
        np.testing.assert_array_equal(a.load("drawn")["examples"], b.load("drawn")["examples"])
        for name, leaf in a.load("params").items():
            np.testing.assert_allclose(leaf, b.load("params")[name], rtol=1e-4, atol=1e-6)
        for x, y in zip(a.records(), b.records()):
            np.testing.assert_allclose(x["train_loss"], y["train_loss"], rtol=1e-5)
            np.testing.assert_allclose(x["train/m_coherence"], y["train/m_coherence"], rtol=1e-4)


def test_a_resumed_run_goes_on_with_its_examples(tmp_path):
    (whole,) = trained(tmp_path / "whole", SETTINGS, [3])
    trained(tmp_path / "parts", SETTINGS, [3], steps=4)
    (parts,) = trained(tmp_path / "parts", SETTINGS, [3])
    assert whole.records() == parts.records()
    for name, leaf in whole.load("params").items():
        np.testing.assert_array_equal(leaf, parts.load("params")[name])


def test_probes_look_at_examples_of_their_run(tmp_path):
    (run,) = trained(tmp_path, SETTINGS, [5])
    drawn, pool = run.load("drawn"), digits().build()
    looked_at = pool.x_train[drawn["examples"][drawn["sample-train"]]]
    probe = SETTINGS.build(5).probes[0]
    np.testing.assert_array_equal(jax.tree.leaves(probe.sample.examples)[0], looked_at)
