"""Scores that read one gradient at a time: its norm, its alignment with the parameters."""

import jax
import jax.numpy as jnp

from coherence.gradients.factors import accumulator
from coherence.gradients.reductions import dot, squared_norms
from coherence.metrics.pooling import check_examples
from coherence.trees import PyTree


def grand(gradients: PyTree) -> jax.Array:
    r"""Each example's gradient norm, :math:`\|g_i\|_2 \ge 0`, over all layers.

    How far a step on this example alone would move the parameters. In units of the loss over those
    of the parameters: compare examples of one checkpoint. Without any gradient formed: a few
    percent of a gradient. The source takes its mean over ten networks at *initialization*; there a
    single one mostly says how long the input is.

    Paul, Ganguli & Dziugaite, Deep Learning on a Data Diet (arXiv:2107.07075), Definition 2.1.

    Args:
        gradients: from `per_example_value_and_grad`, or a plain tree whose leaves have a leading
            axis of m examples.

    Returns:
        [m]; 0 where masked.

    >>> grand({"w": jnp.array([[3.0, 4.0], [0.0, 1.0]])})
    Array([5., 1.], dtype=float32)
    """
    check_examples(gradients, "grand")
    return jnp.sqrt(squared_norms(gradients))


def weight_alignment(gradients: PyTree, params: PyTree) -> jax.Array:
    r"""The cosine between each example's descent direction and the parameters.

    .. math:: \frac{-g_i\cdot\theta}{\|g_i\|\,\|\theta\|} \in [-1, 1]

    Above 0: a step on the example lengthens the weights that are there, as it does for one that
    the network gets right; below: it takes them back, as for a wrong or hard label. Of all layers;
    the source takes the last one alone, and its mean over examples for early stopping. For a
    homogeneous network (ReLU, no biases) :math:`g_i\cdot\theta` is the depth times the product of
    the logits and their error: it then knows no more than the outputs do. One inner product with
    the gradients.

    Hölzl, Rueckert & Kaissis, Gradient-Weight Alignment (arXiv:2510.25480); from accounts of it.

    Args:
        gradients: as for `grand`.
        params: where they were taken.

    Returns:
        [m]; nan where a gradient is zero or masked.

    >>> weight_alignment({"w": jnp.array([[-1.0, 0.0], [0.0, 2.0]])}, {"w": jnp.array([3.0, 0.0])})
    Array([1., 0.], dtype=float32)
    """
    check_examples(gradients, "weight_alignment")
    # Two roots: the product of the squares is beyond float32 long before the lengths are.
    lengths = jnp.sqrt(squared_norms(gradients)) * jnp.sqrt(squared_length(params))
    # 0.0 - x: of an example orthogonal to the parameters 0, not -0.
    return 0.0 - dot(gradients, params) / lengths


def squared_length(params: PyTree) -> jax.Array:
    """The squared length of all parameters together, in at least float32."""
    square = lambda leaf: jnp.sum(jnp.square(leaf.astype(accumulator(leaf.dtype))))
    squares = [square(jnp.asarray(leaf)) for leaf in jax.tree.leaves(params)]
    return sum(squares, jnp.zeros(()))
