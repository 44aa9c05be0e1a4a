"""Boltzmann machines as settings: they learn, resume at the same bits, and refuse bad data."""

import dataclasses

import jax
import numpy as np
import pytest

from coherence.lab.runs import Run
from coherence.lab.settings import Probing, digits, label_noise, learnable, median_of_means, sgd
from coherence.lab.training import ContrastiveDivergence, Problem, train
from coherence.lab.training.boltzmann import binary
from coherence.probes import Every

SMALL = ContrastiveDivergence(
    data=digits(examples=200),
    hidden=8,
    optimizer=sgd(0.1, momentum=0.5),
    batch_size=20,
    steps=12,
    points_per_decade=1,
    probes=(),
)
PERSISTENT = dataclasses.replace(SMALL, persistent=True)


def learn(folder, settings, steps=None, measure=False):
    with Run.open(folder, {}, seed=0) as run:
        train(
            [settings.build(0)],
            [run],
            steps=steps or settings.steps,
            batch_size=settings.batch_size,
            schedule=settings.schedule() if measure else (),
        )
    return Run.read(folder)


def test_a_run_that_goes_on_ends_at_the_bits_of_a_whole_one_chains_and_all(tmp_path):
    whole, halved = learn(tmp_path / "whole", PERSISTENT), tmp_path / "halved"
    learn(halved, PERSISTENT, steps=1)
    early = np.load(halved / "checkpoint-1.npz")
    problem = PERSISTENT.build(0)
    rows, move = problem.chains
    assert rows.shape == (20, 74)
    assert (rows[:, 64:].sum(1) == 1).all()
    keys = jax.random.split(jax.random.fold_in(problem.noise, 0), 20)
    moved = jax.jit(jax.vmap(move, (None, 0, 0)))(problem.params, rows, keys)
    np.testing.assert_array_equal(early["state/chains"], moved)
    again = learn(halved, PERSISTENT)
    for name in ("params", "batches"):
        jax.tree.map(np.testing.assert_array_equal, whole.load(name), again.load(name))
    assert SMALL.build(0).chains is None  # others start at the examples


def test_it_learns_noisy_labels_too_and_says_what_it_reached(tmp_path):
    probing = Probing(m=50, quantities="light", when=Every(150))
    settings = dataclasses.replace(
        SMALL, noise=label_noise(0.3), hidden=32, steps=300, probes=(probing,)
    )
    first, *_, last = learn(tmp_path / "run", settings, measure=True).records()
    assert first["test_accuracy"] < 0.3  # chance is 0.1
    assert last["test_accuracy"] > 0.5 > last["corrupt_accuracy"]
    assert last["test_pseudo_likelihood"] > first["test_pseudo_likelihood"] + 15
    problem = settings.build(0)
    rate = problem.drawn["corrupt"].mean()
    mixed = rate * last["corrupt_accuracy"] + (1 - rate) * last["pristine_accuracy"]
    assert last["train_accuracy"] == pytest.approx(mixed, abs=1e-5)
    # A probe looks at its examples with the keys that all is measured with.
    sample, keys = problem.drawn["sample-train"], problem.data["keys"]["train"][0]
    batch = (*(array[sample] for array in problem.data["train"]), keys[sample])
    losses = jax.jit(jax.vmap(problem.loss, (None, 0)))(problem.params, batch)
    assert first["train/loss"] == pytest.approx(float(losses.mean()), rel=1e-3, abs=1e-4)


def test_an_aggregator_gets_the_gradients_of_examples(tmp_path):
    robust = dataclasses.replace(SMALL, aggregator=median_of_means(3), steps=2)
    assert robust.build(0).per_example
    learned = learn(tmp_path / "run", robust).load("params")
    start = robust.build(0).params["params"]
    assert not np.array_equal(learned["params/kernel"], start["kernel"])


def test_they_describe_themselves():
    assert SMALL.describe() == (
        "digits (200 of 1,437 examples, drawn by seed), RBM 64-8, 10 classes, CD-1"
    )
    plain = dataclasses.replace(PERSISTENT, labels=False, k=5)
    assert plain.describe().endswith("RBM 64-8, persistent CD-5")


def test_numbers_become_zeros_and_ones_or_are_refused():
    grey = np.array([[[0.0, 0.5], [0.51, 1.0]]])
    assert binary(grey, 0.5, "mine").tolist() == [[0, 0, 1, 1]]
    assert binary(np.eye(2), None, "mine").tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ValueError, match=r"mine: .* 0 or 1, got 0.5 among 4 .* threshold=0.5"):
        binary(grey, None, "mine")
    with pytest.raises(ValueError, match=r"digits: the units of a Boltzmann machine are 0 or 1"):
        dataclasses.replace(SMALL, threshold=None).build(0)


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match=r"ContrastiveDivergence\(k\): at least 1 sweep .* got 0"):
        ContrastiveDivergence(k=0)
    with pytest.raises(ValueError, match=r"learnable has targets, not classes; .* labels=False"):
        ContrastiveDivergence(data=learnable()).build(0)
    problem = PERSISTENT.build(0)
    with pytest.raises(ValueError, match=r"chains are moved at random: give a key"):
        Problem(
            problem.loss, problem.params, problem.data, problem.optimizer, chains=problem.chains
        )
