"""The loop: what is measured never changes what is learned, and an interruption leaves no trace."""

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
from coherence.runs import Run
from coherence.training import Problem, loop, train
from coherence.training.checkpoints import from_arrays, to_arrays
from coherence.training.order import batches
from coherence.training.schedule import log_spaced
from tests import zoo


def problem(seed, **kwargs):
    x = zoo.normal(99, 40, 6)
    y = zoo.normal(seed, 40, 2)
    params = {"w": zoo.normal(seed + 1, 6, 2), "b": jnp.zeros(2)}
    loss = lambda p, e: 0.5 * jnp.sum((jnp.tanh(e[0] @ p["w"] + p["b"]) - e[1]) ** 2)
    measure = lambda p, data: {"loss": jnp.mean(jax.vmap(loss, (None, 0))(p, data["train"])), "norms": jnp.sum(p["w"] ** 2, 0)}
    return Problem(
        **{"loss": loss, "params": params, "data": {"train": (x, y)}, "optimizer": optax.adam(0.05), "measure": measure, **kwargs}
    )


def learn(folder, seeds=(0,), make=problem, steps=60, schedule=(0, 3, 20, 60), **kwargs):
    runs = [Run.open(folder / f"seed={seed}", {"batch_size": 8}, seed=seed) for seed in seeds]
    train([make(seed) for seed in seeds], runs, steps=steps, batch_size=8, schedule=schedule, **kwargs)
    return [Run.read(folder / f"seed={seed}") for seed in seeds]


def final(run):
    return run.load("params")


def same_bits(a, b):
    return all(np.array_equal(x, y) for x, y in zip(final(a).values(), final(b).values(), strict=True))


