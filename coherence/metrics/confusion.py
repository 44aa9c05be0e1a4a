"""Gradient confusion, from the inner products of pairs: do some gradients oppose each other?"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from coherence.trees import PyTree

from .stiffness import pairs


class Confusion(NamedTuple):
    """Gradient confusion of a sample, as scalars.

    bound: the smallest eta, at least 0.
    minimum_cosine: of the most opposed pair, in [-1, 1].
    negative_share: share of the pairs that are opposed, in [0, 1].

    >>> from coherence.metrics import gradient_confusion
    >>> confusion = gradient_confusion({"w": jnp.array([[1.0], [-1.0]])})
    >>> float(confusion.minimum_cosine), float(confusion.negative_share)
    (-1.0, 1.0)
    """

    bound: jax.Array
    minimum_cosine: jax.Array
    negative_share: jax.Array


def gradient_confusion(gradients: PyTree) -> Confusion:
    r"""How much the most opposed pair of examples undoes of each other's progress.

    .. math:: \eta = \max\Big(0,\ -\min_{i\ne j}\ g_i\cdot g_j\Big) \ge 0

    the smallest eta that bounds the confusion: :math:`g_i\cdot g_j \ge -\eta` for all pairs. 0 when
    no two examples conflict, orthogonal ones included; then SGD on one example never hurts another
    to first order. In the units of a squared gradient, so it also falls because gradients shrink:
    `minimum_cosine`, in [-1, 1], is free of scale, and `negative_share` says whether the worst pair
    is alone.

    An extreme over all pairs grows with m: compare equal m only. The theory is about whichever
    functions SGD takes its steps on: for mini-batches pass their gradients as a plain tree with a
    leading axis of batches. Those conflict far less than single examples.

    Sankararaman, De, Xu, Huang & Goldstein, The Impact of Neural Network Overparameterization on
    Gradient Confusion and Stochastic Gradient Descent (arXiv:1904.06963), from accounts of it, by
    which the paper also plots the cosines.

    Args:
        gradients: from `per_example_value_and_grad`, or a plain tree whose leaves have a leading
            axis of m examples. Memory: m x m.

    Returns:
        `Confusion(bound, minimum_cosine, negative_share)`. Examples with zero gradient count with
        inner products of 0, and have no cosine. nan where no pair is left.

    Raises:
        ValueError: the sample holds one example, of which there is no pair.

    >>> gradient_confusion({"w": jnp.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])}).bound
    Array(3., dtype=float32)
    """
    every = pairs(gradients, "gradient_confusion")
    least = _least(every.products, every.counted)
    negative = every.products < 0
    # A diverged run must not look peaceful: nan stays nan.
    opposed = jnp.where(jnp.isnan(every.products), every.products, negative)
    share = jnp.sum(opposed, where=every.counted) / jnp.sum(every.counted)
    return Confusion(jnp.maximum(-least, 0), _least(every.cosines, every.directed), share)


def _least(values: jax.Array, where: jax.Array) -> jax.Array:
    """The smallest of these values; nan where there is none."""
    return jnp.where(jnp.any(where), jnp.min(values, where=where, initial=jnp.inf), jnp.nan)
