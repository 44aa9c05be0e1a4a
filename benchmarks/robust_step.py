"""Full steps of robust aggregators, against other ways and against the machine.

    python benchmarks/robust_step.py [--quick] [--only median]

One row a case of a 784-2048-10 network (1.6 million numbers an example): milliseconds, times faster
than the best baseline, how close to the arithmetic floor, memory, compilation. The baselines form
all gradients and then select: `numpy.partition`, `torch.topk`, `torch.kthvalue`, `torch.median` (a
few hidden units at a time, on all cores), and in XLA a selection network and `jnp.sort`. The torch
ones run where PyTorch is installed (the environment of `benchmarks/peers` will do). Every update is
compared with a numpy oracle at random coordinates in the same run. Then the paper's network, and
the aggregators of means, against plain SGD.
"""

import argparse
import pathlib
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import compiled, ratio, seconds

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import baselines

import coherence as co
from coherence.lab.models import MLP
from coherence.lab.tasks import cross_entropy
from coherence.optim.order_statistics import rank, selection

LEARNING_RATE = 0.1
MEMORY = 1 / 10  # of examples x parameters
STEPS = 5  # of ours for one of an baseline's, whose gigabytes leave cold caches behind
FLOOR = 4.0  # times the counted floor


class Case(NamedTuple):
    """c percent of m examples, 50 the median.

    How many times faster than the best baseline it is to be.
    """

    c: int
    m: int
    target: float

    @property
    def name(self):
        return f"{'median()' if self.c == 50 else f'winsorize({self.c})'}, m = {self.m}"

    @property
    def aggregator(self):
        return co.optim.median() if self.c == 50 else co.optim.winsorize(self.c)


CASES = [
    Case(1, 100, 8),
    Case(2, 100, 8),
    Case(4, 100, 8),
    Case(3, 128, 8),
    Case(8, 100, 5),
    Case(50, 100, 5),
    Case(50, 256, 3),
    Case(50, 1024, 3),
]


def problem(m, width, depth):
    rng = np.random.default_rng(0)
    batch = (
        jnp.asarray(rng.normal(size=(m, 784)), jnp.float32),
        jnp.asarray(rng.integers(10, size=m)),
    )
    model = MLP(width=width, depth=depth)
    return cross_entropy(model), model.init(jax.random.key(0), batch[0][:1]), batch


def stepping(loss, tx, state):
    """One step from per-example gradients: (params, batch) -> (params, state)."""

    def step(params, batch):
        _, gradients = co.per_example_value_and_grad(loss)(params, batch)
        updates, new = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), new

    return step


def sketching(loss, k):
    """One step of SGD that also makes the sketches of its per-example gradients."""

    def step(params, batch):
        _, gradients = co.per_example_value_and_grad(loss)(params, batch)
        move = lambda p, g: p - LEARNING_RATE * g
        sketches = co.gradients.project(gradients, k, jax.random.key(0))
        return jax.tree.map(move, params, co.mean(gradients)), sketches

    return step


def plain(loss):
    """One step of SGD, as one writes it without us."""
    tx = optax.sgd(LEARNING_RATE)

    def step(params, batch):
        mean = lambda p: jnp.mean(jax.vmap(loss, (None, 0))(p, batch))
        updates, _ = tx.update(jax.grad(mean)(params), tx.init(params), params)
        return optax.apply_updates(params, updates)

    return step


def operations(case):
    """Vector operations a coordinate: products, comparisons, and for means a sum."""
    k = rank(case.c, case.m)
    if case.m > 128:
        return case.m * (
            1 + 2 * 32 + 4
        )  # one comparison and one addition an example and bit; the next value above
    if case.c == 50:
        middle = selection.pruned(case.m, (k, case.m - 1 - k))
        return case.m + sum(a + b for _, _, a, b in middle)
    return 2 * case.m + 2 * selection.comparator_count(k, selection.block_sizes(case.m, k))


def rate():
    """Comparisons (smaller or larger of two floats) a second on all cores, in registers, by
    XLA's own code.
    """
    wires, rounds = 16, 8
    x = jnp.asarray(np.random.default_rng(0).normal(size=(wires, 2**16 + 16)), jnp.float32)

    def churn(x):
        rows = list(x)
        for i in range(rounds):
            rows = selection.select(rows[i:] + rows[:i], range(wires))[:: 1 - 2 * (i % 2)]
        return sum(rows[1:], rows[0])

    run = compiled(churn, x).run
    run()
    return (
        2
        * len(selection.pairwise_network(wires))
        * rounds
        * x.shape[1]
        / min(seconds(run) for _ in range(200))
    )


