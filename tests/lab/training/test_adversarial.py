"""Two players in the one loop: whose turn it is, kills, divergence, and bad settings."""

import contextlib
import dataclasses

import jax
import numpy as np
import optax
import pytest

import coherence as co
from coherence.lab.experiment import plain
from coherence.lab.report.records import diverged
from coherence.lab.runs import Run
from coherence.lab.settings import (
    GAN,
    Probing,
    adam,
    circles,
    digits,
    gaussian_ring,
    sgd,
    winsorize,
)
from coherence.lab.tasks.adversarial import PLAYERS
from coherence.lab.training import Adversarial, train
from coherence.lab.training.adversarial import two_players
from coherence.lab.training.order import batches

SMALL = Adversarial(
    data=gaussian_ring(40, 10),
    model=GAN(width=4, depth=1, latents=2, shape=(2,), bounded=False),
    optimizer=adam(3e-3, b1=0.5),
    batch_size=8,
    steps=12,
    points_per_decade=1,
    probes=(),
)
PROBED = dataclasses.replace(SMALL, probes=(Probing(m=16, quantities=(), groups="none"),))


def learn(folder, settings, **options):
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(Run.open(folder, plain(settings), seed=0))
        train(
            [settings.build(0)],
            [run],
            steps=settings.steps,
            batch_size=settings.batch_size,
            schedule=settings.schedule(),
            **options,
        )
    return Run.read(folder)


def changed(settings=SMALL, **kwargs):
    return dataclasses.replace(settings, **kwargs)


def test_it_is_two_optimizers_one_would_write_by_hand(tmp_path):
    settings = changed(discriminator_optimizer=sgd(0.3))
    run, problem = learn(tmp_path, settings), settings.build(0)
    tx = dict(zip(PLAYERS, (optax.adam(3e-3, 0.5), optax.sgd(0.3))))
    players = problem.params["params"]
    states = {name: tx[name].init(players[name]) for name in PLAYERS}
    loss = lambda params, batch: jax.vmap(problem.loss, (None, 0))(params, batch).mean()
    gradient, (x,) = jax.jit(jax.grad(loss)), problem.data["train"]
    for number, index in enumerate(batches(0, 0, 12, examples=40, batch_size=8)):
        keys = jax.random.split(jax.random.fold_in(problem.noise, number), 8)
        both = gradient({"params": players}, (x[index], keys))["params"]
        for name in PLAYERS:
            updates, states[name] = tx[name].update(both[name], states[name])
            players = {**players, name: optax.apply_updates(players[name], updates)}
    final = run.load("params")
    for path, leaf in jax.tree.leaves_with_path({"params": players}):
        np.testing.assert_allclose(final[co.trees.leaf(path)], leaf, rtol=1e-4, atol=1e-6)


def test_a_killed_run_ends_at_the_same_bits(tmp_path):
    settings = changed(discriminator_steps=2, discriminator_aggregator=winsorize(10))
    calls = []
    whole = learn(tmp_path / "a", settings)

    def interrupt(n):
        calls.append(n)
        if len(calls) == 2:
            raise KeyboardInterrupt("now")

    with pytest.raises(KeyboardInterrupt, match="now"):
        learn(tmp_path / "b", settings, checkpoint_seconds=0, progress=interrupt)
    assert Run.read(tmp_path / "b").checkpoints()
    resumed = learn(tmp_path / "b", settings)
    for name, leaf in whole.load("params").items():
        np.testing.assert_array_equal(leaf, resumed.load("params")[name])
    np.testing.assert_array_equal(whole.load("batches")["loss"], resumed.load("batches")["loss"])
    assert whole.records() == resumed.records()


def moved(settings, steps=6):
    """Which players moved at each step."""
    problem = settings.build(0)
    state, params, order = problem.optimizer.init(problem.params), problem.params, []
    update = jax.jit(problem.optimizer.update)
    for _ in range(steps):
        ones = jax.tree.map(np.ones_like, params)
        updates, state = update(ones, state, params)
        order.append(
            [n[0] for n in PLAYERS if any(map(np.any, jax.tree.leaves(updates["params"][n])))]
        )
    return ["".join(names) for names in order]


