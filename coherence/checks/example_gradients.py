"""Gradients to try a method on.

Plain ones of any number of examples, and those of a small network as the engine makes them.
"""

import functools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coherence.gradients import RecomputedWarning, per_example_value_and_grad

_M = 12
_MASK = np.arange(_M) % 3 != 1


class Real(NamedTuple):
    """`nodes` from the engine and `rows`, the same as plain arrays [m, ...].

    `masked` and `present`: with a mask, and without those.
    """

    params: Any
    nodes: Any
    rows: Any
    masked: Any
    present: Any


def plain(m):
    """Normal, float32, with something in common.

    A matrix, a vector and a number, behind m examples.
    """
    rng = np.random.default_rng(m)
    shapes = {"matrix": (4, 5), "number": (), "vector": (6,)}
    return {
        name: jax.device_put(
            (rng.normal(size=(m, *s)) + 0.5 * rng.normal(size=s)).astype(np.float32)
        )
        for name, s in shapes.items()
    }


def parameters(gradients, dtypes=(jnp.float32,)):
    """Ones in the shape of one example's gradients; the dtypes take turns."""
    leaves, treedef = jax.tree.flatten(gradients)
    return jax.tree.unflatten(
        treedef,
        [
            jax.device_put(np.ones(leaf.shape[1:], dtypes[i % len(dtypes)]))
            for i, leaf in enumerate(leaves)
        ],
    )


def loss(params, example):
    """Four positions share `sequence`, one vector meets `dense`, and `sorted` is too large for
    rows and has no rule."""
    x, y = example
    hidden = jnp.tanh(x @ params["sequence"]).reshape(-1)
    hidden = jnp.tanh(hidden @ params["dense"] + params["bias"])
    ranked = jnp.sort(params["sorted"])
    return 0.5 * jnp.sum((hidden - y) ** 2) + x[0, 0] * ranked @ jnp.linspace(
        -1, 1, ranked.size, dtype=ranked.dtype
    )


@functools.cache
def real():
    """A network's gradients.

    Rows, factors of a sequence and of one vector (too large to be joined with others), and
    recomputed.
    """
    rng = np.random.default_rng(0)
    normal = lambda *shape, scale=1.0: jax.device_put(
        (scale * rng.normal(size=shape)).astype(np.float32)
    )
    params = {
        "sequence": normal(9, 40, scale=0.3),
        "dense": normal(160, 160, scale=0.1),
        "bias": normal(160),
        "sorted": normal(4200),
    }
    batch = (normal(_M, 4, 9), normal(_M, 160))
    transform = jax.jit(per_example_value_and_grad(loss))
    rows = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(params, batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecomputedWarning)  # one is meant to be
        nodes, masked = transform(params, batch)[1], transform(params, batch, jnp.asarray(_MASK))[1]
    return Real(params, nodes, rows, masked, jax.tree.map(lambda x: np.asarray(x)[_MASK], rows))
