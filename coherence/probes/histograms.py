"""Histograms of a tree's numbers by layer, cheap enough to be read while training."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from coherence.trees import PyTree, layer

BINS = 31
"""From -limit to limit; odd, so that the middle one holds 0."""
SAMPLE = 4096
"""Numbers of a leaf that are counted at most, evenly spaced."""


class Histogram(NamedTuple):
    """How the numbers of each layer are spread.

    counts: {layer: [BINS]}, bins of equal width from -limit to limit. Of a leaf with more than
        `SAMPLE` numbers evenly spaced ones count for those between.
    limit: {layer: scalar}, the largest absolute value of all its finite numbers.
    """

    counts: dict[str, jax.Array]
    limit: dict[str, jax.Array]


def histogram(tree: PyTree) -> Histogram:
    """The histogram of each layer of a tree of arrays; nan and infinity are in no bin.

    >>> counts = histogram({"dense": {"kernel": jnp.array([-1.0, 0.0, 1.0])}}).counts["dense"]
    >>> counts[0], counts[BINS // 2], counts[-1], counts.sum()
    (Array(1., dtype=float32), Array(1., dtype=float32), Array(1., dtype=float32), Array(3., dtype=float32))
    """  # noqa: E501
    layers: dict[str, list[jax.Array]] = {}
    for path, leaf in jax.tree.leaves_with_path(tree):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            layers.setdefault(layer(path), []).append(jnp.ravel(leaf))
    counts, limits = {}, {}
    for name, leaves in layers.items():
        limits[name] = jnp.stack([_largest(leaf) for leaf in leaves]).max()
        counts[name] = sum(_counts(leaf, limits[name]) for leaf in leaves)
    return Histogram(counts, limits)


def _largest(leaf):
    sizes = jnp.abs(leaf).astype(jnp.float32)
    return jnp.max(jnp.where(jnp.isfinite(sizes), sizes, 0.0), initial=0.0)


def _counts(leaf, limit):
    stride = max(1, -(-leaf.size // SAMPLE))
    stride += stride > 1 and stride % 2 == 0  # rows often have even lengths: not the same columns
    sample = leaf[::stride].astype(jnp.float32)
    places = (sample / jnp.where(limit > 0, limit, 1.0) + 1.0) * (BINS / 2)
    bins = jnp.where(jnp.isfinite(sample), jnp.clip(jnp.floor(places), 0, BINS - 1), -1.0)
    weight = leaf.size / max(len(sample), 1)
    return weight * jnp.sum(bins[:, None] == jnp.arange(BINS), axis=0).astype(jnp.float32)
