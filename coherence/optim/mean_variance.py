"""optax's running mean and variance of per-example gradients, from factors."""

import jax
import jax.numpy as jnp
import optax

from coherence.gradients.factors import accumulator
from coherence.gradients.reductions import (
    as_parameters,
    count,
    mean_of,
    mean_weights,
    wide_weighted_sum,
)

from .aggregation import Aggregator, refuse_batch_gradient


def add_mean_variance_to_opt(
    opt: optax.GradientTransformation, ema_decay: float = 0.9
) -> Aggregator:
    r"""`optax.experimental.aggregating.add_mean_variance_to_opt` for gradients as factors.

    The optimizer gets the mean gradient; beside it the state keeps running means, over steps, of
    every coordinate's mean and variance over examples,

    .. math:: \bar g, \qquad \frac{1}{m-1}\sum_i (g_i - \bar g)^2

    which optax's `get_unbiased_mean_and_variance_ema(state)` reads. Where optax's own forms every
    gradient, this takes two products of a dense layer's factors. The variance is a difference of
    means: below some 1e-6 of the mean square it is rounding. Masked examples do not count; one
    example has no variance: nan.

    Args:
        opt: what takes the mean gradient, such as `optax.adam(1e-3)`.
        ema_decay: of the running means, in [0, 1).

    Raises:
        ImportError: optax is older than 0.2.8.

    >>> tx = add_mean_variance_to_opt(optax.sgd(0.1))
    >>> g = jnp.array([[1.0], [3.0]])
    >>> updates, state = tx.update(g, tx.init(jnp.zeros(1)), jnp.zeros(1))
    >>> from optax.experimental import aggregating
    >>> [float(x[0].round(3)) for x in aggregating.get_unbiased_mean_and_variance_ema(state)]
    [2.0, 2.0]
    """
    if not 0 <= ema_decay < 1:
        raise ValueError(f"add_mean_variance_to_opt(ema_decay): in [0, 1), got {ema_decay}.")
    from optax.experimental import aggregating

    track = aggregating.track_per_element_mean_and_variance_with_ema(ema_decay)
    behind = optax.with_extra_args_support(opt)
    name = f"add_mean_variance_to_opt(..., ema_decay={ema_decay})"

    def init(params):
        wide = lambda p: jnp.zeros(jnp.shape(p), accumulator(jnp.result_type(p)))
        return track.init(jax.tree.map(wide, params)), behind.init(params)

    def update(gradients, state, params=None, **extra):
        refuse_batch_gradient(gradients, params, name)
        n = jnp.asarray(count(gradients), jnp.float32)
        average = wide_weighted_sum(gradients, mean_weights(gradients))
        squares = jax.tree.map(
            lambda q, g: jnp.maximum(n * (q - jnp.square(g)), 0),
            mean_of(gradients, jnp.square),
            average,
        )
        average, tracked = track.update(
            average, state[0], params, sum_sq_diff_grads=squares, sample_size=n
        )
        average = as_parameters(gradients, average)
        updates, after = behind.update(average, state[1], params, **extra)
        return updates, (tracked, after)

    return Aggregator(init, update, name, rest=(opt,))
