"""Classification: the loss of one example, and how good a network is on many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from coherence.lab.tasks.chunks import predictor, sum_over_chunks
from coherence.lab.tasks.output_losses import OutputLoss, softmax_cross_entropy


def cross_entropy(model) -> Callable[[Any, tuple], jax.Array]:
    r"""The loss of one example `(x, y)`: cross-entropy, with y its integer label.

    .. math:: \ell = -\log \mathrm{softmax}(f(x))_y \ge 0

    log(number of classes) for a network that puts out equal logits. Computed in float32 at least,
    whatever the network computes in. `model` is anything with `apply(params, x)`, or that function
    itself.
    """
    return loss_of(model, softmax_cross_entropy())


def loss_of(model, compare: OutputLoss) -> Callable[[Any, tuple], jax.Array]:
    """The loss of one example `(x, y)`: `compare(outputs, y)` of what the model makes of x.

    >>> from coherence.lab.tasks import squared_error
    >>> import flax.linen as nn
    >>> params = {"params": {"kernel": jnp.eye(2)}}
    >>> loss = loss_of(nn.Dense(2, use_bias=False), squared_error())
    >>> float(loss(params, (jnp.array([1.0, 0.0]), 0)))
    0.0
    """
    predict = predictor(model)

    def loss(params, example):
        x, y = example
        return compare(predict(params, x), y)

    return loss


class Evaluation(NamedTuple):
    """The mean loss, and the fraction of examples whose largest output is the label's."""

    loss: jax.Array
    accuracy: jax.Array


def evaluate(
    model, compare: OutputLoss | None = None, *, batch_size: int = 1000
) -> Callable[..., Evaluation]:
    """`(params, x, y, weights=None) -> Evaluation`, in memory for `batch_size` examples.

    The loss is that of `compare`, by default cross-entropy.

    Exact for any number of examples; can be jitted and vmapped. `weights` `[n]` (bool or
    real) make it a weighted mean,
    as for the corrupt examples only; nan where they sum to 0. An example with a nan logit counts as
    wrong.
    """
    predict, compare = predictor(model), compare or softmax_cross_entropy()

    def sums(params, x, y, weights):
        logits = predict(params, x)
        right = (jnp.argmax(logits, -1) == y) & ~jnp.isnan(logits).any(-1)
        losses = jnp.where(
            weights == 0, 0, compare(logits, y)
        )  # 0 * inf is nan: an example left out must not matter
        return jnp.sum(losses * weights), jnp.sum(right * weights), jnp.sum(weights)

    def evaluation(params, x, y, weights=None):
        weights = (
            jnp.ones(jnp.shape(y)[0]) if weights is None else jnp.asarray(weights, jnp.float32)
        )
        loss, right, count = sum_over_chunks(
            lambda *chunk: sums(params, *chunk), (x, y, weights), batch_size
        )
        return Evaluation(loss / count, right / count)

    return evaluation


def accuracy(model, *, batch_size: int = 1000) -> Callable[..., jax.Array]:
    """`(params, x, y, weights=None) ->` the fraction classified correctly; see `evaluate`."""
    evaluation = evaluate(model, batch_size=batch_size)
    return lambda params, x, y, weights=None: evaluation(params, x, y, weights).accuracy
