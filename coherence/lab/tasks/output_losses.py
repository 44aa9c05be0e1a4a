"""What a network's outputs are compared with: losses of classification, from outputs and label.

Each is a function of outputs [..., classes] and integer labels [...], so that it serves one example
and many; computed in float32 at least. Those of one example are made by `classification.loss_of`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from coherence.gradients.factors import largest

OutputLoss = Callable[[jax.Array, jax.Array], jax.Array]


def softmax_cross_entropy(
    smoothing: float = 0.0, weights: tuple[float, ...] | None = None
) -> OutputLoss:
    r"""Minus the log probability of the label: the likelihood of a categorical distribution.

    .. math:: \ell = -w_y \sum_k q_k \log p_k, \qquad p = \mathrm{softmax}(f), \quad
              q_k = (1 - s)[k = y] + s / K

    Its gradient in the outputs is w (p - q). It is unbounded where a network is sure and wrong.

    Args:
        smoothing: s, the share of the label that is spread over all K classes, in [0, 1].
        weights: w, a factor for each class, such as the inverse of its frequency; None: 1 for all.

    >>> round(float(softmax_cross_entropy()(jnp.array([2.0, 0.5]), 0)), 4)
    0.2014
    """
    if not 0 <= smoothing <= 1:
        raise ValueError(f"softmax_cross_entropy(smoothing): in [0, 1], got {smoothing}.")
    if weights is not None and not all(weight >= 0 for weight in weights):
        raise ValueError(f"softmax_cross_entropy(weights): at least 0 each, got {weights}.")

    def compare(outputs, labels):
        outputs = _at_least_float32(outputs)
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(outputs, labels)
        if smoothing:
            even = -jax.nn.log_softmax(outputs).mean(-1)
            losses = (1 - smoothing) * losses + smoothing * even
        if weights is None:
            return losses
        if len(weights) != outputs.shape[-1]:
            raise ValueError(
                f"softmax_cross_entropy(weights): a weight for each of {outputs.shape[-1]} "
                f"classes, got {len(weights)}."
            )
        return losses * jnp.asarray(weights, outputs.dtype)[labels]

    return compare


def squared_error() -> OutputLoss:
    r"""Half the squared distance of the outputs from the one-hot label.

    .. math:: \ell = \tfrac12 \|f - e_y\|^2

    But for a constant the likelihood of normal outputs of variance 1. Its gradient is linear in the
    error, so what is far off dominates.

    >>> round(float(squared_error()(jnp.array([2.0, 0.5]), 0)), 4)
    0.625
    """
    return lambda outputs, labels: 0.5 * jnp.sum(_residual(outputs, labels) ** 2, -1)


def softmax_squared_error() -> OutputLoss:
    r"""Half the squared distance of the probabilities from the one-hot label.

    .. math:: \ell = \tfrac12 \|\mathrm{softmax}(f) - e_y\|^2 \le 1

    Not convex, and it saturates: the gradient goes to zero where the network is sure, also where
    it is sure and wrong.

    >>> round(float(softmax_squared_error()(jnp.array([2.0, 0.5]), 0)), 4)
    0.0333
    """
    squared = squared_error()
    return lambda outputs, labels: squared(jax.nn.softmax(_at_least_float32(outputs)), labels)


def huber(delta: float = 1.0) -> OutputLoss:
    r"""Huber loss: squared error near the one-hot label, absolute error far from it.

    .. math:: \ell = \sum_k h(f_k - [k = y]), \qquad
              h(r) = \tfrac12 r^2 \text{ for } |r| \le \delta, \text{ else } \delta(|r| - \delta/2)

    No output's gradient is longer than delta. Huber, Annals of Mathematical Statistics 35 (1964).

    Args:
        delta: the error from which on it is linear, above 0.

    >>> round(float(huber()(jnp.array([2.0, 0.5]), 0)), 4)
    0.625
    """
    if not delta > 0:
        raise ValueError(f"huber(delta): above 0, got {delta}.")

    def compare(outputs, labels):
        return jnp.sum(optax.losses.huber_loss(_residual(outputs, labels), delta=delta), -1)

    return compare


def hinge(margin: float = 1.0) -> OutputLoss:
    r"""Hinge loss: how far the label's output is from leading the best other one by a margin.

    .. math:: \ell = \max(0,\, margin + \max_{k \ne y} f_k - f_y)

    A decision and no probability: zero, with its gradient, where the lead is large enough. Crammer
    & Singer, JMLR 2001.

    Args:
        margin: above 0.

    >>> round(float(hinge()(jnp.array([2.0, 0.5]), 0)), 4)
    0.0
    """
    if not margin > 0:
        raise ValueError(f"hinge(margin): above 0, got {margin}.")

    def compare(outputs, labels):
        outputs = _at_least_float32(outputs)
        own = jax.nn.one_hot(labels, outputs.shape[-1], dtype=bool)
        right = jnp.sum(jnp.where(own, outputs, 0), -1)
        missing = margin + largest(jnp.where(own, -jnp.inf, outputs), -1) - right
        return jnp.where(missing <= 0, 0, missing)  # a maximum may pass over nan

    return compare


def _residual(outputs, labels):
    outputs = _at_least_float32(outputs)
    return outputs - jax.nn.one_hot(labels, outputs.shape[-1], dtype=outputs.dtype)


def _at_least_float32(outputs):
    return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
