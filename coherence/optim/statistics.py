"""Statistics of gradients in an optimizer's state: noise scale, signal to noise, alpha by layer."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from coherence.gradients.reductions import (
    count,
    leaf_weighted_sums,
    mean_weights,
    squared_norms,
)
from coherence.trees import leaf_names

from .aggregation import Aggregator, refuse_batch_gradient

_ALL = "all"


class StatisticsState(NamedTuple):
    """Running means of each layer's signal |G|^2 and noise tr(Sigma), and the aggregator's state.

    `steps` is how many they have seen; `signal` and `noise` are `{name: number}`.
    """

    steps: jax.Array
    decay: jax.Array
    signal: dict[str, jax.Array]
    noise: dict[str, jax.Array]
    inner: Any


class Statistics(NamedTuple):
    """What `statistics` reads from a state; each `{name: number}`, "all" for the whole network.

    noise_scale: tr(Sigma) / |G|^2, in examples: the batch whose noise is as large as its signal.
    snr: |G|^2 / tr(Sigma), the layer's gradient signal to noise ratio as a whole.
    alpha: |G|^2 / (|G|^2 + tr(Sigma)), the population's, without the floor 1/m.
    """

    noise_scale: dict[str, jax.Array]
    snr: dict[str, jax.Array]
    alpha: dict[str, jax.Array]


def with_statistics(
    aggregator: Aggregator, decay: float = 0.95, by: Literal["layer", "leaf"] = "layer"
) -> Aggregator:
    r"""The aggregator, with running statistics of the gradients in its state.

    .. math:: \widehat{|G|^2} = \frac{m\,\|\bar g\|^2 - q}{m - 1}, \qquad
        \widehat{\mathrm{tr}\,\Sigma} = \frac{m}{m - 1}\,(q - \|\bar g\|^2), \qquad
        q = \frac1m\sum_i\|g_i\|^2

    by layer, both unbiased, averaged over steps with weights that fall by `decay` a step. Averaged
    apart and divided last, by `statistics(state)`: a mean of ratios would be dominated by steps
    whose signal is next to nothing. No further pass: mean and squared norms of the factors at hand,
    and what the aggregator computes anyway is not computed again. The updates are the aggregator's.

    The layers of a scanned stack count together. A batch of one example has no variance: it makes
    the statistics nan, as a nan in a gradient does. Masked examples do not count.

    McCandlish et al., An Empirical Model of Large-Batch Training (arXiv:1812.06162), Appendix A.1,
    from per-example gradients instead of two batch sizes.

    Args:
        aggregator: any, or a whole `chain`.
        decay: of the weights, in [0, 1).
        by: what the statistics are of, each "layer" or each "leaf", and of all together.

    >>> from coherence.optim import average
    >>> tx = with_statistics(average())
    >>> params = {"w": jnp.zeros(2)}
    >>> state = tx.init(params)
    >>> _, state = tx.update({"w": jnp.array([[1.0, 1.0], [1.0, -1.0]])}, state, params)
    >>> {name: float(x) for name, x in statistics(state).noise_scale.items()}
    {'all': inf, 'w': inf}
    """
    if not isinstance(aggregator, Aggregator):
        raise TypeError(
            "with_statistics(aggregator): an aggregator such as average(), or a chain that begins "
            f"with one, got {type(aggregator).__name__}."
        )
    if not 0 <= decay < 1:
        raise ValueError(f"with_statistics(decay): in [0, 1), got {decay}.")
    names = leaf_names(by)
    # Not one of those that give scanned layers names of their own, which `init` does not know.
    name_of = lambda path: names(path)

    def init(params):
        found = {name_of(path) for path, _ in jax.tree.leaves_with_path(params)}
        if _ALL in found and len(found) > 1:
            raise ValueError(
                f"with_statistics: a {by} is called {_ALL!r}, the name of all of them together, "
                "whose statistics it would hide. Call it something else."
            )
        zeros = {name: jnp.zeros(()) for name in sorted({_ALL, *found})}
        return StatisticsState(
            jnp.zeros((), jnp.int32), jnp.asarray(decay), zeros, zeros, aggregator.init(params)
        )

    def update(gradients, state, params=None, **extra):
        refuse_batch_gradient(gradients, params, name)
        updates, inner = aggregator.update(gradients, state.inner, params, **extra)
        signal, noise = _signal_and_noise(gradients, name_of)
        running = lambda old, new: {
            name: decay * x + (1 - decay) * new[name].astype(x.dtype) for name, x in old.items()
        }
        return updates, StatisticsState(
            optax.safe_increment(state.steps),
            state.decay,
            running(state.signal, signal),
            running(state.noise, noise),
            inner,
        )

    name = f"with_statistics({aggregator.name}, decay={decay}, by={by!r})"
    return Aggregator(init, update, name, rest=aggregator.rest)


def _signal_and_noise(gradients, name_of):
    """Estimates of |G|^2 and tr(Sigma): `{name: number}` each."""
    m = jnp.asarray(count(gradients) * 1.0)
    of_mean: dict[str, Any] = {}
    for path, g in leaf_weighted_sums(gradients, mean_weights(gradients)):
        name = name_of(path)
        of_mean[name] = of_mean.get(name, 0.0) + jnp.sum(jnp.square(g))
    of_examples = {name: jnp.sum(x) / m for name, x in squared_norms(gradients, by=name_of).items()}
    if _ALL not in of_mean:
        of_mean[_ALL] = sum(of_mean.values())
        of_examples[_ALL] = jnp.asarray(sum(of_examples.values()))
    signal = {name: (m * g - of_examples[name]) / (m - 1) for name, g in of_mean.items()}
    noise = {name: m / (m - 1) * (of_examples[name] - g) for name, g in of_mean.items()}
    return signal, noise


def statistics(state: Any) -> Statistics:
    """The running statistics in an optimizer's state, from wherever `with_statistics` is in it.

    Before the first step nan; a signal estimated at nothing or below makes the noise scale
    infinite, and signal to noise ratio and alpha 0 or below.

    Raises:
        ValueError: the state holds none.
    """
    part = _part(state)
    signal, noise = part.signal, part.noise  # the correction for early steps cancels in ratios
    ratio = lambda x, y: {name: x[name] / y[name] for name in x}
    scale = {name: jnp.where(x > 0, noise[name] / x, jnp.inf) for name, x in signal.items()}
    seen = lambda values: {
        name: jnp.where(part.steps > 0, x, jnp.nan) for name, x in values.items()
    }
    total = {name: x + noise[name] for name, x in signal.items()}
    return Statistics(seen(scale), seen(ratio(signal, noise)), seen(ratio(signal, total)))


def suggest_batch_size(state: Any, least: int = 1, most: int = 2**20) -> int:
    """The batch size at which a step's noise equals its signal: the noise scale of all layers.

    Smaller batches are mostly noise and could be made larger at next to no loss in steps; larger
    ones mostly repeat. On the host, between steps: `state` holds numbers.

    McCandlish et al. (arXiv:1812.06162), Section 2: the simple noise scale. It is a scale, right
    within a factor of a few.

    Args:
        state: of an optimizer that `with_statistics` is part of.
        least, most: bounds of the answer; `most` where the signal drowns in the noise.

    Raises:
        ValueError: the state holds no statistics, or those of no step yet, or of nan.

    >>> from coherence.optim import average
    >>> tx = with_statistics(average())
    >>> _, state = tx.update(jnp.array([[3.0], [1.0]]), tx.init(jnp.zeros(1)), jnp.zeros(1))
    >>> suggest_batch_size(state)  # |G|^2 = 3, tr(Sigma) = 2
    1
    """
    scale = float(statistics(state).noise_scale[_ALL])
    if scale != scale:
        raise ValueError(
            "suggest_batch_size(state): the statistics are nan. Take a step of two examples or "
            "more first, and look for nan in the gradients."
        )
    return int(min(max(scale, least), most))


def _part(state):
    is_part = lambda x: isinstance(x, StatisticsState)
    parts = [x for x in jax.tree.leaves(state, is_leaf=is_part) if is_part(x)]
    if not parts:
        raise ValueError(
            "the state holds no statistics: make the optimizer with with_statistics(aggregator)."
        )
    return parts[0]
