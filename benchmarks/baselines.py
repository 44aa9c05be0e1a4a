"""Other ways to take a winsorized or median step of a one-hidden-layer network.

Form every example's gradient, then select.
"""

import concurrent.futures
import os

import jax
import jax.numpy as jnp
import numpy as np

from coherence.optim.order_statistics import Formed, rank, winsorized_mean

# Hidden units whose gradients numpy and torch hold at a time: of 8, 32, 128 and 512 within 6 % of
# the fastest for numpy (8), 13 % for topk (8), the fastest for torch.median; one trial each.
UNITS = 32


def steps(loss, params, batch, c, m, learning_rate):
    """`{name: run}`; each run is a full step: gradients, selection, new parameters."""
    k = rank(c, m)
    found = {"numpy.partition": _numpy(params, batch, k, learning_rate)}
    try:
        import torch
    except ImportError:
        pass
    else:
        found |= _torch(torch, params, batch, c, k, learning_rate)
    if m <= 128:  # a network of more in one loop does not compile in minutes
        found["XLA, selection network"] = _xla(
            loss, params, batch, lambda g: winsorized_mean(Formed(g), k), learning_rate
        )
        found["XLA, sort"] = _xla(loss, params, batch, lambda g: sorted_mean(g, k), learning_rate)
    else:
        found["XLA, bitonic network"] = _xla(loss, params, batch, _bitonic_median, learning_rate)
    return found


def _xla(loss, params, batch, select, learning_rate):
    @jax.jit
    def step(params, batch):
        gradients = jax.vmap(jax.grad(loss), (None, 0))(params, batch)
        # Formed, as the name says: without the barrier XLA may fuse the outer products into what
        # selects.
        gradients = jax.lax.optimization_barrier(gradients)
        selected = jax.tree.map(
            lambda g: select(g.reshape(len(g), -1)).reshape(g.shape[1:]), gradients
        )
        return jax.tree.map(lambda p, g: p - learning_rate * g, params, selected)

    return lambda: jax.block_until_ready(step(params, batch))


def sorted_mean(g, k):
    ranked = jnp.sort(g, 0)
    return jnp.clip(g, ranked[k], ranked[len(g) - 1 - k]).mean(0)


def _bitonic_median(g, tile=128):
    """Bitonic sort of a power of two examples, a few coordinates at a time in the cache."""
    m, size = g.shape
    g = jnp.pad(g, ((0, 0), (0, -size % tile)))

    def part(i):
        v, stretch = jax.lax.dynamic_slice_in_dim(g, i * tile, tile, 1), 2
        while stretch <= m:
            halves = v.reshape(m // stretch, 2, stretch // 2, tile)
            low, high = halves[:, 0], halves[:, 1, ::-1]
            low, high = jnp.where(low < high, low, high), jnp.where(low < high, high, low)
            v = jnp.concatenate([low[:, None], high[:, ::-1][:, None]], 1).reshape(m, tile)
            step = stretch // 4
            while step:
                low, high = v.reshape(m // (2 * step), 2, step, tile).swapaxes(0, 1)
                v = jnp.stack(
                    [jnp.where(low < high, low, high), jnp.where(low < high, high, low)], 1
                ).reshape(m, tile)
                step //= 2
            stretch *= 2
        return 0.5 * v[m // 2 - 1] + 0.5 * v[m // 2]

    return jax.lax.map(part, jnp.arange(g.shape[1] // tile)).ravel()[:size]


def _backward(xp, params, batch):
    """Inputs and cotangents of both layers, by hand: [m, 784], [m, H], [m, H], [m, 10]."""
    (x, y), p = batch, params
    before = x @ p["w"] + p["b"]
    hidden = before * (before > 0)
    logits = hidden @ p["v"] + p["c"]
    shares = xp.exp(logits - xp.amax(logits, 1)[:, None])
    d = shares / shares.sum(1)[:, None] - y
    return x, (d @ p["v"].T) * (before > 0), hidden, d


def _plain(params, batch):
    """The parameters and one-hot batch as numpy arrays."""
    hidden, output = params["params"]["hidden_0"], params["params"]["output"]
    named = {"w": hidden["kernel"], "b": hidden["bias"], "v": output["kernel"], "c": output["bias"]}
    return {name: np.asarray(x) for name, x in named.items()}, (
        np.asarray(batch[0]),
        np.eye(10, dtype=np.float32)[np.asarray(batch[1])],
    )


def _by_units(xp, params, batch, select, learning_rate, map_blocks):
    """One step; `select` takes [coordinates, m], the examples next to each other."""
    a, d, h, e = _backward(xp, params, batch)
    m = len(a)
    at, dt, ht, et = (x.T.copy() if xp is np else x.T.contiguous() for x in (a, d, h, e))

    def block(start):
        one = dt[start : start + UNITS]
        return select((one[:, None, :] * at[None]).reshape(-1, m)).reshape(len(one), -1).T

    w = xp.concatenate(map_blocks(block, range(0, len(dt), UNITS)), 1)
    v = select((ht[:, None, :] * et[None]).reshape(-1, m)).reshape(len(ht), -1)
    new = {"w": w, "b": select(dt), "v": v, "c": select(et)}
    return {name: params[name] - learning_rate * g for name, g in new.items()}


def _numpy(params, batch, k, learning_rate):
    params, batch = _plain(params, batch)
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())

    def select(g):
        m = g.shape[1]
        ranked = np.partition(g, sorted({k, m - 1 - k}), 1)
        return np.clip(g, ranked[:, k, None], ranked[:, m - 1 - k, None]).mean(1)

    return lambda: _by_units(
        np, params, batch, select, learning_rate, lambda f, blocks: list(pool.map(f, blocks))
    )


def _torch(torch, params, batch, c, k, learning_rate):
    plain_params, plain_batch = _plain(params, batch)
    params = {name: torch.from_numpy(x.copy()) for name, x in plain_params.items()}
    batch = tuple(torch.from_numpy(x.copy()) for x in plain_batch)
    clipped = lambda g, low, high: torch.clamp(g, low[:, None], high[:, None]).mean(1)

    def topk(g):
        return clipped(
            g,
            torch.topk(g, k + 1, 1, largest=False).values[:, -1],
            torch.topk(g, k + 1, 1).values[:, -1],
        )

    def kthvalue(g):
        return clipped(
            g, torch.kthvalue(g, k + 1, 1).values, torch.kthvalue(g, g.shape[1] - k, 1).values
        )

    # The lower of the two middle values: an easier task than ours.
    selections = (
        {"torch.median": lambda g: torch.median(g, 1).values}
        if c == 50
        else {"torch.topk": topk, "torch.kthvalue": kthvalue}
    )
    each = lambda f, blocks: [f(i) for i in blocks]
    return {
        name: lambda s=s: _by_units(torch, params, batch, s, learning_rate, each)
        for name, s in selections.items()
    }
