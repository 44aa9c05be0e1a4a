"""What measuring costs.

Probes on the training batch and on a fixed sample, a whole data set, a record, the import.

    python benchmarks/instrument.py [--quick] [--only batch]

MLP 784-2048-10 on MNIST. Each row is timed in turn with its plain counterpart in the same process,
and its numbers are checked against the metrics of the formed definition in numpy, on a few
examples.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import compiled, ratio

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import coherence as co
from coherence.lab.data import corrupt_labels, mnist
from coherence.lab.models import MLP
from coherence.lab.runs import Run
from coherence.lab.tasks import cross_entropy
from coherence.probes import Probe, batch_readings
from coherence.probes.presets import SIGNAL, STANDARD

NET = MLP(width=2048, depth=1)
LOSS = cross_entropy(NET)
mean_loss = lambda params, batch: jnp.mean(jax.vmap(LOSS, (None, 0))(params, batch))
EPOCH_BATCH = 1000


def data(examples):
    """MNIST with a quarter of the labels permuted, and which really changed."""
    found = mnist()
    labels, corrupt = corrupt_labels(found.y_train, 0.25, seed=0)
    return (found.x_train[:examples], labels[:examples]), corrupt[:examples]


def parameters():
    return NET.init(jax.random.key(0), jnp.zeros((1, 784)))


def check(params, batch, m_coherence):
    """The reading against the definition, formed, in float64."""
    rows = jax.vmap(jax.grad(LOSS), (None, 0))(params, batch)
    g = np.concatenate(
        [np.asarray(x, np.float64).reshape(len(x), -1) for x in jax.tree.leaves(rows)], 1
    )
    np.testing.assert_allclose(
        m_coherence, len(g) * np.sum(g.mean(0) ** 2) / np.mean(np.sum(g**2, 1)), rtol=1e-3
    )


def batch(pairs):
    """A training step that reads `standard` off its own batch, without and with GSNR, against
    the plain step.
    """
    (x, y), _ = data(100)
    params, tx = parameters(), optax.sgd(0.1)
    state, examples = tx.init(params), (jnp.asarray(x), jnp.asarray(y))

    def plain(params, state, examples):
        value, gradient = jax.value_and_grad(mean_loss)(params, examples)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    def probed(quantities):
        def step(params, state, examples):
            losses, g = co.per_example_value_and_grad(LOSS)(params, examples)
            updates, state = tx.update(co.mean(g), state, params)
            return (
                optax.apply_updates(params, updates),
                state,
                batch_readings(losses, g, quantities),
            )

        return step

    reference = compiled(plain, params, state, examples)
    for name, quantities, target in (
        ("standard", STANDARD, 1.15),
        ("standard and GSNR", (*STANDARD, *SIGNAL), 1.9),
    ):
        fast = compiled(probed(quantities), params, state, examples)
        check(params, examples, fast.run()[2]["m_coherence"])
        row(
            f"{name} on the training batch, m = 100",
            ratio(fast.run, reference.run, pairs * 4, warmup=3),
            target,
        )


def sample(pairs):
    """`full` on 10,000 fixed examples against one plain gradient of those.

    Memory as the compiler counts it, without the sample.
    """
    (x, y), corrupt = data(10_000)
    params, examples = parameters(), (jnp.asarray(x), jnp.asarray(y))
    reference = compiled(
        lambda params, examples: jax.grad(mean_loss)(params, examples), params, examples
    )
    probe = Probe(LOSS, examples, quantities="full", groups=corrupt)
    found = probe(params)
    smaller = tuple(part[:300] for part in examples)
    check(
        params,
        smaller,
        Probe(LOSS, smaller, quantities="full", few=100)(params)["train/m_coherence"],
    )
    row(
        f"full, m = 10,000, {len(found)} readings",
        ratio(lambda: probe(params), reference.run, pairs, warmup=1),
        2.5,
    )
    estimated = co.probes.cost(probe, params)
    memory = estimated.bytes / (reference.temporaries + reference.outputs)
    print(f"{'  memory against the plain gradient':52} {memory:>20.2f} {1.5:>5}   ({estimated})")


def whole(pairs):
    """Alpha of 60,000 examples by layer and pristine/corrupt against the plain gradients of an
    epoch.
    """
    (x, y), corrupt = data(60_000)
    params = parameters()
    gradient = jax.jit(jax.grad(mean_loss))
    add = jax.jit(lambda a, b: jax.tree.map(jnp.add, a, b), donate_argnums=0)

    def plain():
        total = None
        for start in range(0, len(x), EPOCH_BATCH):
            part = gradient(
                params, (x[start : start + EPOCH_BATCH], y[start : start + EPOCH_BATCH])
            )
            total = part if total is None else add(total, part)
        return jax.block_until_ready(total)

    ours = lambda: co.measure(
        LOSS, params, (x, y), batch_size=EPOCH_BATCH, by="layer", groups=corrupt
    )
    row(
        "alpha of 60,000, by layer and group, with intervals",
        ratio(ours, plain, pairs, warmup=1),
        1.3,
    )
    print("  ", ours())


def recording(pairs):
    """One record of 40 scalars, the mean of 1,000."""
    record = {"step": 0, **{f"train/quantity_{i}": float(np.float32(np.pi * i)) for i in range(40)}}
    with tempfile.TemporaryDirectory() as folder, Run.open(f"{folder}/run", {}, seed=0) as run:
        took = []
        for _ in range(pairs):
            start = time.perf_counter()
            for step in range(1000):
                run.append({**record, "step": step})
            took.append((time.perf_counter() - start) * 1e3)
        assert json.loads(json.dumps(run.records()[-1])) == {**record, "step": 999}
    print(f"{'recording 40 scalars, microseconds':52} {np.median(took):>20.1f} {100:>5}")


def importing(pairs):
    """The package, in a fresh interpreter, beyond the interpreter itself."""

    def seconds(code):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    took = [seconds("import coherence") - seconds("pass") for _ in range(pairs)]
    print(f"{'import of coherence, seconds':52} {np.median(took):>20.3f} {0.1:>5}")


def row(name, took, target):
    print(
        f"{name:52} {took!s:>20} {target:>5}   {took.a * 1e3:.1f} ms against {took.b * 1e3:.1f} "
        f"ms, {took.pairs} pairs",
        flush=True,
    )


ROWS = {
    "batch": (batch, 50),
    "sample": (sample, 15),
    "whole": (whole, 7),
    "recording": (recording, 7),
    "importing": (importing, 9),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer pairs")
    parser.add_argument("--only", choices=ROWS, help="one of them")
    chosen = parser.parse_args()
    print(f"{'':52} {'ratio or value':>20} {'<=':>5}")
    for name, (measure, pairs) in ROWS.items():
        if chosen.only in (None, name):
            measure(max(3, pairs // 5) if chosen.quick else pairs)
