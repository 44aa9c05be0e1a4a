"""Weight decay: a constant (L1) or proportional (L2) pull toward zero, and soft thresholding."""

import numbers
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from coherence.gradients.jax_internals import is_traced

Scalar: TypeAlias = float | jax.Array  # a number on which no shape depends: it may be traced


def l1_decay(
    rate: Scalar | Callable[[jax.Array], jax.Array], mask: Any | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""L1 weight decay: adds rate * sign(w), the gradient of rate * ||w||_1.

    A weight whose mean gradient is below the rate is pulled back to zero, and jitters around it by
    a step: for exact zeros take `soft_threshold`. Goes after the aggregator and before the learning
    rate: `chain(average(), l1_decay(1e-4), optax.sgd(0.1))`.

    Args:
        rate: the factor of the penalty in the objective, >= 0, or a schedule of it.
        mask: a tree of bools like the parameters (or a prefix), or a function of them: where False,
            no pull.
    """
    _check(rate, "l1_decay")

    def update(updates, state, params=None, **extra):
        del extra
        params = _given(params, "l1_decay")
        now, after = _read(rate, state)
        return jax.tree.map(
            lambda g, p: g + (now * jnp.sign(p)).astype(g.dtype), updates, params
        ), after

    start = lambda params: (
        _Steps(jnp.zeros((), jnp.int32)) if callable(rate) else optax.EmptyState()
    )
    pull = optax.GradientTransformationExtraArgs(start, update)
    return _masked(pull, mask, Decay)


def l2_decay(
    rate: Scalar | Callable[[jax.Array], jax.Array], mask: Any | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""L2 weight decay: adds rate * w, the gradient of rate * ||w||^2 / 2.

    Shrinks directions in proportion, whoever shares them: unlike L1 it forgets no weak direction
    for good. optax's own `add_decayed_weights`. Goes after the aggregator and before the learning
    rate: `chain(average(), l2_decay(1e-4), optax.sgd(0.1))`.

    Args:
        rate: the factor of the penalty in the objective, >= 0, or a schedule of it.
        mask: a tree of bools like the parameters (or a prefix), or a function of them: where False,
            no pull.

    >>> decay = l2_decay(0.5)
    >>> updates, _ = decay.update(jnp.zeros(2), decay.init(jnp.ones(2)), jnp.ones(2))
    >>> updates.tolist()
    [0.5, 0.5]
    """
    _check(rate, "l2_decay")
    pull = optax.with_extra_args_support(optax.add_decayed_weights(rate))
    return _masked(pull, mask, Decay)


class Decay(optax.GradientTransformationExtraArgs):
    """A pull toward zero, in the direction of a gradient: it goes before the learning rate.

    Attributes:
        everywhere: the same without its mask.
    """

    everywhere: optax.GradientTransformation


class Last(optax.GradientTransformationExtraArgs):
    """An optax transformation that goes last: it puts parameters in exact places."""

    everywhere: optax.GradientTransformation


class _Steps(NamedTuple):
    """How many steps were taken: what a schedule is read at."""

    step: jax.Array


def _read(rate, state):
    """The rate of this step, and the state after it."""
    if isinstance(state, _Steps):
        after = _Steps(optax.safe_increment(state.step))
        return (rate(state.step) if callable(rate) else rate), after
    return rate, state


def soft_threshold(
    rate: Scalar | Callable[[jax.Array], jax.Array], mask: Any | None = None
) -> Last:
    r"""Soft thresholding after the step: L1 decay with exact zeros.

    Moves each weight toward zero by `rate`, and to exactly zero what lies within.

    .. math:: w \leftarrow \mathrm{sign}(w + u)\,\max(|w + u| - \mathrm{rate}, 0)

    with u the update so far: so it goes LAST in the chain, behind the learning rate. The rate is
    per step: for the penalty lambda * ||w||_1 give learning_rate * lambda (proximal gradient
    descent; exact for plain SGD). `chain` refuses it elsewhere.

    Args:
        rate: a number >= 0, or a schedule: a function of the step count, from 0.
        mask: a tree of bools like the parameters (or a prefix), or a function of them: where False,
            no threshold.
    """
    _check(rate, "soft_threshold")

    def update(updates, state, params=None, **extra):
        del extra
        params = _given(params, "soft_threshold")
        now, after = _read(rate, state)

        def to(u, p):
            moved = p + u
            is_outside = jnp.abs(moved) > now
            # -p, not moved - now - p: p + (-p) is exactly zero, whatever was rounded before.
            return jnp.where(
                is_outside,
                moved - jnp.sign(moved) * now - p,
                jnp.where(jnp.isnan(moved), moved, -p),
            ).astype(p.dtype)

        return jax.tree.map(to, updates, params), after

    threshold = optax.GradientTransformationExtraArgs(
        lambda params: _Steps(jnp.zeros((), jnp.int32)), update
    )
    return _masked(threshold, mask, Last)


def turns_away(transformations: tuple[optax.GradientTransformation, ...]) -> bool:
    """Whether a chain moves weights against the gradient, but along their own direction.

    Tried on one weight. False where that tells nothing: a transformation needs more to be called,
    or does not move in its first two steps.
    """
    try:
        chain = optax.with_extra_args_support(
            optax.chain(*(getattr(t, "everywhere", t) for t in transformations))
        )
        with jax.ensure_compile_time_eval():
            zero, unit = jnp.zeros(1), jnp.ones(1)
            tries = [(zero, zero), (unit, zero), (zero, unit)]
            still, descent, growth = (float(_moved(chain, g, w)) for g, w in tries)
    except Exception:  # another's code, made for other parameters: nothing to be learned
        return False
    return (growth - still) * (descent - still) < 0


def _moved(chain, gradient, weight):
    """The sum of a few updates: a schedule may begin at zero."""
    first, state = chain.update(gradient, chain.init(weight), weight)
    second, _ = chain.update(gradient, state, weight)
    return jnp.sum(first + second)


def _masked(transformation, mask, kind):
    whole = transformation if mask is None else optax.masked(transformation, mask)
    result = kind(*whole)
    result.everywhere = transformation
    return result


def _check(rate, name):
    if callable(rate) or is_traced(rate):
        return  # what it is nobody knows yet
    number = isinstance(rate, numbers.Real | jax.Array) and not isinstance(rate, bool)
    if not number or jnp.ndim(rate):
        raise TypeError(f"{name}(rate): a number, at least 0, or a schedule, got {rate!r}.")
    if not rate >= 0:
        raise ValueError(f"{name}(rate): rate is a pull toward zero, at least 0, got {rate}.")


def _given(params, name):
    if params is None:
        raise ValueError(
            f"{name} acts on the parameters: pass them, update(gradients, state, params)."
        )
    return params
