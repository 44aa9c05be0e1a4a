"""Order statistics of convolutions and sequences, whose gradients have to be formed.

    python benchmarks/formed_leaves.py [--only block] [--examples 128]

Full steps of the CNN 32-64-64 of `benchmarks/peers` and of a transformer block, 64 tokens of width
128, in processor time: ours and those that form all gradients, `jit(vmap(grad))`, and then select
on the host or in XLA; each also without the time of the plain gradient, which all of them need. The
torch ones run where PyTorch is installed. A few calls each in turn, the least of them; updates are
compared with numpy's in the same run.
"""

import argparse
import pathlib
import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from baselines import sorted_mean

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import coherence as co
from coherence.lab.models import CNN, Transformer
from coherence.lab.tasks import cross_entropy
from coherence.optim.order_statistics import rank

CALLS = 3
LONG = 5.0  # seconds


def problem(net, m):
    rng = np.random.default_rng(0)
    if net == "CNN 32-64-64":
        model, batch = CNN(), (rng.normal(size=(m, 32, 32, 3)), rng.integers(10, size=m))
        batch = jnp.asarray(batch[0], jnp.float32), jnp.asarray(batch[1])
    else:
        model = Transformer(vocabulary=64, length=64, width=128, depth=1, tied=False)
        tokens = jnp.asarray(rng.integers(64, size=(m, 65)))
        batch = tokens[:, :-1], tokens[:, 1:]
    losses = cross_entropy(model)
    loss = lambda params, example: jnp.mean(losses(params, example))
    return loss, jax.jit(model.init)(jax.random.key(0), batch[0][:1]), batch


def selections(c, m):
    """`{name: [m, D] -> [D]}` on the host, the examples next to each other first."""
    k = rank(c, m)

    def partition(g):
        values = np.ascontiguousarray(g.T)
        ranked = np.partition(values, sorted({k, m - 1 - k}), 1)
        return np.clip(values, ranked[:, k, None], ranked[:, m - 1 - k, None]).mean(1)

    ways = {"numpy.partition": partition}
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    try:
        import torch
    except ImportError:
        return ways

    def by_torch(select):
        return lambda g: select(torch.from_numpy(g).T.contiguous()).numpy()

    def topk(g):
        low = torch.topk(g, k + 1, 1, largest=False).values[:, -1:]
        return torch.clamp(g, low, torch.topk(g, k + 1, 1).values[:, -1:]).mean(1)

    # The lower of the two middle values: an easier task than ours.
    median = lambda g: torch.median(g, 1).values
    return ways | (
        {"torch.median": by_torch(median)} if c == 50 else {"torch.topk": by_torch(topk)}
    )


def steps(loss, params, batch, c, m):
    """`{name: (run, bytes of temporaries and outputs)}`: the selected gradient, leaf by leaf."""

    def built(function):
        program = jax.jit(function).lower(params, batch).compile()
        memory = program.memory_analysis()
        used = memory.temp_size_in_bytes + memory.output_size_in_bytes
        return (lambda: jax.block_until_ready(program(params, batch))), used

    tx = co.optim.median() if c == 50 else co.optim.winsorize(c)
    gradients = lambda p, b: co.per_example_value_and_grad(loss)(p, b)[1]
    mean = lambda p, b: jnp.mean(jax.vmap(loss, (None, 0))(p, b))
    rows = lambda p, b: jax.vmap(jax.grad(loss), (None, 0))(p, b)
    form, formed = built(rows)
    found = {
        "plain": built(jax.grad(mean)),
        "ours": built(lambda p, b: tx.update(gradients(p, b), tx.init(p))[0]),
    }
    for name, select in selections(c, m).items():
        one = lambda g, select=select: select(np.asarray(g).reshape(m, -1)).reshape(g.shape[1:])
        found[name] = (lambda one=one: jax.tree.map(one, form())), formed
    one = lambda g: sorted_mean(g.reshape(m, -1), rank(c, m)).reshape(g.shape[1:])
    # Without the barrier XLA may fuse the backward pass into what selects.
    found["XLA, sort"] = built(
        lambda p, b: jax.tree.map(one, jax.lax.optimization_barrier(rows(p, b)))
    )
    return found


def measured(found):
    """Processor seconds of each, the least of a few calls in turn, or of one that takes long."""
    least = dict.fromkeys(found, np.inf)
    for _ in range(CALLS + 1):
        for name, (run, _) in found.items():
            if LONG < least[name] < np.inf:
                continue
            start = time.process_time()
            run()
            least[name] = min(least[name], time.process_time() - start)
    return least


def row(net, m, c):
    loss, params, batch = problem(net, m)
    found = steps(loss, params, batch, c, m)
    expected, ours = (jax.tree.leaves(found[x][0]()) for x in ("numpy.partition", "ours"))
    # Relative to the leaf's largest, but of a key's bias, whose gradient is rounding alone.
    least = 1e-3 * max(np.abs(a).max() for a in expected)
    error = max(
        float(np.abs(a - b).max() / max(np.abs(a).max(), least)) for a, b in zip(expected, ours)
    )
    times = measured(found)
    others = {name: x for name, x in times.items() if name not in ("plain", "ours")}
    best = min(others, key=others.get)
    plain, memory = times["plain"], {name: found[name][1] for name in ("plain", "ours", best)}
    more = times["ours"] - plain
    over = f"{(times[best] - plain) / more:.1f}" if more > 0 else "ours is no more than plain"
    used = (memory["ours"] - memory["plain"]) / max(1, memory[best] - memory["plain"])
    each = ", ".join(f"{name} {1e3 * x:.0f}" for name, x in others.items())
    name = "median()" if c == 50 else f"winsorize({c})"
    print(
        f"| {net}, `{name}`, m = {m} | {1e3 * times['ours']:.0f} | {1e3 * plain:.0f} | {each} | "
        f"{times[best] / times['ours']:.2f} | {over} | {memory['ours'] / memory[best]:.2f} | "
        f"{used:.2f} | {error:.0e} |",
        flush=True,
    )
    return error < 1e-4


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="nets whose name contains this")
    parser.add_argument("--examples", type=int, nargs="+", default=[128, 256])
    chosen = parser.parse_args()
    print(
        "| step | processor ms | plain gradient | others | best of them over ours | likewise, each "
        "less the plain gradient | memory over the best's | likewise less the plain one's | error |"
        "\n|---|---|---|---|---|---|---|---|---|"
    )
    nets = [net for net in ("CNN 32-64-64", "transformer block") if chosen.only in net]
    right = [row(net, m, c) for net in nets for m in chosen.examples for c in (2, 50)]
    sys.exit(0 if all(right) else "an update differs from numpy's")


if __name__ == "__main__":
    main()
