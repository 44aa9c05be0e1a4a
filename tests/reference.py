"""The slow truth.

Every definition in numpy loops, as the papers write it, and per-example gradients one `jax.grad` at
a time.
"""

import jax
import numpy as np


def gradients(loss, params, batch):
    """A Python loop of `jax.grad`, one example at a time: leaves [m, ...], numpy."""
    return values_and_gradients(loss, params, batch)[1]


def values_and_gradients(loss, params, batch):
    """The losses [m], too."""
    m = jax.tree.leaves(batch)[0].shape[0]
    value_and_gradient = jax.jit(jax.value_and_grad(loss))
    batch = jax.tree.map(np.asarray, batch)  # slices of JAX's arrays would be compiled
    rows = [value_and_gradient(params, jax.tree.map(lambda x: x[i], batch)) for i in range(m)]
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


def stiffness(g, of):
    """Mean of `of(g_i, g_j)` over ordered pairs of different examples that both have a
    direction."""
    return _mean(
        [
            of(a, b)
            for i, a in enumerate(g)
            for j, b in enumerate(g)
            if i != j and np.any(a) and np.any(b)
        ]
    )


def sign(a, b):
    return np.sign(np.dot(a, b))


def cosine(a, b):
    return np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b))


def class_stiffness(g, groups, num_groups, of):
    """The class stiffness matrix.

    Its means within classes and between them, over the entries that have a pair.
    """
    matrix = np.full((num_groups, num_groups), np.nan)
    for a in range(num_groups):
        for b in range(num_groups):
            of_a, of_b = (
                [i for i in range(len(g)) if groups[i] == c and np.any(g[i])] for c in (a, b)
            )
            matrix[a, b] = _mean([of(g[i], g[j]) for i in of_a for j in of_b if i != j])
    entries = [
        (a == b, matrix[a, b])
        for a in range(num_groups)
        for b in range(num_groups)
        if not np.isnan(matrix[a, b])
    ]
    return (
        matrix,
        _mean([x for own, x in entries if own]),
        _mean([x for own, x in entries if not own]),
    )


def confusion(g):
    """Smallest eta >= 0 with <g_i, g_j> >= -eta, smallest cosine, share of negative inner
    products."""
    pairs = [(g[i], g[j]) for i in range(len(g)) for j in range(len(g)) if i != j]
    products = [np.dot(a, b) for a, b in pairs]
    cosines = [cosine(a, b) for a, b in pairs if np.any(a) and np.any(b)]
    return max(0.0, -min(products)), min(cosines), _mean([p < 0 for p in products])


def disparity(g, batches):
    """Mean distance between the mean gradients of consecutive batches."""
    means = [batch.mean(0) for batch in np.array_split(g, batches)]
    return _mean([np.linalg.norm(means[a] - means[b]) for a in range(batches) for b in range(a)])


def tangent_kernel(outputs, params, inputs):
    """K over (input, output) pairs by loops of `jax.grad`; outputs [C]."""
    rows = []
    for x in inputs:
        for c in range(outputs(params, x).shape[0]):
            gradient = jax.grad(lambda p: outputs(p, x)[c])(params)
            rows.append(
                np.concatenate(
                    [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(gradient)]
                )
            )
    return np.array([[np.dot(a, b) for b in rows] for a in rows])


def kernel_alignment(kernel, y):
    total = sum(y[i] * kernel[i, j] * y[j] for i in range(len(y)) for j in range(len(y)))
    return total / (np.sqrt(sum(k**2 for k in kernel.ravel())) * np.dot(y, y))


def gap_bound(alphas, learning_rates, lipschitz, smoothness, m):
    """The theorem's right side, step by step; alphas[t] is measured before step t + 1."""
    total = 0.0
    for t in range(len(alphas)):
        later = 1.0
        for k in range(t + 1, len(alphas)):
            later *= 1 + learning_rates[k] * smoothness
        total += later * learning_rates[t] * np.sqrt(2 * (1 - alphas[t]))
    return lipschitz**2 / m * total


def _mean(values):
    return sum(values) / len(values) if values else np.nan
