"""Optimizers of one gradient, to stand behind an aggregator: optax's, with their values checked."""

from __future__ import annotations

import jax
import optax

from coherence.trees import Scalar


def sgd(learning_rate: Scalar = 0.1, momentum: float = 0.0) -> optax.GradientTransformation:
    """Stochastic gradient descent.

    Args:
        learning_rate: at least 0.
        momentum: share of the last step that is taken again, in [0, 1).
    """
    _check_rate("sgd", learning_rate)
    _check_share("sgd", momentum=momentum)
    return optax.sgd(learning_rate, momentum or None)


def adam(
    learning_rate: Scalar = 1e-3, b1: float = 0.9, b2: float = 0.999
) -> optax.GradientTransformation:
    """Momentum over the running size of the gradient (Kingma & Ba, arXiv:1412.6980).

    Args:
        learning_rate: about the length of a step of each coordinate, at least 0.
        b1: decay of the running mean, in [0, 1).
        b2: decay of the running mean square, in [0, 1).
    """
    _check_rate("adam", learning_rate)
    _check_share("adam", b1=b1, b2=b2)
    return optax.adam(learning_rate, b1, b2)


def adagrad(learning_rate: Scalar = 0.01) -> optax.GradientTransformation:
    """Steps that shrink with the squares seen so far (Duchi, Hazan & Singer, JMLR 2011).

    Args:
        learning_rate: at least 0.
    """
    _check_rate("adagrad", learning_rate)
    return optax.adagrad(learning_rate)


def rmsprop(learning_rate: Scalar = 1e-3, decay: float = 0.9) -> optax.GradientTransformation:
    """The gradient over its running size, by coordinate (Tieleman & Hinton, lecture notes, 2012).

    Args:
        learning_rate: at least 0.
        decay: of the running mean square, in [0, 1).
    """
    _check_rate("rmsprop", learning_rate)
    _check_share("rmsprop", decay=decay)
    return optax.rmsprop(learning_rate, decay)


def _check_rate(name, learning_rate):
    if not isinstance(learning_rate, jax.Array) and not learning_rate >= 0:
        raise ValueError(f"{name}(learning_rate): at least 0, got {learning_rate}.")


def _check_share(name, **shares):
    for argument, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"{name}({argument}): in [0, 1), got {share}.")