def test_players_move_together_or_in_turn():
    assert moved(changed(optimizer=sgd(0.1)), 2) == ["gd", "gd"]
    assert moved(changed(optimizer=sgd(0.1), discriminator_steps=2)) == [
        "d",
        "d",
        "g",
        "d",
        "d",
        "g",
    ]


def test_each_player_has_an_aggregator_of_its_own():
    rows = {"params": {name: np.array([[0.0], [0.0], [9.0]]) for name in PLAYERS}}
    params = {"params": {name: np.zeros(1) for name in PLAYERS}}
    tx = two_players(co.optim.average(), co.optim.median())
    updates, _ = tx.update(rows, tx.init(params), params)
    assert (updates["params"]["generator"], updates["params"]["discriminator"]) == (3, 0)
    assert not tx.takes_batch_gradient
    assert two_players(co.optim.average(), co.optim.average()).takes_batch_gradient


def test_coherence_is_recorded_of_each_player(tmp_path):
    records = learn(tmp_path, PROBED).records()
    problem = PROBED.build(0)
    chosen = problem.drawn["sample-train"]
    batch = (problem.data["train"][0][chosen], problem.data["keys"]["train"][0][chosen])

    @jax.jit
    def expect(params, batch):
        _, gradients = co.per_example_value_and_grad(problem.loss)(params, batch)
        return co.m_coherence(gradients, by=lambda path: path[1].key)

    expected = jax.tree.map(float, expect(problem.params, batch))
    assert records[0]["train/by_player_m_coherence"] == pytest.approx(expected, rel=1e-5)
    assert set(records[-1]["train/by_player_mean_squared_norm"]) == set(PLAYERS)
    assert {"test_generator_loss", "train_real_score", "discriminator_rms"} <= set(records[-1])


@pytest.mark.parametrize("name", PLAYERS)
def test_a_player_that_diverged_is_named_and_the_other_is_kept(tmp_path, name):
    wild = {"generator": "optimizer", "discriminator": "discriminator_optimizer"}[name]
    calm = sgd(1e-3)
    settings = changed(
        **{"optimizer": calm, "discriminator_optimizer": calm, wild: sgd(1e30)},
        model=GAN(width=4, depth=1, latents=2, shape=(2,), bounded=False),
    )
    run = learn(tmp_path, settings)
    last, (other,) = run.records()[-1], set(PLAYERS) - {name}
    assert np.isnan(last[f"{name}_rms"])
    assert 0 < last[f"{other}_rms"] < 1
    assert run.done
    assert run.checkpoints()
    assert 0 < diverged(run.records()) <= settings.steps
    for path, leaf in run.load("params").items():
        assert np.isfinite(leaf).all() == (other in path)


def test_settings_say_what_is_run():
    told = Adversarial(model=GAN(classes=10))
    assert told.describe() == (
        "digits (1,000 of 1,437 examples, drawn by seed), conditional GAN 16-128-128-64 against "
        "64-128-128-1, 10 classes"
    )
    assert len(told.build(0).data["train"]) == 2
    assert SMALL.describe() == "gaussian_ring (40 examples, drawn by seed), GAN 2-4-2 against 2-4-1"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: changed(objective="minimax"), "objective.: non_saturating, saturating or"),
        (lambda: changed(penalty=-1.0), "at least 0, got penalty=-1.0"),
        (lambda: changed(discriminator_steps=-1), "discriminator_steps=-1"),
        (
            lambda: changed(data=digits(), model=GAN(classes=7)).build(0),
            r"GAN\(classes=7\) is told one of so many labels; digits has 10",
        ),
        (
            lambda: changed(data=circles(4, 4), model=GAN(shape=(28, 28, 1), classes=10)).build(0),
            "circles has 0",
        ),
        (lambda: changed(data=digits()).build(0), r"digits's images have 64 pixels .* 2"),
    ],
)
def test_what_does_not_go_together_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
