"""The training loop against a jitted loop by hand, tracked batches, seeds side by side.

    python benchmarks/training_loop.py [--quick]

An epoch of MNIST (from `COHERENCE_DATA` or the cache), 784-2048-10, SGD 0.1, batches of 100,
without probes; 100 steps of a net with three convolutions on 28 x 28 images; 200 steps of the first
with the moments of every batch and without; five seeds of the demo, side by side against in turn.
The final parameters are compared in the same run.
"""

import argparse
import dataclasses
import pathlib
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import ratio

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from coherence.lab.data import mnist
from coherence.lab.experiment import load
from coherence.lab.models import CNN, MLP
from coherence.lab.runs import Run
from coherence.lab.tasks import cross_entropy
from coherence.lab.training import Problem, train
from coherence.lab.training.order import batches
from coherence.lab.training.step import initial_state, make_advance, make_step

TARGET = 1.1
TRACKED = 1.25


def by_hand(problem, steps, batch_size):
    """One jitted step, a Python loop around it, the data on the device: what everybody writes."""
    optimizer = problem.optimizer
    x, y = problem.data["train"]

    def run():
        @jax.jit
        def step(params, state, x, y):
            value, g = jax.value_and_grad(
                lambda p: jnp.mean(jax.vmap(problem.loss, (None, 0))(p, (x, y)))
            )(params)
            updates, state = optimizer.update(g, state, params)
            return optax.apply_updates(params, updates), state, value

        params, state = problem.params, optimizer.init(problem.params)
        order = batches(0, 0, steps, examples=len(x), batch_size=batch_size)
        for index in order:
            params, state, _ = step(params, state, x[index], y[index])
        return jax.block_until_ready(params)

    return run


def by_the_loop(problem, steps, batch_size):
    def run():
        with tempfile.TemporaryDirectory() as folder:
            one = Run.open(folder, {}, seed=0)
            train([problem], [one], steps=steps, batch_size=batch_size, schedule=(0, steps))
            return one.load("params")

    return run


def of_mnist(model):
    data = mnist()
    x = data.x_train.reshape(-1, 28, 28, 1) if isinstance(model, CNN) else data.x_train
    return Problem(
        loss=cross_entropy(model),
        params=model.init(jax.random.key(0), x[:1]),
        data={"train": (x, data.y_train)},
        optimizer=optax.sgd(0.1),
    )


def tracking(pairs, length=200):
    """One compiled call of many steps, the moments of every batch tracked, over one without."""
    calls, ends = [], []
    for track in (True, False):
        problem = dataclasses.replace(of_mnist(MLP(width=2048, depth=1)), track_batches=track)
        advance = jax.jit(make_advance(make_step(problem.recipe), length))
        order = batches(0, 0, length, examples=len(problem.data["train"][0]), batch_size=100)
        arguments = initial_state(problem), jax.device_put(problem.data["train"]), order, length
        calls.append(lambda f=advance, args=arguments: jax.block_until_ready(f(*args)))
        ends.append(calls[-1]()[0]["params"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), *ends)
    took = ratio(*calls, pairs)
    print(
        f"{length} steps of 784-2048-10 with every batch's moments: {took} of those without "
        f"(target <= {TRACKED}); {took.a:.2f} against {took.b:.2f} s, {pairs} pairs"
    )


def compare(name, model, steps, pairs):
    problem = of_mnist(model)
    ours, theirs = by_the_loop(problem, steps, 100), by_hand(problem, steps, 100)
    for a, b in zip(
        sorted(ours().values(), key=np.size), sorted(jax.tree.leaves(theirs()), key=np.size)
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    took = ratio(ours, theirs, pairs)
    print(
        f"{name}: {took} of the loop by hand (target <= {TARGET}); {took.a:.2f} against "
        f"{took.b:.2f} s, {pairs} pairs, with compilation"
    )


def seeds(pairs):
    """Five seeds of the demo's plain arm, and of its winsorized one."""
    experiment = load(pathlib.Path(__file__).parents[1] / "experiments" / "real_vs_random.py")
    for arm in ("random,rate=0.1", "random,winsorized"):
        settings = experiment.arms(experiment.PRESETS["demo"])[arm]
        problems = [settings.build(seed) for seed in range(5)]

        def run(vmapped, problems=problems, steps=500):
            with tempfile.TemporaryDirectory() as folder:
                opened = [
                    Run.open(pathlib.Path(folder) / str(seed), {}, seed=seed) for seed in range(5)
                ]
                train(
                    problems,
                    opened,
                    steps=steps,
                    batch_size=100,
                    schedule=(0, steps),
                    vmapped=vmapped,
                )

        took = ratio(lambda: run(True), lambda: run(False), pairs)
        print(
            f"five seeds of {arm}, 500 steps: side by side {took} of in turn; {took.a:.2f} "
            f"against {took.b:.2f} s, with compilation"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    few = parser.parse_args().quick
    compare("MNIST epoch, 784-2048-10", MLP(width=2048, depth=1), 600, 3 if few else 7)
    compare("3 convolutions, 100 steps", CNN(), 100, 3 if few else 7)
    tracking(5 if few else 15)
    seeds(3 if few else 7)
