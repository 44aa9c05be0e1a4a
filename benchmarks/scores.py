"""Scores of every example, and TracIn of every pair, over plain gradients of the same examples.

Fails where the results disagree, or where an array of examples x parameters is held.
"""

import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import ratio
from coherence import scores
from coherence.scores import pairs

SIZES = 784, 2048, 10
EXAMPLES, BATCH = 60_000, 500
TRAIN, TEST, BLOCK = 10_000, 1_000, 1_000
TARGETS = {"scores": 2.0, "TracIn": 4.0}


def logits(params, x):
    return jax.nn.relu(x @ params["in"] + params["bias"]) @ params["out"] + params["shift"]


def loss(params, example):
    x, y = example
    outputs = logits(params, x)
    return jax.nn.logsumexp(outputs) - outputs[y]


@jax.jit
def gradient(params, batch):
    return jax.grad(lambda p: jnp.mean(jax.vmap(loss, (None, 0))(p, batch)))(params)


def epoch(params, data):
    """One plain gradient of every batch: what an epoch of SGD costs without its updates."""
    total = jax.tree.map(jnp.zeros_like, params)
    for start in range(0, len(data[1]), BATCH):
        batch = jax.tree.map(lambda x, start=start: x[start : start + BATCH], data)
        total = jax.tree.map(jnp.add, total, gradient(params, batch))
    jax.block_until_ready(total)


def examples(m, seed):
    """Made up, of MNIST's shape: the time does not depend on what the pixels show."""
    rng = np.random.default_rng(seed)
    x = rng.random((m, SIZES[0]), np.float32) * (rng.random((m, SIZES[0])) < 0.2)
    return x.astype(np.float32), rng.integers(0, SIZES[-1], m).astype(np.int32)


def processor(run):
    """`run`, and a function that says its processor seconds so far."""
    spent = []

    def timed():
        start = time.process_time()
        run()
        spent.append(time.process_time() - start)

    return timed, lambda: float(np.median(spent))


def main(pairs_of_runs=3):
    rng = np.random.default_rng(0)
    shapes = {"in": SIZES[:2], "bias": SIZES[1:2], "out": SIZES[1:], "shift": SIZES[2:]}
    draw = lambda shape: rng.normal(size=shape).astype(np.float32) / np.sqrt(shape[0])
    params = {name: jnp.asarray(draw(shape)) for name, shape in shapes.items()}
    data = examples(EXAMPLES, 0)
    for name, reference in (("means of 8,192", 8192), ("means of all", None)):
        options = {"logits": logits, "batch_size": BATCH, "reference": reference}
        every = lambda options=options: scores.score(loss, params, data, **options)
        one, plain = processor(every), processor(lambda: epoch(params, data))
        result = ratio(one[0], plain[0], pairs=pairs_of_runs)
        print(
            f"all scores of {EXAMPLES:,}, {name}: {result} of a plain epoch (<= "
            f"{TARGETS['scores']:g}), processor time {one[1]() / plain[1]():.2f}"
        )
    train, test = examples(TRAIN, 1), examples(TEST, 2)
    values = scores.tracin(loss, params, train, test, batch_size=BLOCK)
    few = [jax.grad(loss)(params, jax.tree.map(lambda x: x[0], of)) for of in (test, train)]
    expected = sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, few)))
    assert np.isclose(values[0, 0], expected, rtol=1e-3), (values[0, 0], expected)
    both = [np.concatenate(sides) for sides in zip(train, test)]
    one = processor(lambda: scores.tracin(loss, params, train, test, batch_size=BLOCK))
    plain = processor(lambda: epoch(params, tuple(both)))
    result = ratio(one[0], plain[0], pairs=pairs_of_runs)
    print(
        f"TracIn, {TEST:,} x {TRAIN:,}: {result} of a plain gradient of both (<= "
        f"{TARGETS['TracIn']:g}), processor time {one[1]() / plain[1]():.2f}"
    )
    print(f"temporaries of a block: {temporaries(params):,} numbers")


def temporaries(params, block=BLOCK):
    """Numbers a block of pairs holds for a moment: far below examples x parameters."""
    sets = examples(block, 3), None, examples(block, 4), None
    memory = pairs.block_of_pairs.lower(params, *sets, loss=loss).compile().memory_analysis()
    held = memory.temp_size_in_bytes // 4
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert held < block * parameters / 20, (held, block * parameters)
    return held


if __name__ == "__main__":
    main()
