"""Time and memory of a step with clipped gradients over a plain one, whole and in microbatches.

    python benchmarks/clipping.py [--pairs 6] [NET ...]

The networks are those of `per_example.py`. The clipped mean is compared with that of a loop over
the examples.
"""

import argparse

import jax
import jax.numpy as jnp
import optax
from per_example import NETS, problem
from timing import compiled, ratio

import coherence as co

MAX_NORM = 1.0  # below most lengths
PARTS = (1, 2, 4)  # microbatches


def measure(name, pairs):
    """The net's rows of the table, one a number of microbatches."""
    loss, params, batch = problem(NETS[name])
    m = len(jax.tree.leaves(batch)[0])
    mean_loss = lambda params, batch: jnp.mean(jax.vmap(loss, (None, 0))(params, batch))
    plain = compiled(jax.value_and_grad(mean_loss), params, batch)
    of_plain = plain.temporaries + plain.outputs
    expected = looped(loss, params, batch, m)
    for parts in PARTS:
        step = co.optim.clipped_value_and_grad(loss, MAX_NORM, microbatch_size=m // parts)
        ours = compiled(step, params, batch)
        difference = optax.tree.sub(ours.run()[1], expected)
        error = optax.tree.norm(difference) / optax.tree.norm(expected)
        took = ratio(ours.run, plain.run, pairs, warmup=1)
        memory = (ours.temporaries + ours.outputs) / of_plain
        yield f"{name:12} {m // parts:>4} of {m:<4} {took!s:>22} {memory:>7.2f} {error:>8.0e}"


def looped(loss, params, batch, m):
    """The mean of the clipped gradients, one example after the other."""

    @jax.jit
    def added(total, example):
        gradient = jax.grad(loss)(params, example)
        scale = jnp.minimum(1, MAX_NORM / optax.tree.norm(gradient)) / m
        return optax.tree.add_scale(total, scale, gradient)

    total = optax.tree.zeros_like(params)
    for i in range(m):
        total = added(total, jax.tree.map(lambda x, i=i: x[i], batch))
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("nets", nargs="*", metavar="NET", help="all")
    parser.add_argument("--pairs", type=int, default=6)
    chosen = parser.parse_args()
    print(f"{'':12} {'examples at a time':>12} {'time over plain':>18} {'memory':>7} {'error':>8}")
    for name in chosen.nets or NETS:
        for row in measure(name, chosen.pairs):
            print(row, flush=True)
