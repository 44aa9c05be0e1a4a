"""The loop: what is measured never changes what is learned, and an interruption leaves no trace."""

import contextlib
import dataclasses
import errno
import itertools
import os
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import coherence as co
from coherence.lab import cli
from coherence.lab.analysis import at_loss_levels, stacked
from coherence.lab.runs import Run
from coherence.lab.settings import (
    MLP,
    Probing,
    adam,
    any_of,
    coherence,
    evidence,
    gradient_norm,
    l1_decay,
    l2_decay,
    label_noise,
    sgd,
    soft_threshold,
)
from coherence.lab.training import Classification, Problem, step, train
from coherence.lab.training.checkpoints import digest, from_arrays, to_arrays
from coherence.lab.training.order import batches
from coherence.lab.training.programs import PROGRAMS
from tests import zoo

# Of the module, so that its problems are equal, and share programs.
OPTIMIZER = optax.adam(0.05)


def loss(p, example):
    return 0.5 * jnp.sum((jnp.tanh(example[0] @ p["w"] + p["b"]) - example[1]) ** 2)


def measure(p, data):
    return {
        "loss": jnp.mean(jax.vmap(loss, (None, 0))(p, data["train"])),
        "norms": jnp.sum(p["w"] ** 2, 0),
    }


def problem(seed, **kwargs):
    own = {
        "loss": loss,
        "params": {"w": zoo.normal(seed + 1, 6, 2), "b": np.zeros(2, np.float32)},
        "data": {"train": (zoo.normal(99, 40, 6), zoo.normal(seed, 40, 2))},
        "optimizer": OPTIMIZER,
        "measure": measure,
    }
    return Problem(**{**own, **kwargs})


def learn(folder, seeds=(0,), make=problem, steps=60, schedule=(0, 3, 20, 60), **kwargs):
    with contextlib.ExitStack() as stack:
        runs = [
            stack.enter_context(Run.open(folder / f"seed={seed}", {"batch_size": 8}, seed=seed))
            for seed in seeds
        ]
        train(
            [make(seed) for seed in seeds],
            runs,
            steps=steps,
            batch_size=8,
            schedule=schedule,
            **kwargs,
        )
    return [Run.read(folder / f"seed={seed}") for seed in seeds]


def interrupted_at(call):
    """Progress during whose so-manieth call, from 0, someone presses Ctrl-C."""
    calls = itertools.count()

    def progress(n):
        if next(calls) == call:
            raise KeyboardInterrupt(f"call {call}")

    return progress


def final(run):
    return run.load("params")


def same_bits(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(final(a).values(), final(b).values(), strict=True)
    )


def test_it_is_the_loop_one_would_write_by_hand(tmp_path):
    (run,) = learn(tmp_path)
    one = problem(0)
    params, state = one.params, one.optimizer.init(one.params)
    x, y = one.data["train"]

    @jax.jit
    def follow(params, state, batch):
        g = jax.grad(lambda p: jnp.mean(jax.vmap(one.loss, (None, 0))(p, batch)))(params)
        updates, state = one.optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    for i in batches(0, 0, 60, examples=40, batch_size=8):
        params, state = follow(params, state, (x[i], y[i]))
    np.testing.assert_allclose(final(run)["w"], params["w"], rtol=1e-4)


def test_probes_never_change_the_run(tmp_path):
    (bare,) = learn(
        tmp_path / "a", schedule=(0,), make=lambda s: problem(s, measure=lambda p, d: {})
    )
    (probed,) = learn(tmp_path / "b", schedule=range(61))
    assert same_bits(bare, probed)
    assert [r["step"] for r in probed.records()] == list(range(61))


def test_the_chunk_length_never_changes_the_run(tmp_path, monkeypatch):
    (many,) = learn(tmp_path / "a")
    PROGRAMS.clear()
    monkeypatch.setattr(step, "CHUNK", 7)
    (few,) = learn(tmp_path / "b")
    assert same_bits(many, few)


def test_whole_chunks_have_a_program_of_their_own_beside_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(step, "CHUNK", 7)
    (plain,) = learn(tmp_path / "a")
    whole = []
    original = step.make_advance

    def noting(function, length, is_whole):
        whole.append(is_whole)
        return original(function, length, is_whole)

    PROGRAMS.clear()
    monkeypatch.setattr(step, "make_advance", noting)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    (divided,) = learn(tmp_path / "b")
    assert whole == [False, True]
    assert same_bits(plain, divided)


