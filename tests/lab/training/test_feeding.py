"""Training examples that stay on the host teach what those on the device do, to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coherence.lab.runs import Run
from coherence.lab.training import Problem, feeding, train
from coherence.optim import chain, winsorize


def loss(p, example):
    x, y = example[:2]
    return 0.5 * (x @ p["w"] - y) ** 2


RULE = chain(winsorize(20), optax.sgd(0.1))


def problem(seed, examples, streamed):
    noise = {"noise": jax.random.key(seed)}
    data = {"train": examples, "test": examples[0][:3]}
    params = {"w": np.full(4, seed, np.float32)}
    measure = lambda params, data: {"mean": jnp.mean(data["test"] @ params["w"])}
    options = {"per_example": True, "measure": measure, "track_batches": True, **noise}
    return Problem(loss, params, data, RULE, streamed=streamed, **options)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """More than a device holds, in a file."""
    rng = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("data") / "x.npy"
    np.save(file, rng.normal(size=(31, 4)).astype(np.float32))
    return np.load(file, mmap_mode="r"), rng.normal(size=31).astype(np.float32)


@pytest.mark.parametrize("side_by_side", [False, True])
def test_streamed_examples_teach_the_same_and_are_never_all_on_the_device(
    tmp_path, monkeypatch, examples, side_by_side
):
    together = 1 + side_by_side
    monkeypatch.setattr(feeding, "MOST_BYTES", 3 * 8 * 20 * together)  # 3 steps of 8 rows
    examples = tuple(x[: 29 + together] for x in examples)  # other shapes than the other test's
    done = []

    def learn(streamed, steps):
        place = tmp_path / str(streamed)
        runs = [Run.open(place / str(seed), {}, seed=seed) for seed in (0, 1)]
        problems = [problem(seed, examples, streamed) for seed in (0, 1)]

        def progress(n):
            done.extend([n] * streamed)
            shapes = {x.shape[-2:] for x in jax.live_arrays()}
            assert (examples[0].shape in shapes) != streamed

        schedule = (0, 5)
        options = {"vmapped": side_by_side, "progress": progress}
        train(problems, runs, steps=steps, batch_size=8, schedule=schedule, **options)
        return [
            {**run.load("params"), **run.load("batches"), "records": run.records()} for run in runs
        ]

    learn(True, 7)
    streamed = learn(True, 13)
    jax.tree.map(np.testing.assert_array_equal, streamed, learn(False, 13))
    assert max(n for n in done if n != 7 * together) == 3 * together  # 7 were done before
