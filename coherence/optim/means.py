"""The mean gradient: the control of every other aggregator."""

from coherence.gradients.reductions import mean

from .aggregation import Aggregator, aggregator


def average() -> Aggregator:
    r"""The mean gradient: what gradient descent on the mean loss uses.

    .. math:: \bar g = \frac1m\sum_i g_i

    A batch gradient passes through, when `update` is given the parameters to recognize it by.

    >>> import jax.numpy as jnp
    >>> average().update(jnp.array([[1.0], [3.0]]), average().init(None))[0]
    Array([2.], dtype=float32)
    """
    return aggregator(mean, "average()", takes_batch_gradient=True)
