"""The mean of those groups of examples whose gradients do not point away from the first's."""

import numbers

import jax.numpy as jnp

from coherence.gradients.reductions import nodes

from .aggregation import Aggregator, aggregator
from .median_of_means import means_of_groups


def agreement_filter(max_distance: float = 0.97, groups: int = 2) -> Aggregator:
    r"""Gradient agreement filtering: groups of examples join the step only if they agree with it.

    .. math:: 1 - \frac{\hat g\cdot\bar g_k}{\|\hat g\|\,\|\bar g_k\|} \le \tau

    The mean of the first group is the first :math:`\hat g`; each further group whose cosine
    distance to it is at most tau is averaged into it, in turn. Where none is, the update is zero.
    Gradients of a few examples are nearly orthogonal, distance 1: the source's tau of 0.97 drops
    much of a small batch, 1 drops what points against. The groups are those of `median_of_means`,
    so is the price; the order of the examples matters.

    Masked examples do not count: the groups are those of the rest; one that is left empty neither
    agrees nor disagrees. A single group is the mean. A nan in any example makes the coordinates it
    reaches nan.

    Chaubard, Eyzaguirre & Kochenderfer, Beyond Gradient Averaging in Parallel Optimization
    (arXiv:2412.18052).

    Args:
        max_distance: tau, in [0, 2].
        groups: how many (the source's microbatches), at least 1; static.

    >>> tx = agreement_filter()
    >>> tx.update(jnp.array([[1.0, 0.0], [1.0, 1.0]]), tx.init(None))[0]
    Array([1. , 0.5], dtype=float32)
    >>> tx.update(jnp.array([[1.0, 0.0], [-1.0, 1.0]]), tx.init(None))[0]
    Array([0., 0.], dtype=float32)
    """
    if not 0 <= max_distance <= 2:
        raise ValueError(
            f"agreement_filter(max_distance): a cosine distance, in [0, 2], got {max_distance}."
        )
    if not isinstance(groups, numbers.Integral) or groups < 1:
        raise ValueError(
            f"agreement_filter(groups): a whole number of groups, at least 1, got {groups!r}."
        )

    def combine(gradients):
        pairs, treedef = nodes(gradients)
        means, counts = means_of_groups(gradients, groups)
        total, joined, asked = means[0], jnp.ones(()), jnp.zeros(())
        for mean, number in zip(means[1:], list(counts)[1:]):
            present = jnp.asarray(number) > 0
            lengths = jnp.sqrt(_dot(total, total)) * jnp.sqrt(_dot(mean, mean))
            cosine = _dot(total, mean) / jnp.where(lengths > 0, lengths, 1)
            agrees = present & ~(1 - cosine > max_distance)  # a nan is not hidden
            total = [x + jnp.where(agrees, y, 0) for x, y in zip(total, mean)]
            joined, asked = joined + agrees, asked + present
        scale = jnp.where((asked > 0) & (joined == 1), 0, 1 / joined)
        return treedef.unflatten(
            [(scale * x).astype(node.dtype) for x, (_, node) in zip(total, pairs)]
        )

    return aggregator(combine, f"agreement_filter(max_distance={max_distance}, groups={groups})")


def _dot(left, right):
    return sum(jnp.vdot(x, y) for x, y in zip(left, right))
