"""Slow twins of aggregators in numpy and float64, as the docstrings define them."""

import math
from fractions import Fraction

import jax
import numpy as np
import scipy.optimize


def together(function):
    """A twin of trees from one of all leaves as one matrix, [m, P] -> [P]."""

    def twin(gradients):
        leaves, treedef = jax.tree.flatten(gradients)
        parts = np.split(function(flat(gradients)), np.cumsum([x[0].size for x in leaves])[:-1])
        return treedef.unflatten([part.reshape(x.shape[1:]) for part, x in zip(parts, leaves)])

    return twin


def flat(gradients):
    return np.concatenate(
        [np.asarray(x, np.float64).reshape(len(x), -1) for x in jax.tree.leaves(gradients)], 1
    )


@np.errstate(invalid="ignore")
def mean(g):
    return np.asarray(g, np.float64).mean(0)


@np.errstate(invalid="ignore")  # infinite over infinite is nan
def over_rms(g):
    return mean(g) / (np.sqrt(mean(g**2)) + 1e-8)


@np.errstate(invalid="ignore")
def middle_of_groups(g, groups):
    return np.median([mean(part) for part in np.array_split(g, min(groups, len(g)))], 0)


@np.errstate(invalid="ignore")
def trimmed(g, c):
    m = len(g)
    k = max(0, math.ceil(Fraction(c) * (m - 1) / 100 - Fraction(1, 2)))
    g = np.asarray(g, np.float64)
    return np.where(np.isnan(g).any(0), np.nan, np.sort(g, 0)[k : m - k].mean(0))


def nearest(g):
    """The geometric median: Weiszfeld's iteration until nothing moves."""
    z = g.mean(0)
    for _ in range(3000):
        closeness = 1 / np.maximum(np.linalg.norm(g - z, axis=1), 1e-300)
        z = closeness @ g / closeness.sum()
    return z


def clipped(g, longest):
    return np.mean([x * min(1, longest / np.linalg.norm(x)) if x.any() else x for x in g], 0)


@np.errstate(invalid="ignore")
def votes(g):
    return np.sign(np.asarray(g, np.float64)).sum(0)


def agreed(g, threshold):
    return np.where(abs(votes(g)) < math.ceil(Fraction(str(threshold)) * len(g)), 0, mean(g))


def coherent_leaves(gradients, threshold):
    def leaf(x):
        rows = flat(x)
        helped = sum(a @ b for a in rows for b in rows) / sum(a @ a for a in rows)
        return mean(x) if helped > threshold else np.zeros(x.shape[1:])

    return jax.tree.map(leaf, gradients)


@np.errstate(invalid="ignore", divide="ignore")
def own_coherence(g):
    """Of each coordinate: pairs that agree, over the diagonal."""
    return sum(a * b for a in g for b in g) / sum(a * a for a in g)


def coherent_coordinates(g, threshold):
    g = np.asarray(g, np.float64)
    return np.where(own_coherence(g) <= threshold, 0, mean(g))


def strongest(g, scores, share):
    kept = np.argsort(-scores, kind="stable")[: math.ceil(Fraction(str(share)) * scores.size)]
    return np.where(np.isin(np.arange(scores.size), kept), mean(g), 0)


def over_fisher(g, damping):
    """The mean gradient over the damped Fisher matrix, which is formed."""
    rows = np.asarray(g, np.float64).reshape(len(g), -1)
    fisher = rows.T @ rows / len(rows) + damping * np.eye(rows.shape[1])
    return np.linalg.solve(fisher, rows.mean(0)).reshape(np.shape(g)[1:])


def sent_by_workers(g, workers, compress):
    """The mean over examples of what consecutive groups make of their means, weighted by size."""
    groups = [part for part in np.array_split(np.asarray(g, np.float64), workers) if len(part)]
    return sum(len(part) / len(g) * compress(part.mean(0)) for part in groups)


def scaled_signs(p):
    return np.abs(p).mean() * np.sign(p)


def keep_largest(p, share):
    flat = p.ravel()
    kept = np.argsort(-np.abs(flat), kind="stable")[: max(1, round(share * flat.size))]
    result = np.zeros_like(flat)
    result[kept] = flat[kept]
    return result.reshape(p.shape)


def in_steps(p, bits):
    step = np.abs(p).max() / (2 ** (bits - 1) - 1)
    return np.round(p / step) * step if step else 0 * p


def krum(g, share, chosen):
    m = len(g)
    near = max(1, m - math.floor(Fraction(str(share)) * m) - 2)
    scores = [sum(sorted(sum((a - b) ** 2) for b in g)[1 : near + 1]) for a in g]
    return g[np.argsort(scores, kind="stable")[:chosen]].mean(0)


def medoid_of_means(g, groups):
    means = [part.mean(0) for part in np.array_split(g, min(groups, len(g)))]
    sums = [sum(np.linalg.norm(a - b) for b in means) for a in means]
    return means[int(np.argmin(sums))]


def agreeing(g, farthest, groups):
    first, *others = (part.mean(0) for part in np.array_split(g, min(groups, len(g))))
    agreed = [first]
    for other in others:
        now = np.mean(agreed, 0)
        if 1 - now @ other / np.linalg.norm(now) / np.linalg.norm(other) <= farthest:
            agreed.append(other)
    return np.mean(agreed, 0) if len(agreed) > 1 or not others else 0 * first


def without_conflict(g):
    """Each row plus the others with weights of least squares that are not negative."""
    return np.mean([row + g.T @ scipy.optimize.nnls(g.T, -row)[0] for row in g], 0)
