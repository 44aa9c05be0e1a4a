"""The mean of gradients of bounded length: for privacy, or against examples that are too loud."""

import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from coherence.gradients import per_example_value_and_grad
from coherence.gradients.arguments import check_batch, varying_with
from coherence.gradients.factors import accumulator
from coherence.gradients.jax_internals import is_traced
from coherence.gradients.reductions import (
    as_parameters,
    count,
    mask,
    squared_norms,
    wide_weighted_sum,
)
from coherence.gradients.transform import without_masked
from coherence.trees import Loss, PyTree

from .aggregation import Aggregator, aggregator

_STABILITY = 0.01  # gamma of automatic clipping, as in its source


class Key(NamedTuple):
    """What the next noise is drawn from: a key's data, which every library can save."""

    key: jax.Array


class ClippedValueAndGrad(Protocol):
    """What `clipped_value_and_grad` returns.

    `(params, batch, mask=None, key=None) -> (losses, gradient)`.
    """

    def __call__(
        self,
        params: PyTree,
        batch: PyTree,
        mask: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, PyTree]: ...


def clipped_mean(
    max_norm: float | dict[str, float] = 1.0,
    per: Literal["layer", "leaf"] | Callable[[tuple], str] | None = None,
    noise: float | None = None,
    *,
    scaling: Literal["clip", "automatic", "normalize"] = "clip",
    batch_size: int | None = None,
    seed: int = 0,
) -> Aggregator:
    r"""Mean of the gradients after scaling each example's to a length of at most `max_norm`.

    .. math:: \bar g = \frac1n\Big(\sum_i s_i g_i + \sigma\Delta\,\xi\Big), \qquad
        s_i = \min\Big(1, \frac{C}{\|g_i\|}\Big), \qquad \xi \sim \mathcal N(0, I)

    over all leaves together. Directions stay what they are, unlike with `winsorize`; m examples
    that agree still move by C. Squared lengths and a weighted sum, both from the factors at hand:
    no row is formed and nothing is differentiated again. Where the factors of a batch are too many,
    `clipped_value_and_grad` takes it in microbatches.

    With `per` each group of leaves is scaled by its own length and bound. `scaling` is the rule:
    "clip" as above; "automatic" :math:`s_i = C / (\|g_i\| + 0.01)`; "normalize" :math:`C /
    \|g_i\|`, and 0 for a gradient of zero: the mean of the directions.

    **Sensitivity.** One example more or less changes the *sum* by at most :math:`\Delta`, which is
    C, or the root of the sum of the squares of all bounds: that of L layers with one bound is
    :math:`\sqrt L C`. With `noise` :math:`= \sigma` the sum is a Gaussian mechanism of this noise
    multiplier; its accounting (`jax_privacy`, `dp_accounting`) is not done here. The divisor n is
    the number of examples that count, which is itself not private: batches drawn at random, or with
    a mask, need `batch_size`, the expected number, in its place.

    Masked examples do not count. A nan in any example makes the group nan. Lengths are computed in
    float32: beyond 1e19 they overflow, and an infinite length is scaled to nothing where its
    entries are finite.

    Abadi et al., Deep Learning with Differential Privacy (arXiv:1607.00133), Section 3.1, where
    `optax.per_example_global_norm_clip` sums; Bu et al., Automatic Clipping (arXiv:2206.07136).

    Args:
        max_norm: C, above 0; with `per` that of every group, or `{name: bound}` with all of them.
        per: whose length is bounded: all leaves' together (`None`), each "layer"'s, each "leaf"'s,
            or each group's, by a function from a leaf's key path to a name.
        noise: sigma, the standard deviation in units of the sensitivity; the state holds the key, a
            new one after each step. `None`: none.
        scaling: how lengths are bounded.
        batch_size: n, where it is not the number of examples that count.
        seed: of the first key of the noise.

    Raises:
        ValueError: a bound, the noise or the batch size is not above 0; bounds are not those of the
            groups; noise meets masked gradients without a `batch_size`.

    >>> tx = clipped_mean(2.5)
    >>> tx.update(jnp.array([[0.0, 0.5], [3.0, 4.0]]), tx.init(None))[0]
    Array([0.75, 1.25], dtype=float32)
    """
    rule = _Rule("clipped_mean", max_norm, per, noise, scaling, batch_size)
    shown = per if isinstance(per, str | None) else getattr(per, "__name__", per)
    name = (
        f"clipped_mean(max_norm={max_norm}, per={shown!r}, noise={noise}, scaling={scaling!r}, "
        f"batch_size={batch_size}, seed={seed})"
    )
    if noise is None:
        finished = lambda gradients: rule.finished(rule.parts(gradients))
        return aggregator(lambda gradients: as_parameters(gradients, finished(gradients)), name)

    def combine(gradients, state):
        now, later = jax.random.split(jax.random.wrap_key_data(state.key))
        mean = rule.finished(rule.parts(gradients), now)
        return as_parameters(gradients, mean), Key(jax.random.key_data(later))

    return aggregator(combine, name, init=lambda _: Key(jax.random.key_data(jax.random.key(seed))))


