"""Optimizers of one gradient, to stand behind an aggregator: optax's, with their values checked.

Schedules and clipping wrap an optimizer: `cosine_rate(adam(0.01), steps=2000)` is one, too.
"""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax

from coherence.optim.decay import Scalar

Optimizer: TypeAlias = optax.GradientTransformation  # what a setting of one of these builds


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


def nesterov(learning_rate: Scalar = 0.1, momentum: float = 0.9) -> optax.GradientTransformation:
    """Momentum that looks ahead (Nesterov 1983).

    Args:
        learning_rate: at least 0.
        momentum: share of the last step that is taken again, in [0, 1).
    """
    _check_rate("nesterov", learning_rate)
    _check_share("nesterov", momentum=momentum)
    return optax.sgd(learning_rate, momentum, nesterov=True)


def adamw(
    learning_rate: Scalar = 1e-3, b1: float = 0.9, b2: float = 0.999, weight_decay: float = 1e-2
) -> optax.GradientTransformation:
    """Adam, and a pull toward zero that its running sizes do not scale (Loshchilov & Hutter,
    arXiv:1711.05101).

    Args:
        learning_rate: about the length of a step of each coordinate, at least 0.
        b1: decay of the running mean, in [0, 1).
        b2: decay of the running mean square, in [0, 1).
        weight_decay: the share of a weight that a step takes away, over the learning rate.
    """
    _check_rate("adamw", learning_rate)
    _check_share("adamw", b1=b1, b2=b2)
    return optax.adamw(learning_rate, b1, b2, weight_decay=weight_decay)


def lbfgs(learning_rate: Scalar = 1.0, memory: int = 10) -> optax.GradientTransformation:
    """L-BFGS without a line search, which needs the loss: for steps of all examples.

    With a line search: `optax.lbfgs()` (Liu & Nocedal 1989).

    Args:
        learning_rate: the length of a step in units of Newton's, at least 0.
        memory: how many past steps curvature is read from, at least 1.
    """
    _check_rate("lbfgs", learning_rate)
    _check_length("lbfgs", memory=memory)
    return optax.lbfgs(learning_rate, memory, linesearch=None)


def clipped(optimizer: Optimizer, longest: float = 1.0) -> optax.GradientTransformation:
    """An optimizer whose gradient is at most so long, over all leaves.

    Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural networks
    (arXiv:1211.5063).

    Args:
        optimizer: what takes the clipped gradient.
        longest: its norm, above 0.
    """
    if not longest > 0:
        raise ValueError(f"clipped(longest): longest is a norm, above 0, got {longest}.")
    return optax.chain(optax.clip_by_global_norm(longest), optimizer)


def step_rate(
    optimizer: Optimizer, every: int = 500, factor: float = 0.1
) -> optax.GradientTransformation:
    """An optimizer whose learning rate falls at once, again and again.

    Args:
        optimizer: whose rate falls.
        every: steps between two falls, at least 1.
        factor: what is left of the rate after each, in [0, 1].
    """
    _check_length("step_rate", every=every)
    _check_factor("step_rate", factor)
    return _scheduled(optimizer, lambda step: factor ** (step // every))


def exponential_rate(
    optimizer: Optimizer, every: int = 500, factor: float = 0.1
) -> optax.GradientTransformation:
    """An optimizer whose learning rate falls by the same share with each step.

    Args:
        optimizer: whose rate falls.
        every: in how many steps it falls by the factor, at least 1.
        factor: what is left of the rate then, in [0, 1].
    """
    _check_length("exponential_rate", every=every)
    _check_factor("exponential_rate", factor)
    return _scheduled(optimizer, lambda step: factor ** (step / every))


def cosine_rate(
    optimizer: Optimizer, steps: int = 2000, last: float = 0.0
) -> optax.GradientTransformation:
    """An optimizer whose learning rate falls along half a cosine (Loshchilov & Hutter,
    arXiv:1608.03983, without restarts).

    Args:
        optimizer: whose rate falls.
        steps: after how many it is down, at least 1.
        last: what is left of the rate from then on, in [0, 1].
    """
    _check_length("cosine_rate", steps=steps)
    _check_factor("cosine_rate", last)
    return _scheduled(optimizer, optax.cosine_decay_schedule(1.0, steps, last))


def warm_up(optimizer: Optimizer, steps: int = 100) -> optax.GradientTransformation:
    """An optimizer whose learning rate rises in equal parts to its whole.

    Args:
        optimizer: whose rate rises.
        steps: the step that is taken with the whole rate, at least 1.
    """
    _check_length("warm_up", steps=steps)
    return _scheduled(optimizer, lambda step: jnp.minimum(1, (step + 1) / steps))


def _scheduled(optimizer, share):
    """Updates go with the learning rate, so that a share of the one is a share of the other."""
    return optax.chain(optimizer, optax.scale_by_schedule(share))


def _check_length(name, **lengths):
    for argument, length in lengths.items():
        if not length >= 1:
            raise ValueError(f"{name}({argument}): at least 1, got {length}.")


def _check_factor(name, factor):
    if not 0 <= factor <= 1:
        raise ValueError(f"{name}: what is left of a rate is a share, in [0, 1], got {factor}.")


def _check_rate(name, learning_rate):
    if not isinstance(learning_rate, jax.Array) and not learning_rate >= 0:
        raise ValueError(f"{name}(learning_rate): at least 0, got {learning_rate}.")


def _check_share(name, **shares):
    for argument, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"{name}({argument}): in [0, 1), got {share}.")
