"""The empirical tangent kernel, and how far it is aligned with the targets."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from coherence.gradients.arguments import check_batch
from coherence.gradients.reductions import gram
from coherence.gradients.transform import per_example_value_and_grad
from coherence.trees import PyTree


def tangent_kernel_alignment(
    outputs: Callable[[PyTree, PyTree], jax.Array],
    params: PyTree,
    inputs: PyTree,
    targets: ArrayLike,
) -> jax.Array:
    r"""How far the directions in which the outputs move together are those of the targets.

    .. math:: A = \frac{y^\top K y}{\|K\|_F\,\|y\|^2} \in [0, 1], \qquad
              K_{ic,jd} = \nabla_w h_c(x_i)\cdot\nabla_w h_d(x_j)

    1 when K is the targets' own y y^T, so that a step of gradient descent moves along them alone;
    for n targets (m times C) without any relation to K about :math:`\mathrm{tr} K/(n\,\|K\|_F)`,
    which is :math:`1/\sqrt n` for a kernel without preferences. nan when K or y is zero.
    Dimensionless; unchanged by rescaling outputs or targets, and never negative, as K is a Gram
    matrix.

    K knows inputs, not losses: with the loss's slopes as targets, y^T K y is the squared norm of
    the summed gradients, alpha's numerator.
    Nothing is centred here: with plain one-hot targets the constant part of K and y dominates. Pass
    centred targets (one-hot less 1/C, or less the class means).

    Cortes, Mohri & Rostamizadeh, Algorithms for Learning Kernels Based on Centered Alignment
    (2012); Shan & Bordelon (2021) for tangent kernels during training. The form is from an account
    of them.

    Args:
        outputs: `(params, x) -> [C]`, or a scalar, for ONE input.
        params: a pytree of floating-point arrays.
        inputs: a pytree whose leaves have a leading axis of m inputs.
        targets: [m, C], or [m] where the outputs are scalars.

    Returns:
        A scalar. Costs the per-example gradients of m C pairs: the inputs are repeated C times, and
        K holds (m C)^2 numbers.

    Raises:
        ValueError: `outputs` returns no scalar or [C]; `targets` of another shape.

    >>> x, y = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([1.0, 0.0])
    >>> float(tangent_kernel_alignment(lambda w, x: w @ x, jnp.zeros(2), x, y))  # K is the identity
    0.7071067690849304
    """
    m = check_batch(inputs, None)
    example = jax.eval_shape(lambda x: jax.tree.map(lambda leaf: leaf[0], x), inputs)
    out = jax.eval_shape(outputs, params, example)
    if getattr(out, "ndim", 2) > 1:
        given = f"shape {out.shape}" if hasattr(out, "shape") else f"a {type(out).__name__}"
        raise ValueError(
            f"outputs(params, x) must return a scalar or [C] for one input, got {given}. "
            "Write it for one input."
        )
    if jnp.shape(targets) != (m, *out.shape):
        raise ValueError(
            f"targets must be {[m, *out.shape]}, one an output of each input, "
            f"got {list(jnp.shape(targets))}."
        )
    kernel = _kernel(outputs, params, inputs, m, out.size)
    y = jnp.ravel(targets).astype(kernel.dtype)
    kernel, y = _scaled(kernel), _scaled(y)  # their fourth powers must stay in range
    return jnp.vdot(y, kernel @ y) / (jnp.linalg.norm(kernel) * jnp.vdot(y, y))


def _scaled(array: jax.Array) -> jax.Array:
    return array / jnp.max(jnp.abs(array))


def _kernel(
    outputs: Callable[[PyTree, PyTree], jax.Array],
    params: PyTree,
    inputs: PyTree,
    m: int,
    count: int,
) -> jax.Array:
    """[m C, m C]: every output of every input is an example of its own."""
    repeated = jax.tree.map(lambda x: jnp.repeat(x, count, 0), inputs)
    output = lambda params, pair: jnp.ravel(outputs(params, pair[0]))[pair[1]]
    pairs = repeated, jnp.tile(jnp.arange(count), m)
    _, gradients = per_example_value_and_grad(output)(params, pairs)
    return gram(gradients)