def clipped_value_and_grad(
    loss: Loss,
    max_norm: float | dict[str, float] = 1.0,
    per: Literal["layer", "leaf"] | Callable[[tuple], str] | None = None,
    noise: float | None = None,
    *,
    scaling: Literal["clip", "automatic", "normalize"] = "clip",
    batch_size: int | None = None,
    microbatch_size: int | None = None,
) -> ClippedValueAndGrad:
    """Every example's loss and the clipped mean gradient, in the memory of one microbatch.

    `clipped_mean` of `per_example_value_and_grad`, `microbatch_size` examples at a time: the
    factors of one microbatch are made, scaled, summed and let go. An example's scale depends on no
    other, so one pass will do; ghost clipping takes two, which saves the factors, not the
    activations.

    Args:
        loss: `(params, example) -> scalar` for ONE example.
        max_norm, per, noise, scaling, batch_size: as for `clipped_mean`.
        microbatch_size: how many examples are taken at a time; `None`: all.

    Returns:
        A function `(params, batch, mask=None, key=None) -> (losses [m], gradient)`, the arguments
        those of `per_example_value_and_grad`; `key` is what the noise is drawn from: another one at
        each step. The gradient is one, as `optax` takes it.

    Raises:
        ValueError: as `clipped_mean`; a `microbatch_size` below 1; noise without a key.

    >>> step = clipped_value_and_grad(lambda w, x: jnp.dot(w, x), 2.5, microbatch_size=1)
    >>> step(jnp.zeros(2), jnp.array([[0.0, 0.5], [3.0, 4.0]]))[1]
    Array([0.75, 1.25], dtype=float32)
    """
    rule = _Rule("clipped_value_and_grad", max_norm, per, noise, scaling, batch_size)
    value_and_grad = per_example_value_and_grad(loss)
    if microbatch_size is not None and microbatch_size < 1:
        raise ValueError(
            "clipped_value_and_grad(microbatch_size): at least 1 example, or None for the whole "
            f"batch, got {microbatch_size}."
        )

    def part(params, batch, mask):
        losses, gradients = value_and_grad(params, batch, mask)
        return losses, rule.parts(gradients)

    def function(params, batch, mask=None, key=None):
        if noise is not None and key is None:
            raise ValueError(
                "clipped_value_and_grad(noise=...) draws its noise from a key: call the function "
                "as (params, batch, mask, key), with another key at each step."
            )
        m = check_batch(batch, mask)
        batch, mask = jax.tree.map(jnp.asarray, (batch, mask))
        rounded = lambda mean: jax.tree.map(lambda g, p: g.astype(jnp.result_type(p)), mean, params)
        if microbatch_size is None or microbatch_size >= m:
            losses, parts = part(params, batch, mask)
            return losses, rounded(rule.finished(parts, key))
        if noise is not None and mask is not None:
            rule.check_divisor()
        if mask is not None:  # of a microbatch that is masked whole nothing is left to take
            batch = without_masked(batch, mask)
        batches, masks = _microbatches(batch, mask, m, microbatch_size)

        def add(total, microbatch):
            losses, (clipped, _, sensitivity) = part(params, *microbatch)
            return jax.tree.map(jnp.add, total, clipped), (losses, sensitivity)

        start = jax.tree.map(
            lambda p: varying_with(
                jnp.zeros(jnp.shape(p), accumulator(jnp.result_type(p))), (params, batch)
            ),
            params,
        )
        total, (losses, sensitivity) = jax.lax.scan(add, start, (batches, masks))
        counted = m if mask is None else jnp.sum(mask)
        gradient = rule.finished((total, counted, sensitivity[0]), key)
        return losses.reshape(-1)[:m], rounded(gradient)

    return function


