"""The mean of the group of examples that lies closest to those of the others."""

import functools
import numbers

import jax.numpy as jnp

from coherence.gradients.reductions import nodes

from .aggregation import Aggregator, aggregator
from .median_of_means import means_of_groups


def medoid_of_means(groups: int = 4) -> Aggregator:
    r"""The mean of one group of examples: that with the least sum of distances to the others'.

    .. math:: \bar g = \bar g_{k^*}, \qquad k^* = \arg\min_k \sum_l \|\bar g_k - \bar g_l\|

    A medoid is one of the points, where `median_of_means` takes each coordinate from another group:
    the direction is one that some examples agree on. The groups (chunks of the batch) are those of
    `median_of_means`, whose price it has. Of groups that are equally good, as two are, the first.

    Masked examples do not count: the groups are those of the rest. A nan in any example makes the
    coordinates it reaches nan.

    Medoid of chunks: arXiv:2605.07634.

    Args:
        groups: how many, at least 1; static.

    >>> tx = medoid_of_means(3)
    >>> tx.update(jnp.array([[0.0], [2.0], [3.0], [5.0], [100.0]]), tx.init(None))[0]
    Array([4.], dtype=float32)
    """
    if not isinstance(groups, numbers.Integral) or groups < 1:
        raise ValueError(
            f"medoid_of_means(groups): a whole number of groups, at least 1, got {groups!r}."
        )

    def combine(gradients):
        pairs, treedef = nodes(gradients)
        means, counts = means_of_groups(gradients, groups)
        present = jnp.asarray(counts) > 0
        leaves = [jnp.stack(leaf) for leaf in zip(*means)]
        distance = _distances([x.reshape(len(x), -1) for x in leaves])
        known = jnp.isfinite(distance)
        sums = jnp.sum(jnp.where(present & known, distance, 0), 1)
        # Those that are infinitely far from the fewest others, and of these the nearest.
        unknown = jnp.sum(present & ~known, 1)
        fewest = unknown == jnp.min(jnp.where(present, unknown, len(sums)))
        best = jnp.argmin(jnp.where(present & fewest, sums, jnp.inf))
        spoiled = lambda x: jnp.where(jnp.isnan(x).any(0), jnp.nan, x[best])
        chosen = map(spoiled, leaves)
        return treedef.unflatten([x.astype(node.dtype) for x, (_, node) in zip(chosen, pairs)])

    return aggregator(combine, f"medoid_of_means(groups={groups})")


def _distances(leaves):
    """Between the groups, [groups, groups], from leaves [groups, D]; inf or nan where one is not
    finite.

    Over the larger magnitude of each pair before squaring: the square may overflow.
    """
    magnitudes = functools.reduce(
        jnp.maximum, [jnp.max(jnp.abs(rows), -1, initial=0) for rows in leaves]
    )
    larger = jnp.maximum(magnitudes[:, None], magnitudes)
    scale = jnp.where(larger > 0, larger, 1)[..., None]
    squares = [jnp.sum(jnp.square((rows[:, None] - rows) / scale), -1) for rows in leaves]
    return larger * jnp.sqrt(sum(squares))