def test_one_program_serves_the_whole_run(tmp_path):
    traces = []

    def counting(seed):
        one = problem(seed)

        def loss(p, e):
            traces.append(1)
            return one.loss(p, e)

        return problem(seed, loss=loss)

    learn(tmp_path / "a", make=counting, schedule=(0, 60))
    few = len(traces)
    traces.clear()
    learn(tmp_path / "b", make=counting, schedule=range(61))
    assert len(traces) == few


@pytest.mark.parametrize("vmapped", [False, True])
def test_an_interrupted_run_ends_at_the_same_bits(tmp_path, vmapped):
    seeds = (0, 1)
    whole = learn(tmp_path / "a", seeds, vmapped=vmapped)
    seen = []

    def interrupt(n):
        seen.append(n)
        if len(seen) == 3:
            raise KeyboardInterrupt("now")

    with pytest.raises(KeyboardInterrupt, match="now"):
        learn(tmp_path / "b", seeds, vmapped=vmapped, checkpoint_seconds=0, progress=interrupt)
    resumed = learn(tmp_path / "b", seeds, vmapped=vmapped)
    for one, other in zip(whole, resumed):
        assert same_bits(one, other)
        assert one.records() == other.records()
        np.testing.assert_array_equal(one.load("batches")["loss"], other.load("batches")["loss"])


def test_a_disk_that_fills_up_costs_what_came_after_the_last_checkpoint(tmp_path, monkeypatch):
    (whole,) = learn(tmp_path / "a")
    save = Run.checkpoint

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:

        def fill(run, step, arrays):
            if step == 20:
                patched.setattr(os, "fsync", full)
            save(run, step, arrays)

        patched.setattr(Run, "checkpoint", fill)
        with pytest.raises(
            OSError,
            match=r"cannot write .*metrics\.jsonl \(No space left on device\).* goes on from its "
            r"last checkpoint",
        ):
            learn(tmp_path / "b", checkpoint_seconds=0)
    assert list(Run.read(tmp_path / "b" / "seed=0").checkpoints()) == [3]
    (resumed,) = learn(tmp_path / "b")
    assert same_bits(whole, resumed)
    assert whole.records() == resumed.records()


def test_a_half_written_checkpoint_is_passed_over_for_the_one_before(tmp_path):
    (whole,) = learn(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt, match="call 2"):
        learn(tmp_path / "b", checkpoint_seconds=0, progress=interrupted_at(2))
    newest = tmp_path / "b" / "seed=0" / "checkpoint-20.npz"
    newest.write_bytes(newest.read_bytes()[:-50])
    assert list(Run.read(newest.parent).checkpoints()) == [3]
    (resumed,) = learn(tmp_path / "b")
    assert same_bits(whole, resumed)
    assert whole.records() == resumed.records()
    np.testing.assert_array_equal(whole.load("batches")["loss"], resumed.load("batches")["loss"])


def test_seeds_side_by_side_learn_what_they_learn_in_turn(tmp_path):
    together = learn(tmp_path / "a", (0, 1, 2), vmapped=True)
    in_turn = learn(tmp_path / "b", (0, 1, 2), vmapped=False)
    for one, other in zip(together, in_turn):
        np.testing.assert_allclose(final(one)["w"], final(other)["w"], rtol=1e-4)
        np.testing.assert_allclose(
            one.records()[-1]["norms"], other.records()[-1]["norms"], rtol=1e-4
        )


def test_finished_seeds_are_left_alone_and_seeds_can_be_added_later(tmp_path):
    learn(tmp_path, (0,))
    before = (tmp_path / "seed=0" / "params.npz").stat().st_mtime_ns
    runs = learn(tmp_path, (0, 1))
    assert all(run.done for run in runs)
    assert (tmp_path / "seed=0" / "params.npz").stat().st_mtime_ns == before


