"""Sharpness: the largest curvature of the mean loss, by power iteration."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from coherence.gradients.arguments import (
    check_batch,
    check_loss_output,
    check_params,
    varying_with,
)
from coherence.gradients.factors import accumulator
from coherence.trees import Loss, PyTree

Product = Callable[[jax.Array], jax.Array]  # a flat vector to the Hessian times it
State = tuple[jax.Array, jax.Array, jax.Array]  # a unit vector, its image, products so far


class Sharpness(NamedTuple):
    """An eigenvalue of the Hessian and how exactly it is known, as scalars.

    value: the eigenvalue.
    residual: `||H v - value v|| / |value|`, v of length 1.
    iterations: Hessian-vector products, int32.

    >>> from coherence.metrics import sharpness
    >>> curved = lambda w, x: 0.5 * jnp.sum(jnp.array([1.0, 3.0]) * w**2) * x
    >>> round(float(sharpness(curved, jnp.ones(2), jnp.ones(1), key=jax.random.key(0)).value), 3)
    3.0
    """

    value: jax.Array
    residual: jax.Array
    iterations: jax.Array


def sharpness(
    loss: Loss,
    params: PyTree,
    batch: PyTree,
    key: jax.Array,
    *,
    iterations: int = 100,
    tolerance: float = 1e-3,
) -> Sharpness:
    r"""The largest eigenvalue of the Hessian of the mean loss.

    .. math:: \lambda_{\max}(H), \qquad H = \nabla^2 \frac1m\sum_i \ell_i(w)

    The largest eigenvalue, not the largest magnitude; positive except at a maximum. In the units of
    the loss by those of the parameters squared. Gradient descent with step size eta is stable on a
    quadratic while :math:`\lambda_{\max} < 2/\eta`; full-batch training is often seen to rise to
    about that and stay there. Of *this* batch: small batches are sharper. Depends on how the
    network is parametrized: rescaling two layers against each other changes it, and not the
    function.

    Power iteration finds what is largest in magnitude. Where that is negative, or two of opposite
    signs compete, a second round works on `H + |lambda| I`, whose largest eigenvalue belongs to the
    wanted one. Trust `residual`, not the call: some eigenvalue lies within value * residual of the
    value, the largest only if the iterations did not settle on another one first. The value itself
    errs by the order of the residual squared where neighbours are not close, and downwards.

    Args:
        loss: `(params, example) -> scalar` for one example, twice differentiable; ReLU nets give
            the curvature of their pieces.
        params: a pytree of floating-point arrays.
        batch: a pytree whose leaves have a leading axis of m examples, which go through at once:
            memory is about six times that of one gradient of the mean loss. With convolutions on
            CPU take few: inside loops XLA computes their gradients slowly.
        key: from `jax.random.key`: the vector to start from.
        iterations: at most so many products with H in each of the two rounds (static); one costs
            about two gradients.
        tolerance: the residual to stop at. Float32 reaches about 1e-6.

    Returns:
        `Sharpness(value, residual, iterations)`, at least float32. A residual above `tolerance`
        says that the iterations ran out.

    Raises:
        TypeError: a parameter is not floating-point.
        ValueError: the loss is no scalar, the batch is empty or its leaves disagree, or
            `iterations` < 1.

    >>> bowl, x = lambda w, x: 0.5 * jnp.sum(x * w**2), jnp.array([[1.0, 3.0]])
    >>> print(f"{sharpness(bowl, jnp.ones(2), x, jax.random.key(0)).value:.3f}")
    3.000
    """
    if iterations < 1:
        raise ValueError(
            f"sharpness(iterations): at least 1 product with the Hessian, got {iterations}."
        )
    check_params(params)
    check_batch(batch, None)
    product, flat = _hessian(loss, varying_with(params, batch), batch)
    start = varying_with(jax.random.normal(key, flat.shape, flat.dtype), flat)
    first = _power_iteration(product, jnp.zeros((), flat.dtype), start, iterations, tolerance)
    value, residual = _quotient(first)

    def second_round():
        # Less -||H v||, which is close to the most negative eigenvalue where that competes. Its own
        # vector has nothing to begin with.
        vector, image, products = first
        begin = jnp.where(value > 0, vector, start)
        second = _power_iteration(product, -_length(image), begin, iterations, tolerance)
        return *_quotient(second), products + second[2]

    unsettled = (residual > tolerance) | (value < 0)
    settled = lambda: (value, residual, first[2])
    return Sharpness(*jax.lax.cond(unsettled, second_round, settled))


def _hessian(loss: Loss, params: PyTree, batch: PyTree) -> tuple[Product, jax.Array]:
    """v -> H v for flat vectors of at least float32, and the parameters as such a vector."""
    example = jax.eval_shape(lambda batch: jax.tree.map(lambda x: x[0], batch), batch)
    check_loss_output(jax.eval_shape(loss, params, example), has_aux=False)
    types = jax.tree.map(jnp.result_type, params)
    wide = jax.tree.map(lambda x: jnp.asarray(x, accumulator(jnp.result_type(x))), params)
    flat, unravel = ravel_pytree(wide)

    def mean_loss(vector):
        own = jax.tree.map(lambda x, dtype: x.astype(dtype), unravel(vector), types)
        return jnp.mean(jax.vmap(lambda example: loss(own, example))(batch), dtype=flat.dtype)

    return lambda v: jax.jvp(jax.grad(mean_loss), (flat,), (v,))[1], flat


def _power_iteration(
    product: Product, shift: jax.Array, start: jax.Array, iterations: int, tolerance: float
) -> State:
    """Power iteration on H - shift."""

    def step(state):
        vector, image, products = state
        ahead = image - shift * vector
        length = _length(ahead)
        vector = jnp.where(length > 0, ahead / length, vector)
        return vector, product(vector), products + 1

    start = start / _length(start)
    going = lambda state: (state[2] < iterations) & (_quotient(state)[1] > tolerance)
    products = varying_with(jnp.int32(1), start)
    return jax.lax.while_loop(going, step, (start, product(start), products))


def _quotient(state: State) -> tuple[jax.Array, jax.Array]:
    """The Rayleigh quotient v . H v and its relative residual, which is 0 for H = 0, too."""
    vector, image, _ = state
    value = jnp.vdot(vector, image)
    rest = _length(image - value * vector)
    return value, jnp.where(rest > 0, rest / jnp.abs(value), rest)


def _length(vector: jax.Array) -> jax.Array:
    """Euclidean length, whose squares stay in range: curvatures of 1e-25 are numbers, too."""
    largest = jnp.max(jnp.abs(vector))
    safe = jnp.where(largest > 0, largest, 1)
    return safe * jnp.linalg.norm(vector / safe)