def largest_error(loss, params, batch, stepped, case, coordinates=300):
    """Of the new parameters against numpy in float64 on formed per-example gradients, at random
    coordinates of each leaf.
    """
    rng, k, worst = np.random.default_rng(0), rank(case.c, case.m), 0.0
    leaves, treedef = jax.tree.flatten(params)
    for place, (p, new) in enumerate(zip(leaves, jax.tree.leaves(stepped))):
        chosen = rng.integers(p.size, size=coordinates)
        one = lambda e, place=place, chosen=chosen: jax.tree.leaves(
            jax.grad(loss)(treedef.unflatten(leaves), e)
        )[place].ravel()[chosen]
        values = np.asarray(jax.jit(lambda b, one=one: jax.lax.map(one, b))(batch), np.float64)
        ranked = np.sort(values, 0)
        expected = np.asarray(p).ravel()[chosen] - LEARNING_RATE * np.clip(
            values, ranked[k], ranked[case.m - 1 - k]
        ).mean(0)
        worst = max(worst, float(np.abs(np.asarray(new).ravel()[chosen] - expected).max()))
    return worst


def robust(case, speed, quick):
    """The case's row, and whether the update is right."""
    loss, params, batch = problem(case.m, 2048, 1)
    tx = co.optim.chain(case.aggregator, optax.sgd(LEARNING_RATE))
    ours = compiled(stepping(loss, tx, tx.init(params)), params, batch)
    error = largest_error(loss, params, batch, ours.run()[0], case)
    several = lambda: [ours.run() for _ in range(STEPS)]
    found = {}
    for name, run in baselines.steps(loss, params, batch, case.c, case.m, LEARNING_RATE).items():
        took = ratio(run, several, 1 if quick or case.m > 100 or "sort" in name else 5)
        found[name] = took._replace(
            value=STEPS * took.value, low=STEPS * took.low, high=STEPS * took.high, b=took.b / STEPS
        )
    best = min((name for name in found if "sort" not in name), key=lambda name: found[name].value)
    size = sum(p.size for p in jax.tree.leaves(params))
    fast = found[best].b
    floor = operations(case) * size / speed
    memory = (ours.temporaries + ours.outputs) / (4 * case.m * size)
    others = ", ".join(
        f"{name} {r.a:.2f} s" for name, r in sorted(found.items(), key=lambda x: x[1].a)
    )
    times = f"{1e3 * fast:.0f} | {found[best]} ({best}) | >= {case.target} | {1e3 * floor:.0f}"
    times += f" | {fast / floor:.1f} | <= {FLOOR:g}"
    costs = f"{memory:.3f} | <= {MEMORY} | {ours.seconds_to_compile:.1f} | {error:.0e}"
    print(f"| `{case.name}` | {times} | {costs} | {others} |", flush=True)
    return error < 1e-6


def against_sgd(name, step, params, batch, loss, pairs, target):
    """A step on the same examples, over plain SGD: time, and temporaries and outputs."""
    ours, theirs = compiled(step, params, batch), compiled(plain(loss), params, batch)
    took = ratio(ours.run, theirs.run, pairs, warmup=3)
    memory = (ours.temporaries + ours.outputs) / (theirs.temporaries + theirs.outputs)
    print(
        f"| {name} | {1e3 * took.a:.1f} | {1e3 * took.b:.1f} | {took} | <= {target} | "
        f"{memory:.2f} | {ours.seconds_to_compile:.1f} |",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one pair a case")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    chosen = parser.parse_args()
    speed = rate()
    print(
        f"{jax.devices()[0].device_kind}, JAX {jax.__version__}, float32; {speed / 1e9:.0f} "
        "billion comparisons a second\n"
    )
    print(
        "| step | ms | times faster than the best baseline | target | floor, ms | times the floor "
        "| target | memory | target | compile, s "
    )
    print("| error | baselines |\n|---|---|---|---|---|---|---|---|---|---|---|---|")
    right = [robust(case, speed, chosen.quick) for case in CASES if chosen.only in case.name]
    print(
        "\n| step | ms | plain SGD, ms | ratio | target | memory over SGD's | compile, s |"
        "\n|---|---|---|---|---|---|---|"
    )
    sgd, pairs = optax.sgd(LEARNING_RATE), 15 if chosen.quick else 101
    loss, params, batch = problem(100, 256, 3)

    def against(name, aggregator, target):
        tx = co.optim.chain(aggregator, sgd)
        step = stepping(loss, tx, tx.init(params))
        against_sgd(name, step, params, batch, loss, pairs, target)

    against("`winsorize(2)`, 784-256-256-256-10", co.optim.winsorize(2), 3)
    loss, params, batch = problem(100, 2048, 1)
    for name, tx in {
        "M3": co.optim.median_of_means(3),
        "RM3": co.optim.rolling_median(3),
        "RA3": co.optim.rolling_mean(3),
    }.items():
        against(f"{name}, 784-2048-10", tx, 1.3)
    loss, params, batch = problem(128, 2048, 1)
    for tx in (co.optim.natural_gradient(), co.optim.kfac()):
        against(f"`{tx.name}`, m = 128, 784-2048-10", tx, 2)
    name = "`project(k=256)`, m = 128, 784-2048-10"
    against_sgd(name, sketching(loss, 256), params, batch, loss, pairs, 1.5)
    sys.exit(0 if all(right) else "an update differs from the oracle")


if __name__ == "__main__":
    main()