def test_tracked_batches_are_the_moments_of_each_step(tmp_path):
    (run,) = learn(
        tmp_path, make=lambda s: problem(s, track_batches=True, optimizer=optax.sgd(0.0))
    )
    one, tracked = problem(0), run.load("batches")
    x, y = one.data["train"]
    i = batches(0, 5, 6, examples=40, batch_size=8)[0]
    losses, g = jax.jit(co.per_example_value_and_grad(loss))(one.params, (x[i], y[i]))
    np.testing.assert_allclose(tracked["loss"][5], losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(
        tracked["squared_norm_of_mean"][5] / tracked["mean_squared_norm"][5], co.alpha(g), rtol=1e-5
    )


def test_a_background_force_pulls_before_the_optimizer_and_a_threshold_cuts_behind_it():
    def after_one_step(decay, optimizer=None):
        problem = Classification(
            model=MLP(width=2), decay=decay, optimizer=optimizer or sgd(0.5), probes=()
        ).build(0)

        @jax.jit
        def after():
            nothing = jax.tree.map(jnp.zeros_like, problem.params)
            ones = jax.tree.map(jnp.ones_like, problem.params)
            updates, _ = problem.optimizer.update(nothing, problem.optimizer.init(ones), ones)
            return optax.apply_updates(ones, updates)

        return np.unique([np.ravel(x)[0] for x in jax.tree.leaves(after())]).tolist()

    assert after_one_step(None) == [1]
    assert after_one_step(l1_decay(0.5)) == after_one_step(l2_decay(0.5)) == [0.75]
    assert after_one_step(soft_threshold(0.25)) == [0.75]
    np.testing.assert_allclose(
        after_one_step(l1_decay(100.0), adam(0.5)), [0.5], rtol=1e-5
    )  # Adam takes the pull for a gradient


def test_divergence_is_data(tmp_path, capsys):
    """Trained, recorded, resumed, shown and summed up like any other run."""
    settings = Classification(
        model=MLP(width=8), optimizer=sgd(1e30), steps=20, probes=(Probing(m=50),)
    )

    def diverge(folder, **kwargs):
        run = Run.open(folder, {"batch_size": settings.batch_size}, seed=0)
        train(
            [settings.build(0)],
            [run],
            steps=settings.steps,
            batch_size=100,
            schedule=settings.schedule(),
            **kwargs,
        )
        return run

    with pytest.raises(KeyboardInterrupt, match="call 6"):
        diverge(tmp_path, checkpoint_seconds=0, progress=interrupted_at(6))
    run = diverge(tmp_path)
    first, *_, last = run.records()
    assert (run.done, last["step"]) == (True, 20)
    assert np.isfinite(first["train_loss"])
    assert np.isnan(
        [last["train_loss"], last["train/m_coherence"], *last["train/m_coherence_by_group"]]
    ).all()
    assert last["test_accuracy"] == 0
    assert np.isnan(run.load("batches")["loss"][-1])
    assert np.isnan(run.load("params")["params/output/kernel"]).any()
    assert np.isnan(at_loss_levels([run], (0.5,), 5)).all()
    assert np.isnan(stacked([run], "train_loss")["train_loss"][0, -1])
    cli.main(["show", str(tmp_path)])
    assert "nan" in capsys.readouterr().out


def stopping_problem(seed):
    """Its loss on other examples falls, then rises: patience stops it before step 60."""
    one = problem(seed)
    data = {**one.data, "others": (zoo.normal(50 + seed, 20, 6), zoo.normal(60 + seed, 20, 2))}
    watched = lambda p, data: {
        "watched": jnp.mean(jax.vmap(one.loss, (None, 0))(p, data["others"]))
    }
    return problem(
        seed, data=data, measure=watched, stopping=(co.optim.stopping.patience(10), "watched")
    )


def test_an_early_stopped_run_keeps_its_best_parameters(tmp_path):
    (run,) = learn(tmp_path, make=stopping_problem, schedule=range(61))
    losses = [record["watched"] for record in run.records()]
    best, end = int(np.argmin(losses)), run.summary["step"]
    assert run.done
    assert 0 < best == end - 10 < 50
    assert run.summary == {"step": end, "stopped": True, "best_metric": losses[best]}
    (cut,) = learn(tmp_path / "cut", make=problem, steps=best)
    for name, value in run.load("best_params").items():
        np.testing.assert_array_equal(value, final(cut)[name])
    assert not same_bits(run, cut)


def test_a_run_that_is_not_stopped_keeps_its_best_parameters_too(tmp_path):
    stopping = (co.optim.stopping.below(-1.0, "loss"), "loss")
    (run,) = learn(tmp_path, make=lambda s: problem(s, stopping=stopping))
    assert (run.summary["step"], run.summary["stopped"]) == (60, False)
    np.testing.assert_array_equal(run.load("best_params")["w"], final(run)["w"])


def test_without_early_stopping_there_are_no_best_parameters(tmp_path):
    (run,) = learn(tmp_path)
    assert run.summary == {"step": 60}
    with pytest.raises(FileNotFoundError, match="has no arrays 'best_params'"):
        run.load("best_params")


def test_several_rules_watch_each_their_own_quantity_and_the_step(tmp_path):
    rule = co.optim.stopping.any_of(
        co.optim.stopping.patience(1000), co.optim.stopping.max_steps(15)
    )
    (run,) = learn(tmp_path, make=lambda s: problem(s, stopping=(rule, ("loss", "step"))))
    assert run.summary == {
        "step": 20,
        "stopped": True,
        "best_metric": 20.0,
    }  # the first measurement at or after 15


def test_a_rule_never_changes_the_steps_before_it_stops(tmp_path):
    (stopped,) = learn(tmp_path / "a", make=stopping_problem, schedule=range(61))
    (bare,) = learn(tmp_path / "b", steps=stopped.summary["step"])
    assert same_bits(stopped, bare)


@pytest.mark.parametrize("kill", ["in the middle", "when it has stopped", "at the very start"])
def test_an_interrupted_early_stopped_run_stops_at_the_same_step_with_the_same_best_parameters(
    tmp_path, monkeypatch, kill
):
    make = stopping_problem
    if kill == "at the very start":  # stopped by its first measurement
        make = lambda s: problem(s, stopping=(co.optim.stopping.above(0.0, "loss"), "loss"))
    (whole,) = learn(tmp_path / "a", make=make, schedule=range(61))
    moments = iter(range(60))

    def interrupt(*_):
        if next(moments) == (7 if kill == "in the middle" else 0):
            raise KeyboardInterrupt("now")

    with monkeypatch.context() as patched:
        if kill != "in the middle":
            patched.setattr(Run, "finish", interrupt)
        progress = interrupt if kill == "in the middle" else None
        with pytest.raises(KeyboardInterrupt, match="now"):
            learn(
                tmp_path / "b",
                make=make,
                schedule=range(61),
                checkpoint_seconds=0,
                progress=progress,
            )
    (resumed,) = learn(tmp_path / "b", make=make, schedule=range(61))
    assert same_bits(whole, resumed)
    assert whole.records() == resumed.records()
    assert whole.summary == resumed.summary
    for name, value in whole.load("best_params").items():
        np.testing.assert_array_equal(value, resumed.load("best_params")[name])


@pytest.mark.parametrize(
    ("stopping", "message"),
    [
        (
            (co.optim.stopping.patience(3), "valid_loss"),
            "stopping watches 'valid_loss', which measure does not return; there is loss, norms, "
            "step.",
        ),
        (
            (co.optim.stopping.patience(3), "norms"),
            r"stopping watches 'norms', an array of shape \[2\]: a rule needs one number.",
        ),
        (
            (co.optim.stopping.any_of(co.optim.stopping.patience(3)), "loss"),
            "watches one metric a rule, in their order: a tuple of 1, got a ",
        ),
    ],
)
def test_a_rule_that_watches_what_is_not_measured_is_refused_before_anything_runs(
    tmp_path, stopping, message
):
    with pytest.raises(ValueError, match=message):
        learn(tmp_path, make=lambda s: problem(s, stopping=stopping))
    assert not Run.read(tmp_path / "seed=0").records()


def test_seeds_with_early_stopping_run_in_turn(tmp_path):
    one, other = learn(tmp_path / "a", (0, 1), make=stopping_problem, schedule=range(61))
    assert one.summary["step"] != other.summary["step"]
    with pytest.raises(
        ValueError,
        match="vmapped: seeds with early stopping end at different steps and run in turn; leave it "
        "at None",
    ):
        learn(tmp_path / "b", (0, 1), make=stopping_problem, vmapped=True)


def test_a_rule_about_gradients_looks_at_the_first_sample_of_training_examples():
    probes = (
        Probing(of="test", m=30),
        Probing(of="corrupt", m=20),
        Probing(of="train", m=40, name="first"),
        Probing(of="train", m=50, name="second"),
    )
    settings = Classification(
        noise=label_noise(0.5), model=MLP(width=4, depth=1), probes=probes, stopping=coherence()
    )
    made = settings.build(3)
    sample = made.drawn["sample-first"]
    x, y = made.data["train"]
    value_and_grad = jax.jit(co.per_example_value_and_grad(made.loss))
    _, gradients = value_and_grad(made.params, (x[sample], y[sample]))
    measured = jax.jit(made.measure)(made.params, made.data)["m_coherence"]
    np.testing.assert_allclose(measured, jax.jit(co.m_coherence)(gradients), rtol=1e-5)
    without = dataclasses.replace(settings, probes=probes[:2])
    with pytest.raises(ValueError, match=r"looks at gradients of training examples: add a probe"):
        without.build(3)


@pytest.mark.parametrize("rule", [evidence(checks=2), coherence()])
def test_on_digits_with_wrong_labels_it_stops_before_they_are_memorized(tmp_path, rule):
    """At a small step size: with large steps and small batches neither rule spoke in trial runs."""
    settings = Classification(
        noise=label_noise(0.5),
        model=MLP(width=64),
        batch_size=1437,
        steps=2000,
        probes=(Probing(m=1000),),
        points_per_decade=20,
        track_batches=False,
        stopping=any_of(rule, gradient_norm(1e-6)),
    )
    run = Run.open(tmp_path, {"batch_size": settings.batch_size}, seed=0)
    train(
        [settings.build(0)],
        [run],
        steps=settings.steps,
        batch_size=settings.batch_size,
        schedule=settings.schedule(),
    )
    (*_, last) = run.records()
    assert run.summary["stopped"]
    assert last["step"] < 400
    assert last["pristine_accuracy"] > 0.75
    assert last["corrupt_accuracy"] < 0.1
    assert ("evidence" in last) == isinstance(rule, evidence)  # measured where it is watched


def test_a_convolution_on_the_cpu_gets_no_loop():
    loss, params, batch = zoo.convolution()
    convolution = Problem(loss=loss, params=params, data={"train": batch}, optimizer=optax.sgd(0.1))
    chunk = lambda one: step.Steps(one.recipe).chunk(
        step.initial_state(one), one.data["train"], batch_size=2
    )
    assert chunk(convolution) == (1 if jax.default_backend() == "cpu" else step.CHUNK)
    assert chunk(problem(0)) == step.CHUNK


def test_every_epoch_is_a_permutation_and_position_is_just_the_step():
    order = batches(3, 0, 12, examples=10, batch_size=3)
    for epoch in order.reshape(4, 9):
        assert len(set(epoch.tolist())) == 9
    np.testing.assert_array_equal(order[7:9], batches(3, 7, 9, examples=10, batch_size=3))
    assert not np.array_equal(order, batches(4, 0, 12, examples=10, batch_size=3))
    np.testing.assert_array_equal(batches(3, 0, 2, examples=4, batch_size=4), [[0, 1, 2, 3]] * 2)


@pytest.mark.parametrize("steps", [-1, 2.5, None])
def test_steps_are_a_whole_number(tmp_path, steps):
    with pytest.raises(
        ValueError, match=r"train\(steps\): a whole number of steps, at least 0, got"
    ):
        learn(tmp_path, steps=steps)
    assert learn(tmp_path / "numpy", steps=np.int64(1))[0].summary == {"step": 1}


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="batch_size must be between 1 and the 40 training examples, got 41"
    ):
        train([problem(0)], [Run.open(tmp_path, {}, seed=0)], steps=1, batch_size=41, schedule=(0,))


