"""The median and the mean of the last few batch gradients (RM3, RA3)."""

import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from coherence.gradients.factors import accumulator

from .aggregation import Aggregator, averaged
from .order_statistics import Formed, leaf_rank, winsorized_mean


def rolling_median(window: int = 3) -> Aggregator:
    r"""Coordinate-wise median of the last few batch gradients (RM3 for a window of 3).

    .. math:: \bar g_t^{(j)} = \mathrm{median}(g_t^{(j)}, g_{t-1}^{(j)}, \dots, g_{t-w+1}^{(j)})

    with g_t the mean gradient of step t; each was computed at the weights of its own step. The mean
    of the two middle ones for an even window. Takes per-example gradients, which it averages first,
    or a batch gradient. The first window - 1 updates are zero, but what comes behind them counts as
    steps (schedules, Adam) or acts all the same (decay, momentum once it has something).

    As the released code, but for three things: that keeps the weight decay inside the buffer (here
    `l2_decay` comes behind the median); computes sum - min - max (equal but for rounding and
    infinities); and refuses momentum, which its authors found unstable with RM3. Here that is the
    user's choice.

    Zielinski, Krishnan & Chatterjee, Weak and Strong Gradient Directions (arXiv:2003.07422).

    Args:
        window: how many steps, at least 1 (the plain mean gradient); static. The state holds window
            - 1 gradients.

    >>> tx = rolling_median(3)
    >>> state = tx.init(params := jnp.zeros(1))
    >>> for g in (1.0, 50.0, 2.0):
    ...     update, state = tx.update(jnp.full(1, g), state, params)
    ...     print(update)
    [0.]
    [0.]
    [2.]
    """
    name = _checked("rolling_median", "window", window)
    return averaged(of_last(median_of, window, name), name)


def rolling_mean(window: int = 3) -> Aggregator:
    r"""Mean of the last few batch gradients (RA3 for a window of 3): the control of the median.

    .. math:: \bar g_t = \frac1w(g_t + g_{t-1} + \dots + g_{t-w+1})

    As stale and as smooth as `rolling_median`, but no more robust than the mean. Everything else as
    there.

    Zielinski, Krishnan & Chatterjee, Weak and Strong Gradient Directions (arXiv:2003.07422), in the
    released code only.

    Args:
        window: how many steps, at least 1 (the plain mean gradient); static. The state holds window
            - 1 gradients.

    >>> tx = rolling_mean(2)
    >>> state = tx.init(params := jnp.zeros(1))
    >>> _, state = tx.update(jnp.full(1, 1.0), state, params)
    >>> tx.update(jnp.full(1, 50.0), state, params)[0]
    Array([25.5], dtype=float32)
    """
    name = _checked("rolling_mean", "window", window)
    return averaged(of_last(_mean_of, window, name), name)


class LastGradients(NamedTuple):
    """How many gradients came, and those before the present one, the latest first."""

    step: jax.Array
    earlier: tuple[Any, ...]


def of_last(combine, window, name, *, every=1):
    """An optax transformation: `combine` of the last `window` gradients, every `every` steps."""

    def init(params):
        if params is None:
            raise ValueError(
                f"{name}.init(params) needs the parameters, got None: "
                "the state holds gradients in their shapes."
            )
        # Each of its own: a buffer that the state holds twice cannot be donated.
        return LastGradients(
            jnp.zeros((), jnp.int32),
            tuple(jax.tree.map(jnp.zeros_like, params) for _ in range(window - 1)),
        )

    def update(gradient, state, params=None):
        del params
        step = optax.safe_increment(state.step)
        due = (step >= window) & (step % every == 0)
        result = jax.tree.map(
            lambda *g: jnp.where(due, combine(*g), 0).astype(g[0].dtype), gradient, *state.earlier
        )
        return result, LastGradients(step, (gradient, *state.earlier)[: window - 1])

    return optax.GradientTransformation(init, update)


def median_of(*rows, present=None):
    """Coordinate-wise median of equally shaped arrays, of those `present` (bool [len(rows)])."""
    coordinates = Formed(jnp.stack([row.ravel() for row in rows]), present)
    return winsorized_mean(coordinates, leaf_rank(50, coordinates)).reshape(rows[0].shape)


def _mean_of(*rows):
    """Kept in at least float32; divided first, for the sum may overflow."""
    return sum(row.astype(accumulator(row.dtype)) / len(rows) for row in rows)


def _checked(method, argument, count):
    if not isinstance(count, numbers.Integral) or count < 1:
        raise ValueError(
            f"{method}({argument}): {argument} is a whole number of steps, at least 1, "
            f"got {count!r}."
        )
    return f"{method}({argument}={count})"