class _Rule:
    """How examples are scaled and what their sum is divided by."""

    def __init__(self, caller, max_norm, per, noise, scaling, batch_size):
        self.caller, self.max_norm, self.per = caller, max_norm, per
        self.noise, self.scaling, self.batch_size = noise, scaling, batch_size
        bounds = max_norm.values() if isinstance(max_norm, dict) else [max_norm]
        for bound in bounds:
            # One that a schedule makes is not known yet.
            if not is_traced(bound) and not bound > 0:
                raise ValueError(f"{caller}(max_norm): a length, above 0, got {bound}.")
        if isinstance(max_norm, dict) and per is None:
            raise ValueError(
                f"{caller}(max_norm): bounds by name, {sorted(max_norm)}, need groups of leaves to "
                'belong to: per="layer", per="leaf" or a function of a leaf\'s path.'
            )
        if not callable(per) and per not in (None, "layer", "leaf"):
            raise ValueError(
                f'{caller}(per): None, "layer", "leaf" or a function of a leaf\'s path, got '
                f"{per!r}."
            )
        if noise is not None and not 0 < noise < math.inf:
            raise ValueError(
                f"{caller}(noise): a number above 0, in units of the sensitivity, or None, got "
                f"{noise}."
            )
        if noise is not None and math.inf in bounds:
            raise ValueError(f"{caller}(noise): of unbounded gradients no noise hides one.")
        if scaling not in ("clip", "automatic", "normalize"):
            raise ValueError(
                f'{caller}(scaling): "clip", "automatic" or "normalize", got {scaling!r}.'
            )
        if batch_size is not None and not (batch_size >= 1 and batch_size % 1 == 0):
            raise ValueError(
                f"{caller}(batch_size): a whole number, at least 1, or None, got {batch_size!r}."
            )

    def parts(self, gradients):
        """The sum of the scaled gradients, not rounded, how many count, the sum's sensitivity."""
        if self.noise is not None and mask(gradients) is not None:
            self.check_divisor()
        # One name for all leaves: one group.
        by = (lambda path: "") if self.per is None else self.per
        squares = squared_norms(gradients, by=by)
        if isinstance(self.max_norm, dict) and {*self.max_norm} != {*squares}:
            raise ValueError(
                f"{self.caller}(max_norm): bounds of {sorted(self.max_norm)}, but the groups are "
                f"{sorted(squares)}."
            )
        scales = {name: self._scales(x, self._bound(name)) for name, x in squares.items()}
        if self.per is None:
            total = wide_weighted_sum(gradients, scales[""])
        else:
            total = wide_weighted_sum(gradients, scales, by=by)
        return (
            total,
            count(gradients),
            jnp.sqrt(sum(jnp.square(self._bound(name) * 1.0) for name in squares)),
        )

    def finished(self, parts, key=None):
        """The sum with its noise, divided."""
        total, counted, sensitivity = parts
        n = self.batch_size or counted
        if self.noise is not None:
            deviation = self.noise * sensitivity
            keys = optax.tree.split_key_like(key, total)
            total = jax.tree.map(lambda x, key: _noisy(x, key, deviation), total, keys)
        return jax.tree.map(lambda x: (x / n).astype(x.dtype), total)

    def check_divisor(self):
        if self.batch_size is None:
            raise ValueError(
                f"{self.caller}(noise=...): the gradients have a mask, and dividing by the number "
                "that it leaves would tell it. Give batch_size, the expected number."
            )

    def _bound(self, name):
        return self.max_norm[name] if isinstance(self.max_norm, dict) else self.max_norm

    def _scales(self, squares, bound):
        if self.scaling == "automatic":
            return bound / (jnp.sqrt(squares) + _STABILITY)
        if self.scaling == "normalize":
            zero = squares == 0
            return jnp.where(zero, 0, bound / jnp.sqrt(jnp.where(zero, 1, squares)))
        # A zero gradient is below any length; 0 / 0 does not arise, for max_norm > 0.
        return jnp.minimum(1, bound / jnp.sqrt(squares))


def _noisy(x, key, deviation):
    drawn = jax.random.normal(key, x.shape, accumulator(x.dtype))
    return (x + deviation * drawn).astype(x.dtype)


def _microbatches(batch, mask, m, microbatch_size):
    """The batch and its mask with one more leading axis; the last microbatch is filled up."""
    number = -(-m // microbatch_size)
    index = jnp.arange(number * microbatch_size).reshape(number, microbatch_size)
    if mask is None and m % microbatch_size:
        mask = jnp.ones(m, bool)
    inside = jnp.minimum(index, m - 1)
    cut = functools.partial(jax.tree.map, lambda x: x[inside])
    return cut(batch), None if mask is None else mask[inside] & (index < m)


__all__ = ["ClippedValueAndGrad", "clipped_mean", "clipped_value_and_grad"]
