"""The slow truth: every definition in numpy loops, as the papers write it, and per-example gradients one `jax.grad` at a time."""

import jax
import numpy as np


def gradients(loss, params, batch):
    """A Python loop of `jax.grad`, one example at a time: leaves [m, ...], numpy."""
    m = jax.tree.leaves(batch)[0].shape[0]
    gradient = jax.jit(jax.grad(loss))
    rows = [gradient(params, jax.tree.map(lambda x: x[i], batch)) for i in range(m)]
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *rows)


def flat(tree):
    """[m, parameters] in float64."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], 1)


def alpha(g):
    """g is [m, parameters]."""
    m = len(g)
    pairs = sum(np.dot(a, b) for a in g for b in g) / m**2
    return pairs / (sum(np.dot(a, a) for a in g) / m)


def alpha_unbiased(g):
    """Average over pairs of different examples, over the mean squared norm."""
    m = len(g)
    pairs = sum(np.dot(g[i], g[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return pairs / (sum(np.dot(a, a) for a in g) / m)
