"""Random losses: a fresh key for every step and example, and no trace of an interruption."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coherence.lab.runs import Run
from coherence.lab.training import Problem, step, train
from coherence.lab.training.order import batches
from coherence.probes import Every, Probe
from tests import zoo

EXAMPLES, BATCH, STEPS = 20, 5, 30


def loss(params, example):
    x, key = example
    return 0.5 * jnp.sum((params["w"] * (1 + jax.random.normal(key, x.shape)) - x) ** 2)


def problem(seed, **kwargs):
    x = zoo.normal(7, EXAMPLES, 3)
    keys = jax.random.split(jax.random.key(100 + seed), EXAMPLES)
    made = {
        "loss": loss,
        "params": {"w": jnp.ones(3)},
        "data": {"train": (x,), "keys": keys},
        "optimizer": optax.adam(0.05),
        "measure": lambda params, data: {
            "loss": jnp.mean(jax.vmap(loss, (None, 0))(params, (*data["train"], data["keys"])))
        },
        "noise": jax.random.key(seed),
    }
    return Problem(**{**made, **kwargs})


def learn(folder, seeds=(0,), make=problem, **kwargs):
    with contextlib.ExitStack() as stack:
        runs = [
            stack.enter_context(Run.open(folder / f"seed={seed}", {}, seed=seed)) for seed in seeds
        ]
        train(
            [make(seed) for seed in seeds],
            runs,
            **{"steps": STEPS, "batch_size": BATCH, "schedule": (0, 10, STEPS), **kwargs},
        )
    return [Run.read(folder / f"seed={seed}") for seed in seeds]


def assert_same_bits(one, other):
    np.testing.assert_array_equal(one.load("params")["w"], other.load("params")["w"])
    np.testing.assert_array_equal(one.load("batches")["loss"], other.load("batches")["loss"])
    assert one.records() == other.records()


def test_every_step_and_example_draws_from_another_key():
    """The gradient of a loss that is linear in what it draws shows what that was."""
    drawing = lambda params, example: jnp.vdot(
        params["w"][example[0]], jax.random.uniform(example[1], (8,))
    )
    start, examples = {"w": jnp.zeros((BATCH, 8))}, (jnp.arange(BATCH),)
    one = problem(
        0, loss=drawing, params=start, data={"train": examples}, optimizer=optax.sgd(-BATCH)
    )
    state, drawn = step.initial_state(one), []
    advance = jax.jit(step.make_step(one.recipe))
    for _ in range(20):
        before = state["params"]["w"]
        state, _ = advance(state, examples, np.arange(BATCH))
        drawn.append(state["params"]["w"] - before)
    drawn = np.concatenate(drawn)
    assert len(np.unique(np.round(drawn, 3), axis=0)) == 20 * BATCH
    assert np.abs(np.corrcoef(drawn.T) - np.eye(8)).max() < 0.4  # 4 standard errors


def test_it_is_the_loop_one_would_write_by_hand(tmp_path):
    (run,) = learn(tmp_path)
    one = problem(0)
    params, state = one.params, one.optimizer.init(one.params)
    mean_loss = jax.jit(
        jax.grad(lambda params, batch: jnp.mean(jax.vmap(loss, (None, 0))(params, batch)))
    )
    for number, index in enumerate(batches(0, 0, STEPS, examples=EXAMPLES, batch_size=BATCH)):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), number), BATCH)
        updates, state = one.optimizer.update(
            mean_loss(params, (one.data["train"][0][index], keys)), state, params
        )
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(run.load("params")["w"], params["w"], rtol=1e-4)


@pytest.mark.parametrize("vmapped", [False, True])
def test_an_interrupted_run_ends_at_the_same_bits(tmp_path, vmapped):
    seeds, calls = (0, 1), []
    whole = learn(tmp_path / "a", seeds, vmapped=vmapped)

    def interrupt(n):
        calls.append(n)
        if len(calls) == 2:
            raise KeyboardInterrupt("now")

    with pytest.raises(KeyboardInterrupt, match="now"):
        learn(tmp_path / "b", seeds, vmapped=vmapped, checkpoint_seconds=0, progress=interrupt)
    assert Run.read(tmp_path / "b" / "seed=0").checkpoints().keys() == {10}
    for one, other in zip(whole, learn(tmp_path / "b", seeds, vmapped=vmapped)):
        assert_same_bits(one, other)


def test_a_seed_is_a_run_and_chunks_do_not_matter(tmp_path, monkeypatch):
    one, other = learn(tmp_path / "a", (0, 1))
    monkeypatch.setattr(step, "CHUNK", 7)
    (again,) = learn(tmp_path / "b")
    assert_same_bits(one, again)
    assert not np.array_equal(one.load("params")["w"], other.load("params")["w"])


def test_the_key_of_the_problem_decides_what_is_drawn(tmp_path):
    (one,) = learn(tmp_path / "a")
    (other,) = learn(tmp_path / "b", make=lambda seed: problem(seed, noise=jax.random.key(9)))
    assert not np.array_equal(one.load("params")["w"], other.load("params")["w"])


def test_per_example_and_mean_gradients_are_of_the_same_noise(tmp_path):
    (mean,) = learn(tmp_path / "a")
    (tracked,) = learn(tmp_path / "b", make=lambda seed: problem(seed, track_batches=True))
    np.testing.assert_allclose(
        mean.load("batches")["loss"], tracked.load("batches")["loss"], rtol=1e-5
    )
    np.testing.assert_allclose(mean.load("params")["w"], tracked.load("params")["w"], rtol=1e-4)


def test_a_probe_reads_a_sample_with_keys_of_its_own(tmp_path):
    def probed(seed, batch_size):
        sample = lambda one: (np.asarray(one.data["train"][0]), one.data["keys"])
        one = problem(seed)
        return problem(
            seed,
            probes=(
                Probe(
                    loss,
                    sample(one),
                    when=Every(15),
                    batch_size=batch_size,
                    few=8,
                    groups=np.arange(EXAMPLES) < 7,
                ),
            ),
        )

    said = []
    (whole,) = learn(tmp_path / "a", make=lambda seed: probed(seed, 100), say=said.append)
    (parts,) = learn(tmp_path / "b", make=lambda seed: probed(seed, 6))
    (bare,) = learn(tmp_path / "c")
    first, same = whole.records()[0], parts.records()[0]
    assert first["train/loss"] == pytest.approx(first["loss"], rel=1e-5)
    assert same["train/m_coherence"] == pytest.approx(first["train/m_coherence"], rel=1e-4)
    assert whole.load("examples-train").keys() == {
        "inputs",
        "group",
        "index",
    }  # keys are nothing to show
    assert len(said) == 1
    np.testing.assert_array_equal(whole.load("params")["w"], bare.load("params")["w"])


def test_without_noise_the_state_holds_no_key():
    assert set(step.initial_state(problem(0, noise=None))) == {"params", "opt_state"}


def test_examples_that_cannot_end_with_a_key_are_refused():
    with pytest.raises(
        TypeError, match=r"data\['train'\] is a tuple, \(x,\) or \(x, y\), got ndarray"
    ):
        problem(0, data={"train": np.ones((4, 3))})