def test_state_survives_as_arrays_to_the_last_bit():
    state = {
        "key": jax.random.key(3),
        "half": jnp.asarray([1.5, -0.0], jnp.bfloat16),
        "n": jnp.int32(3),
        "x": zoo.normal(0, 2, 2),
    }
    back = from_arrays(state, to_arrays(state))
    assert back["half"].dtype == jnp.bfloat16
    for ours, theirs in zip(jax.tree.leaves(to_arrays(back)), jax.tree.leaves(to_arrays(state))):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(
        ValueError,
        match="the checkpoint is of another training state: n is in one and not in the other",
    ):
        from_arrays({"n": jnp.int32(1)}, {})


@pytest.mark.parametrize(
    ("dtype", "saved", "message"),
    [
        (jnp.bfloat16, np.float16, r"w is float16 \[2\], not bfloat16 \[2\]"),
        (jnp.float32, np.int32, r"w is int32 \[2\], not float32 \[2\]"),
        (jnp.float32, ">f4", r"w is >f4 \[2\], not float32 \[2\]"),
        (jnp.bfloat16, np.uint8, r"w is uint8 \[2\], not bfloat16 \[2\]"),
    ],
)
def test_arrays_of_another_type_are_refused(dtype, saved, message):
    with pytest.raises(ValueError, match=message):
        from_arrays({"w": jnp.zeros(2, dtype)}, {"w": np.ones(2, saved)})


