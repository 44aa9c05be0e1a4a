"""Regression: the loss of one example, and the mean over many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from coherence.lab.tasks.chunks import predictor, sum_over_chunks


def half_squared_error(model) -> Callable[[Any, tuple], jax.Array]:
    r"""The loss of one example `(x, y)`: half the squared error.

    .. math:: \ell = \tfrac12 \|f(x) - y\|^2

    With the half, as in the paper: the gradient with respect to the prediction is the residual
    itself. Libraries' mean squared error has no half, which doubles the loss and the speed at equal
    step size. `model` is anything with `apply(params, x)`, or that function.

    >>> import flax.linen as nn
    >>> model = nn.Dense(1, use_bias=False)
    >>> params = {"params": {"kernel": jnp.ones((2, 1))}}
    >>> float(half_squared_error(model)(params, (jnp.ones(2), jnp.zeros(1))))
    2.0
    """
    predict = predictor(model)

    def loss(params, example):
        x, y = example
        return _loss(predict(params, x), y)

    return loss


def evaluate(model, *, batch_size: int = 1000) -> Callable[..., jax.Array]:
    """`(params, x, y) ->` the mean of `half_squared_error`, in memory for `batch_size` examples."""
    loss = half_squared_error(model)

    def mean_loss(params, x, y):
        total = sum_over_chunks(
            lambda *chunk: jax.vmap(lambda *one: loss(params, one))(*chunk).sum(),
            (x, y),
            batch_size,
        )
        return total / jnp.shape(y)[0]

    return mean_loss


def _loss(prediction, target):
    # A prediction [1] for a scalar target is the same thing; anything else would broadcast into a
    # wrong loss without a word.
    target = jnp.asarray(target)
    if prediction.size != target.size:
        raise ValueError(
            f"the model puts out shape {prediction.shape} for one example whose target has shape "
            f"{target.shape}; they need equal sizes."
        )
    residual = prediction.reshape(target.shape) - target
    return 0.5 * jnp.sum(
        jnp.square(residual.astype(jnp.promote_types(residual.dtype, jnp.float32)))
    )
