"""What contrastive divergence costs, and how it compares with scikit-learn's `BernoulliRBM`.

    python benchmarks/boltzmann.py [--examples 10000] [--epochs 10] [--seeds 3] [--pairs 21]

Per-example statistics of a step over the plain step, in turn in one process; AIS against exact
log Z; and 784-128 machines on black and white MNIST by persistent chains, the same algorithm,
learning rate, batches and number of epochs on both sides, in processor time (BLAS on one thread:
its threads wait for each other on a busy machine).
"""

import argparse
import dataclasses
import pathlib
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from threadpoolctl import threadpool_limits
from timing import ratio

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from coherence.lab.data import mnist
from coherence.lab.models import RBM
from coherence.lab.runs import Run
from coherence.lab.settings import sgd
from coherence.lab.tasks import boltzmann
from coherence.lab.training import ContrastiveDivergence, train
from coherence.lab.training.problem import Recipe
from coherence.lab.training.step import make_advance, make_step

RATE, BATCH, HIDDEN, STEPS = 0.05, 100, 128, 60


def statistics(pairs):
    """Rows of steps with losses and norms of single examples, over steps without."""
    model = RBM(784, HIDDEN)
    x = jnp.asarray((np.random.default_rng(0).random((STEPS * BATCH, 784)) < 0.2), jnp.float32)
    params = model.init(jax.random.key(0), x[:1])
    optimizer = optax.sgd(RATE)
    indices = np.arange(STEPS * BATCH).reshape(STEPS, BATCH).astype(np.int32)

    def run(loss, move, tracked):
        recipe = Recipe(loss, optimizer.update, False, tracked, True, move)
        advance = jax.jit(make_advance(make_step(recipe), STEPS))
        state = {
            "params": params,
            "opt_state": optimizer.init(params),
            "noise": (jax.random.key(1), jnp.int32(0)),
        }
        state |= {} if move is None else {"chains": x[:BATCH]}
        return lambda: jax.block_until_ready(advance(state, (x,), indices, STEPS))

    kinds = {
        "CD-1": (boltzmann.contrastive_divergence(model, 1), None),
        "CD-5": (boltzmann.contrastive_divergence(model, 5), None),
        "persistent": (boltzmann.against_chain(model), boltzmann.sweeps(model, 1)),
    }
    for name, (loss, move) in kinds.items():
        measured = ratio(run(loss, move, True), run(loss, move, False), pairs=pairs)
        step = 1000 * measured.b / STEPS
        print(
            f"| statistics over plain step, {name}, 784-{HIDDEN}, m = {BATCH} | {measured} "
            f"| <= 1.2 | {step:.2f} ms plain |",
            flush=True,
        )


def partition():
    """AIS against exact log Z of a trained machine of 16 hidden units."""
    settings = ContrastiveDivergence(hidden=16, optimizer=sgd(0.1), steps=2000, probes=())
    machine, params, _ = fitted(settings)
    exact = float(boltzmann.log_partition(machine)(params))
    estimate = jax.jit(boltzmann.annealed_log_partition(machine))
    errors = [float(estimate(params, jax.random.key(seed))) - exact for seed in range(10)]
    print(
        f"| AIS minus exact log Z, 74-16 on digits, worst of 10, nats | "
        f"{max(errors, key=abs):+.3f} | <= 0.1 | exact {exact:.2f} |",
        flush=True,
    )


def fitted(settings, seed=0):
    """The machine, its parameters, and processor seconds with compilation."""
    problem = settings.build(seed)
    start = time.process_time()
    with (
        tempfile.TemporaryDirectory() as folder,
        Run.open(pathlib.Path(folder) / "run", {}, seed=seed) as run,
    ):
        options = {"steps": settings.steps, "batch_size": settings.batch_size, "schedule": ()}
        train([problem], [run], **options)
        leaves = run.load("params")
    seconds = time.process_time() - start
    params = {"params": {name.split("/")[1]: leaf for name, leaf in leaves.items()}}
    classes = 10 if settings.labels else 0
    inputs = params["params"]["kernel"].shape[0]
    return RBM(inputs, settings.hidden, classes), params, seconds


def peer(examples, epochs, seeds):
    """Mean log pseudo-likelihood of test images and processor time, beside scikit-learn's."""
    from sklearn.neural_network import BernoulliRBM

    data = mnist(examples=examples)
    parts = (data.x_train, data.x_test[:2000])
    train_x, test_x = ((x > 0.5).astype(np.float32).reshape(len(x), -1) for x in parts)
    settings = ContrastiveDivergence(
        data=mnist_setting(examples),
        data_by_seed=False,
        labels=False,
        hidden=HIDDEN,
        optimizer=sgd(RATE),
        batch_size=BATCH,
        steps=epochs * (examples // BATCH),
        probes=(),
        track_batches=False,
    )
    pseudo = jax.jit(jax.vmap(boltzmann.log_pseudo_likelihood(RBM(784, HIDDEN)), (None, 0)))
    score = lambda params: float(np.mean([pseudo(params, part) for part in np.split(test_x, 20)]))

    def theirs(seed):
        model = BernoulliRBM(
            HIDDEN, learning_rate=RATE, batch_size=BATCH, n_iter=epochs, random_state=seed
        )
        with threadpool_limits(1):
            start = time.process_time()
            model.fit(train_x)
            seconds = time.process_time() - start
        copied = {
            "kernel": model.components_.T,
            "bias": model.intercept_visible_,
            "hidden_bias": model.intercept_hidden_,
        }
        return score({"params": {name: np.float32(a) for name, a in copied.items()}}), seconds

    others, times = zip(*(theirs(seed) for seed in range(seeds)))
    other, least = words(others, ".1f"), min(times)
    what = f"784-{HIDDEN}, {examples:,} images, {epochs} epochs"
    kinds = {
        "persistent": dataclasses.replace(settings, persistent=True),
        "CD-1, momentum 0.5": dataclasses.replace(settings, optimizer=sgd(RATE, momentum=0.5)),
    }
    for name, own in kinds.items():
        runs = [fitted(own, seed) for seed in range(seeds)]
        scores, seconds = [score(params) for _, params, _ in runs], [run[-1] for run in runs]
        print(
            f"| log pseudo-likelihood of test images, {what}, {name}, nats | "
            f"{words(scores, '.1f')} | at least {other} | BernoulliRBM {other} |\n"
            f"| processor time, {what}, {name} | {seconds[0]:.1f} s with compilation, "
            f"{min(seconds[1:], default=np.nan):.1f} s without | < {least:.1f} s | BernoulliRBM "
            f"{least:.1f} s |",
            flush=True,
        )


def words(values, form):
    """The mean, and all of them."""
    return f"{np.mean(values):{form}} ({', '.join(format(value, form) for value in values)})"


def mnist_setting(examples):
    from coherence.lab import settings

    return settings.mnist(examples=examples)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=21)
    options = parser.parse_args()
    print("| what | measured | target | |\n|---|---|---|---|")
    partition()
    peer(options.examples, options.epochs, options.seeds)
    statistics(options.pairs)


if __name__ == "__main__":
    main()