def test_slashes_in_names_lose_no_leaf():
    state = {"a/b": jnp.ones(2), "a": {"b": jnp.zeros(2), "%2Fb": jnp.full(2, 2.0)}, "a%2Fb": 3.0}
    arrays = to_arrays(state)
    assert len(arrays) == 4
    for ours, theirs in zip(jax.tree.leaves(from_arrays(state, arrays)), jax.tree.leaves(state)):
        np.testing.assert_array_equal(ours, theirs)
    assert list(to_arrays(jnp.ones(2))) == ["all"]


def test_a_scalar_of_a_type_that_numpy_does_not_know_comes_back():
    state = {"half": jnp.bfloat16(1.5)}
    assert from_arrays(state, to_arrays(state))["half"] == state["half"]


def test_a_finished_run_goes_on_where_more_steps_are_asked_for(tmp_path):
    (whole,) = learn(tmp_path / "a", schedule=(0, 20, 60))
    learn(tmp_path / "b", steps=20, schedule=(0, 20))
    with Run.open(tmp_path / "b" / "seed=0", {"batch_size": 8}, seed=0) as run:
        with pytest.raises(ValueError, match="batch_size must be between 1 and"):
            train([problem(0)], [run], steps=60, batch_size=10**6, schedule=())
        assert run.done  # what was refused has changed nothing
    said = []
    (longer,) = learn(tmp_path / "b", schedule=(0, 20, 60), say=said.append)
    assert said == [f"{tmp_path / 'b' / 'seed=0'} was finished at step 20 and goes on to 60"]
    assert longer.done
    assert same_bits(whole, longer)
    assert whole.records() == longer.records()
    np.testing.assert_array_equal(whole.load("batches")["loss"], longer.load("batches")["loss"])


