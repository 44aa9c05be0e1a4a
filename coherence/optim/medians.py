"""The coordinate-wise median."""

from .aggregation import Aggregator, aggregator
from .order_statistics import clipped_mean, coordinatewise, leaf_rank


def median() -> Aggregator:
    r"""Each coordinate moves as the middle example wants: zero unless half of the examples pull the same way.

    .. math:: \bar g^{(j)} = \mathrm{median}_i\, g_i^{(j)}

    the mean of the two middle values for even m: `winsorize(50)`. Unlike the mean it ignores any
    minority of examples, however large their gradients; unlike a mean it is not linear, so the step
    need not descend the mean loss. A nan in any example makes its coordinate nan. Masked examples
    do not count.

    Chatterjee & Zielinski, On the Generalization Mystery in Deep Learning (arXiv:2203.10036),
    Section 7.

    >>> import jax.numpy as jnp
    >>> median().update(jnp.array([[0.0], [1.0], [50.0]]), median().init(None))[0]
    Array([1.], dtype=float32)
    """
    return aggregator(
        coordinatewise(lambda leaf: clipped_mean(leaf, leaf_rank(50, leaf))), "median()"
    )
