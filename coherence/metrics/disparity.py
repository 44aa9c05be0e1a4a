"""Gradient disparity: how far apart the gradients of two mini-batches are."""

import math
import operator

import jax
import jax.numpy as jnp
import numpy as np

from coherence.gradients import reductions
from coherence.gradients.factors import accumulator
from coherence.trees import PyTree

from .pooling import check_examples


def gradient_disparity(gradients: PyTree, batches: int = 5) -> jax.Array:
    r"""Mean distance between the gradients of two mini-batches of the sample.

    .. math:: D = \frac{1}{|P|}\sum_{(a,b)\in P} \|\bar g_a - \bar g_b\| \ge 0

    over the pairs P of disjoint mini-batches, each with its mean gradient. 0 when the mini-batches
    agree. In the units of the loss by those of the parameters. The distance of the gradients v of B
    batches is bounded by their coherence (property P5 of alpha): :math:`D \le
    \sqrt{2(1-\alpha_B)\,\mathbb{E}\|v\|^2\,B/(B-1)}`.

    Noise alone gives :math:`\sqrt{2\,\mathrm{tr}\,\Sigma/k}` with batches of k examples: compare
    equal k only. It falls with the gradients' length as examples are fitted, and rises with the
    loss; a rise at falling loss is the signal to stop.

    Forouzesh & Thiran, Disparity Between Batches as a Signal for Early Stopping (arXiv:2107.06665):
    the distance is theirs; that they average over the pairs of 5 batches is from an account. There
    a batch is one of training's.

    Args:
        gradients: from `per_example_value_and_grad`, or a plain tree whose leaves have a leading
            axis of m examples.
        batches: how many (static): consecutive stretches of the sample, sizes as by
            `numpy.array_split`. Memory: the m x m inner products, or where that is less the mean
            gradient of each batch. By products distances below some 3e-4 of the gradients' length
            drown in float32's rounding.

    Returns:
        A scalar. Batches without an example that the mask keeps are left out; nan where fewer than
        two remain.

    Raises:
        ValueError: fewer than 2 batches, or more than examples.

    >>> gradient_disparity({"w": jnp.array([[1.0], [3.0], [4.0], [6.0]])}, batches=2)
    Array(3., dtype=float32)
    """
    check_examples(gradients, "gradient_disparity")
    nodes = [node for _, node in reductions.nodes(gradients)[0]]
    m, batches = reductions.size(gradients), operator.index(batches)
    if not 2 <= batches <= m:
        raise ValueError(
            f"gradient_disparity(batches): at least 2 and at most one an example, of {m}, "
            f"got {batches}."
        )
    parameters = sum(math.prod(node.shape) for node in nodes)
    dtype = accumulator(*(node.dtype for node in nodes))
    weights = _weights(m, batches, reductions.mask(gradients), dtype)
    first, second = np.triu_indices(batches, 1)
    distances = _distances_of_products if m * m <= batches * parameters else _distances_of_means
    occupied = jnp.any(weights > 0, 1)
    pairs = occupied[first] & occupied[second]
    return jnp.sum(distances(gradients, weights, first, second), where=pairs) / jnp.sum(pairs)


def _weights(m: int, batches: int, mask: jax.Array | None, dtype) -> jax.Array:
    """[batches, m]: each row takes the mean of one batch."""
    stretches = np.array_split(np.arange(m), batches)
    member = jnp.stack([jnp.asarray(np.isin(np.arange(m), stretch)) for stretch in stretches])
    member = (member if mask is None else member & mask).astype(dtype)
    return member / jnp.maximum(member.sum(1, keepdims=True), 1)


def _distances_of_products(gradients, weights, first, second):
    # Differences before products: less is lost where batches agree.
    apart = weights[first] - weights[second]
    return jnp.sqrt(jnp.maximum(jnp.sum((apart @ reductions.gram(gradients)) * apart, 1), 0))


def _distances_of_means(gradients, weights, first, second):
    means = [[leaf for _, leaf in reductions.leaf_weighted_sums(gradients, w)] for w in weights]
    square = lambda a, b: sum(jnp.sum((x - y) ** 2) for x, y in zip(means[a], means[b]))
    return jnp.sqrt(jnp.stack([square(a, b) for a, b in zip(first, second)]))