def test_fewer_steps_than_a_run_has_done_are_refused_and_nothing_is_lost(tmp_path):
    learn(tmp_path / "a")
    with pytest.raises(ValueError, match=r"is finished at step 60, beyond the 20 steps asked for"):
        learn(tmp_path / "a", steps=20)
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "b", checkpoint_seconds=0, progress=interrupted_at(2))
    before = sorted(path.name for path in (tmp_path / "b" / "seed=0").iterdir())
    with pytest.raises(ValueError, match=r"has come to step 20, beyond the 10 steps asked for"):
        learn(tmp_path / "b", steps=10)
    assert sorted(path.name for path in (tmp_path / "b" / "seed=0").iterdir()) == before


def test_an_early_stopped_run_is_finished_however_many_steps_are_asked_for(tmp_path):
    (run,) = learn(tmp_path, make=stopping_problem, schedule=range(61))
    end = run.summary["step"]
    (same,) = learn(tmp_path, make=stopping_problem, schedule=range(101), steps=100)
    assert same.summary["step"] == end


def test_a_seed_added_side_by_side_does_not_undo_the_others(tmp_path):
    seen = []

    def interrupt(n):
        seen.append(n)
        if len(seen) == 3:
            raise KeyboardInterrupt("now")

    with pytest.raises(KeyboardInterrupt, match="now"):
        learn(tmp_path, (0, 1), vmapped=True, checkpoint_seconds=0, progress=interrupt)
    seen.clear()
    learn(tmp_path, (0, 1, 2), vmapped=True, progress=seen.append)
    assert seen[0] == 2 * 20  # both go on from step 20
    assert sum(seen) == 3 * 60


