"""Losses, squared norms, alpha by layer and the mean gradient, against one plain gradient of the mean loss.

    python benchmarks/per_example.py [--quick]

A Flax 784-2048-10 network, batches of 100. The numbers are compared with per-example gradients formed by `vmap(grad)` in the same
run, whose time is given for information.
"""

import argparse
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from timing import compiled, ratio

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import coherence as co
from coherence.models import MLP
from coherence.tasks import cross_entropy

M, TARGET = 100, 1.25


def problem():
    model = MLP(width=2048, depth=1)
    rng = np.random.default_rng(0)
    batch = jnp.asarray(rng.random((M, 784)), jnp.float32), jnp.asarray(rng.integers(10, size=M))
    return cross_entropy(model), model.init(jax.random.key(0), batch[0][:1]), batch


def main(pairs):
    loss, params, batch = problem()
    plain = lambda p, b: jax.value_and_grad(lambda q: jnp.mean(jax.vmap(loss, (None, 0))(q, b)))(p)

    def ours(p, b):
        losses, g = co.per_example_value_and_grad(loss)(p, b)
        return losses, co.squared_norms(g), co.alpha(g, by=co.layer), co.mean(g)

    def formed(p, b):
        rows = jax.vmap(jax.grad(loss), (None, 0))(p, b)
        return None, co.squared_norms(rows), co.alpha(rows, by=co.layer), co.mean(rows)

    fast, reference, slow = (compiled(f, params, batch) for f in (ours, plain, formed))
    worst = 0.0
    for a, b in zip(jax.tree.leaves(fast.run()[1:]), jax.tree.leaves(slow.run()[1:])):
        worst = max(worst, float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))))
    assert worst < 1e-5, worst
    took = ratio(fast.run, reference.run, pairs, warmup=3)
    against_rows = ratio(slow.run, reference.run, max(3, pairs // 20))
    memory = (fast.temporaries + fast.outputs) / (reference.temporaries + reference.outputs)
    print(
        f"time over the plain gradient:        {took} (target <= {TARGET}); {took.a * 1e3:.2f} against {took.b * 1e3:.2f} ms, {pairs} pairs"
    )
    print(f"temporaries plus outputs over plain: {memory:.2f}")
    print(f"compile time over plain:             {fast.seconds_to_compile / reference.seconds_to_compile:.1f}")
    print(f"vmap(grad) over plain:               {against_rows}")
    print(f"largest relative difference:         {worst:.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    main(20 if parser.parse_args().quick else 200)