def test_it_is_the_loop_one_would_write_by_hand(tmp_path):
    (run,) = learn(tmp_path)
    one = problem(0)
    params, state = one.params, one.optimizer.init(one.params)
    x, y = one.data["train"]
    for index in batches(0, 0, 60, examples=40, batch_size=8):
        g = jax.grad(lambda p, i=index: jnp.mean(jax.vmap(one.loss, (None, 0))(p, (x[i], y[i]))))(params)
        updates, state = one.optimizer.update(g, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(final(run)["w"], params["w"], rtol=1e-4)


def test_probes_never_change_the_run(tmp_path):
    (bare,) = learn(tmp_path / "a", schedule=(0,), make=lambda s: problem(s, measure=lambda p, d: {}))
    (probed,) = learn(tmp_path / "b", schedule=range(61))
    assert same_bits(bare, probed)
    assert [r["step"] for r in probed.records()] == list(range(61))


def test_the_chunk_length_never_changes_the_run(tmp_path, monkeypatch):
    (many,) = learn(tmp_path / "a")
    monkeypatch.setattr(loop, "CHUNK", 7)
    (few,) = learn(tmp_path / "b")
    assert same_bits(many, few)


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


def test_seeds_side_by_side_learn_what_they_learn_in_turn(tmp_path):
    together = learn(tmp_path / "a", (0, 1, 2), vmapped=True)
    in_turn = learn(tmp_path / "b", (0, 1, 2), vmapped=False)
    for one, other in zip(together, in_turn):
        np.testing.assert_allclose(final(one)["w"], final(other)["w"], rtol=1e-4)
        np.testing.assert_allclose(one.records()[-1]["norms"], other.records()[-1]["norms"], rtol=1e-4)


def test_finished_seeds_are_left_alone_and_seeds_can_be_added_later(tmp_path):
    learn(tmp_path, (0,))
    before = (tmp_path / "seed=0" / "params.npz").stat().st_mtime_ns
    runs = learn(tmp_path, (0, 1))
    assert all(run.done for run in runs)
    assert (tmp_path / "seed=0" / "params.npz").stat().st_mtime_ns == before


def test_tracked_batches_are_the_moments_of_each_step(tmp_path):
    (run,) = learn(tmp_path, make=lambda s: problem(s, track_batches=True, optimizer=optax.sgd(0.0)))
    one, tracked = problem(0), run.load("batches")
    x, y = one.data["train"]
    i = batches(0, 5, 6, examples=40, batch_size=8)[0]
    losses, g = co.per_example_value_and_grad(one.loss)(one.params, (x[i], y[i]))
    np.testing.assert_allclose(tracked["loss"][5], losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(tracked["squared_norm_of_mean"][5] / tracked["mean_squared_norm"][5], co.alpha(g), rtol=1e-5)


def test_divergence_is_data(tmp_path):
    (run,) = learn(tmp_path, make=lambda s: problem(s, optimizer=optax.sgd(1e38)))
    assert run.done
    assert np.isnan(run.records()[-1]["loss"]) or np.isinf(run.records()[-1]["norms"]).any() or run.records()[-1]["norms"][0] > 1e30


def test_early_stopping_keeps_its_state_and_stops(tmp_path):
    rule = co.stopping.patience(3)
    rising = lambda p, data: {"watched": 1.0 + jnp.sum(p["b"] ** 2)}
    (run,) = learn(tmp_path, make=lambda s: problem(s, measure=rising, stopping=(rule, "watched")), schedule=range(61))
    assert run.done
    assert run.records()[-1]["step"] < 60


def test_a_convolution_on_the_cpu_gets_no_loop():
    loss, params, batch = zoo.convolution()
    convolution = Problem(loss=loss, params=params, data={"train": batch}, optimizer=optax.sgd(0.1))
    assert loop._Program([(convolution, None)], 2, 4).chunk == (1 if jax.default_backend() == "cpu" else 4)
    assert loop._Program([(problem(0), None)], 2, 4).chunk == 4


def test_every_epoch_is_a_permutation_and_position_is_just_the_step():
    order = batches(3, 0, 12, examples=10, batch_size=3)
    for epoch in order.reshape(4, 9):
        assert len(set(epoch.tolist())) == 9
    np.testing.assert_array_equal(order[7:9], batches(3, 7, 9, examples=10, batch_size=3))
    assert not np.array_equal(order, batches(4, 0, 12, examples=10, batch_size=3))
    np.testing.assert_array_equal(batches(3, 0, 2, examples=4, batch_size=4), [[0, 1, 2, 3]] * 2)


def test_measurements_are_log_spaced():
    assert log_spaced(100, per_decade=2) == (0, 1, 3, 10, 32, 100)
    assert log_spaced(1) == (0, 1)


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size must be between 1 and the 40 training examples, got 41"):
        train([problem(0)], [Run.open(tmp_path, {}, seed=0)], steps=1, batch_size=41, schedule=(0,))


def test_state_survives_as_arrays_to_the_last_bit():
    state = {"key": jax.random.key(3), "half": jnp.asarray([1.5, -0.0], jnp.bfloat16), "n": jnp.int32(3), "x": zoo.normal(0, 2, 2)}
    back = from_arrays(state, to_arrays(state))
    assert back["half"].dtype == jnp.bfloat16
    for ours, theirs in zip(jax.tree.leaves(to_arrays(back)), jax.tree.leaves(to_arrays(state))):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="the checkpoint is of another training state: n is in one and not in the other"):
        from_arrays({"n": jnp.int32(1)}, {})


def test_a_run_killed_at_any_moment_resumes_to_the_same_bits(tmp_path):
    """kill -9, three times, at moments nobody chose."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import sys, time, pathlib
        sys.path.insert(0, sys.argv[2])
        from tests.training import test_loop
        slow = lambda n: (print("step", flush=True), time.sleep(0.01))
        test_loop.learn(pathlib.Path(sys.argv[1]), (0, 1), checkpoint_seconds=0, progress=slow, schedule=range(61))
        """)
    )
    command = [sys.executable, str(script), str(tmp_path / "killed"), os.getcwd()]
    for lines in (2, 9, 17):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(lines):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
    subprocess.run(command, check=True, capture_output=True)
    whole = learn(tmp_path / "whole", (0, 1), schedule=range(61))
    for one, other in zip(whole, [Run.read(tmp_path / "killed" / f"seed={s}") for s in (0, 1)]):
        assert same_bits(one, other)
        assert one.records() == other.records()