def test_every_problem_has_its_run(tmp_path):
    with (
        Run.open(tmp_path, {}, seed=0) as run,
        pytest.raises(ValueError, match="one run per problem, got 2 problems and 1 runs"),
    ):
        train([problem(0), problem(1)], [run], steps=1, batch_size=8, schedule=())


def test_a_stopping_rule_that_is_never_asked_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none is scheduled between steps 1 and 60"):
        learn(tmp_path, make=stopping_problem, schedule=(0,))


def test_a_run_killed_at_any_moment_resumes_to_the_same_bits(tmp_path):
    """kill -9, twice in each of two trainings, at moments nobody chose."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import sys, time, pathlib
        sys.path.insert(0, sys.argv[2])
        from tests.lab.training import test_loop
        for make in (test_loop.problem, test_loop.stopping_problem):
            slow = lambda n: (print(make.__name__, flush=True), time.sleep(0.01))
            options = dict(checkpoint_seconds=0, progress=slow, schedule=range(61))
            folder = pathlib.Path(sys.argv[1], make.__name__)
            test_loop.learn(folder, (0, 1), make, **options)
        """)
    )
    command = [sys.executable, str(script), str(tmp_path / "killed"), os.getcwd()]
    for make, lines in ((problem, 2), (problem, 9), (stopping_problem, 2), (stopping_problem, 17)):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while lines and (line := process.stdout.readline()):
                lines -= line.strip() == make.__name__
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    subprocess.run(command, check=True, capture_output=True)
    for make in (problem, stopping_problem):
        whole = learn(tmp_path / make.__name__, (0, 1), make=make, schedule=range(61))
        killed = [Run.read(tmp_path / "killed" / make.__name__ / f"seed={s}") for s in (0, 1)]
        for one, other in zip(whole, killed):
            assert same_bits(one, other)
            assert one.records() == other.records()
            assert one.summary == other.summary
            if make is stopping_problem:
                best = [run.path / "best_params.npz" for run in (one, other)]
                assert best[0].read_bytes() == best[1].read_bytes()


def test_data_that_changed_between_kill_and_resume_are_refused(tmp_path):
    def other(seed):
        x, y = problem(seed).data["train"]
        return problem(seed, data={"train": (x, y.at[3, 1].add(1e-3))})

    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path, checkpoint_seconds=0, progress=interrupted_at(2))
    with pytest.raises(
        ValueError,
        match=r"seed=0 was begun with other data: train changed since\. Bring the old file back, "
        "or delete that directory",
    ):
        learn(tmp_path, make=other)
    (run,) = learn(tmp_path)  # nothing was lost
    assert run.done
    with pytest.raises(ValueError, match="seed=0 was begun with other data"):
        learn(tmp_path, (0, 1), make=other)  # nor may a seed be added with other data
    assert not (tmp_path / "seed=1" / "metrics.jsonl").exists()


def test_the_settings_of_changed_data_are_named(tmp_path):
    config = {"data": {"kind": "npz", "path": "mine.npz"}}
    with Run.open(tmp_path, config, seed=0) as run:
        run.annotate(data={"train": "of the file as it was"})
        with pytest.raises(
            ValueError,
            match=r'changed since \(settings: {"kind": "npz", "path": "mine\.npz"}\)\. Bring',
        ):
            train([problem(0)], [run], steps=1, batch_size=8, schedule=())


def test_a_digest_is_of_names_types_shapes_and_values():
    trees = [
        {"a": np.zeros(4)},
        {"b": np.zeros(4)},
        {"a": np.zeros(4, np.int64)},
        {"a": np.zeros((2, 2))},
        {"a": np.ones(4)},
        {"a": jax.random.key(0)},
        {"a": jnp.zeros(4, jnp.bfloat16)},
        {"a": np.zeros(2), "b": np.zeros(2)},
    ]
    assert len({digest(tree) for tree in trees}) == len(trees)
    whole = np.arange(8.0, dtype=np.float32)
    assert digest({"a": whole[::2]}) == digest({"a": jnp.arange(0, 8, 2, dtype=jnp.float32)})
