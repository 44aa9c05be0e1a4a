"""Coherence of a whole data set, streaming, with error bars: memory does not depend on its size."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from coherence import display
from coherence.gradients.reductions import dot, squared_norms
from coherence.gradients.transform import per_example_value_and_grad
from coherence.trees import By, Loss, PyTree, leaf_names

from .batching import Batch, Few, Groups, batches, take
from .coherence import Moments, everything, leave_one_out, moments
from .pooling import Pooled, pool

# Examples of each group whose leave-one-out values make the interval: its length is then known to
# 2 or 3 %.
LOOKED_AT_TWICE = 2048
# Kurtosis of the norms above which intervals cover too little (`benchmarks/coverage.py`); of fewer
# than 300 examples 0.04 m.
HEAVY = 12


class UntrustworthyInterval(UserWarning):
    """Warns that few gradients are so long that an interval covers less than it says.

    >>> issubclass(UntrustworthyInterval, UserWarning)
    True
    """


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Alpha of a data set, with a 95 % interval.

    value, low, high: a float; with groups an array [groups]; with `by` `{name: float or array}`.
    m: examples, an int or [groups].
    by: the names, or `None`.
    groups: how many, or `None`.
    kurtosis: of the examples' gradient norms (3 for normal ones, larger for heavy tails), a float
        or [groups].
    """

    value: Any
    low: Any
    high: Any
    m: Any
    by: tuple[str, ...] | None = None
    groups: int | None = None
    kurtosis: Any = None

    @property
    def m_coherence(self) -> Measurement:
        """The same as m-coherence: m alpha, in examples helped."""
        return self._map(lambda alpha: self.m * alpha)

    @property
    def alpha_unbiased(self) -> Measurement:
        """The same without the floor 1/m: (m alpha - 1) / (m - 1)."""
        others = np.where(np.asarray(self.m) > 1, np.asarray(self.m) - 1.0, np.nan)
        return self._map(lambda alpha: (self.m * alpha - 1) / others)

    def __str__(self) -> str:
        """A line a layer and group: `output, group 1: alpha 0.05 [0.04, 0.06], m = 13,472`."""
        return "\n".join(self._line(*row) for row in self._rows())

    def _repr_html_(self) -> str:
        rows = [
            (", ".join(names), float(value), f"[{low:.4g}, {high:.4g}]", f"{m:,}")
            for names, value, low, high, m in self._rows()
        ]
        return display.table(["", "alpha", "95 % interval", "m"], rows)

    def _rows(self) -> Iterable[tuple[list[str], float, float, float, int]]:
        for name in self.by or (None,):
            ends = (self.value, self.low, self.high)
            columns = ends if name is None else tuple(end[name] for end in ends)
            for k, row in enumerate(zip(*map(np.atleast_1d, (*columns, self.m)))):
                group = [] if self.groups is None else [f"group {k}"]
                yield ([] if name is None else [str(name)]) + group, *row

    @staticmethod
    def _line(names: list[str], value: float, low: float, high: float, m: int) -> str:
        label = f"{', '.join(names)}: " if names else ""
        return f"{label}alpha {value:.3g} [{low:.3g}, {high:.3g}], m = {m:,}"

    def _map(self, function: Callable[[Any], Any]) -> Measurement:
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return dataclasses.replace(self, **jax.tree.map(function, ends))


def measure(
    loss: Loss,
    params: PyTree,
    data: PyTree,
    *,
    batch_size: int,
    by: By | None = None,
    groups: Groups = None,
    num_groups: int | None = None,
    progress: bool = False,
) -> Measurement:
    r"""Alpha of a whole data set, pooled over batches, with a jackknife interval.

    .. math:: \alpha_m \pm t_{0.975}\sqrt{(m-1)\,\mathrm{Var}_i\,\alpha_{(i)}}

    cut to [0, 1], where alpha is; with :math:`\alpha_{(i)}` alpha without example i
    (`alpha_without`), and Student's t with as many degrees of freedom as their kurtosis leaves,
    :math:`2m/(\kappa - 1)`. Numerator and denominator are pooled over all batches and divided once.
    One pass over the data, and a second one over at most 2,048 examples of each group (the half
    with the longest gradients, the others at random), whose leave-one-out values estimate the
    variance. Batches hold examples of one group only, so groups cost nothing.

    The interval is for alpha of samples of this size, :math:`\alpha + (1-\alpha)/m` with alpha of
    the population: the floor 1/m does not go away, `Measurement.alpha_unbiased` subtracts it from
    value and interval. One or two examples say nothing about others: their interval is [0, 1], all
    that alpha can be. It covers 95 % where norms are not too unequal (`benchmarks/coverage.py`);
    `UntrustworthyInterval` warns where they are. It is the error of choosing these examples; that
    of choosing another seed for the training is not in it.

    Args:
        loss: `(params, example) -> scalar` for one example.
        params: where to measure.
        data: a pytree of arrays with a shared leading axis of examples (on the host or the device),
            or an iterable of such batches of any sizes, read once.
        batch_size: examples differentiated at a time. It bounds the memory and changes the result
            by rounding only.
        by: "layer", "leaf", or a function from a leaf's key path to a name.
        groups: bool [m] (False first) or int [m] with `num_groups`; where `data` is an iterable, a
            function from a batch to those. Entries outside of 0..num_groups-1 are left out.
        progress: show a progress bar.

    Returns:
        `Measurement`.

    Raises:
        ValueError: no examples, leaves that disagree about their number, unfit groups or batch
            size; what `per_example_value_and_grad` refuses.
        TypeError: parameters that are no floats.

    >>> loss = lambda w, x: jnp.dot(w, x)
    >>> measured = measure(loss, jnp.ones(4), jnp.eye(4), batch_size=2)
    >>> float(measured.value), float(measured.m_coherence.value), measured.m
    (0.25, 1.0, 4)
    """
    count, source = batches(data, batch_size, groups, num_groups)
    passed = stream(loss, params, source, few=LOOKED_AT_TWICE, progress=progress)
    if not passed:
        raise ValueError(
            "data holds no examples: the iterable gave no batch. A generator that was read before "
            "gives nothing more."
        )
    m, kurtosis = np.zeros(count, int), np.full(count, np.nan)
    for group, part in passed.items():
        m[group], kurtosis[group] = part.pooled.m, part.norms.kurtosis
    _warn(kurtosis, m, grouped=groups is not None)
    intervals: dict[str, np.ndarray] = {}  # [value, low, high] x groups
    for group, part in passed.items():
        for name, interval in _intervals(loss, params, part, batch_size, by).items():
            intervals.setdefault(name, np.full((3, count), np.nan))[:, group] = interval

    def shaped(values):
        return values if groups is not None else values[0].item()

    def end(row):
        named = {name: shaped(ends[row]) for name, ends in intervals.items()}
        return named if by is not None else named[""]

    return Measurement(
        value=end(0),
        low=end(1),
        high=end(2),
        m=shaped(m),
        by=None if by is None else tuple(intervals),
        groups=None if groups is None else count,
        kurtosis=shaped(kurtosis),
    )


class Pass(NamedTuple):
    """What one pass over the data leaves of one group."""

    pooled: Pooled
    norms: Norms
    few: Few


def stream(
    loss: Loss, params: PyTree, source: Iterable[Batch], *, few: int, progress: bool = False
) -> dict[int, Pass]:
    """One pass over batches, `{group: Pass}`, with up to `few` examples kept of each group."""
    passed: dict[int, Pass] = {}
    waiting = None  # the host works on one batch while the device works on the next
    for batch in tqdm(source, unit="batch", disable=not progress):
        pooled, norms = _of_batch(params, batch.examples, batch.mask, loss=loss)
        before = passed.get(batch.group)
        if before is None:
            passed[batch.group] = Pass(pooled, Norms(), Few(few))
        else:
            passed[batch.group] = before._replace(pooled=_add(before.pooled, pooled))
        _note(passed, waiting)
        waiting = batch, norms
    _note(passed, waiting)
    return passed


def _note(passed: dict[int, Pass], waiting: tuple[Batch, jax.Array] | None) -> None:
    if waiting is not None:
        batch, norms = waiting[0], np.asarray(waiting[1])
        passed[batch.group].norms.add(norms, batch.mask)
        passed[batch.group].few.add(batch.examples, norms, batch.mask)


class Norms:
    """Sums of the powers of the examples' gradient norms less the first, in float64."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.powers = np.zeros(5)

    def add(self, squared: np.ndarray, mask: np.ndarray | None = None) -> None:
        lengths = np.sqrt(np.asarray(squared, np.float64))
        lengths = lengths if mask is None else lengths[mask]
        if self.first is None and len(lengths):
            self.first = lengths[0]
        # Without the shift the moments of nearly equal norms are differences of rounded numbers.
        self.powers += [np.sum((lengths - (self.first or 0.0)) ** k) for k in range(5)]

    @property
    def kurtosis(self) -> float:
        """Fourth central moment over the squared variance; nan where all norms are equal."""
        mean, second, third, fourth = self.powers[1:] / self.powers[0]
        variance = second - mean**2
        if not variance > 1e-12 * (self.first or 0.0) ** 2:
            return np.nan
        return (fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4) / variance**2


@partial(jax.jit, static_argnames="loss")
def _of_batch(params, examples, mask, *, loss):
    _, gradients = per_example_value_and_grad(loss)(params, examples, mask)
    return pool(gradients), squared_norms(gradients)


@partial(jax.jit, donate_argnums=0)
def _add(pooled, other):
    return pooled + other


@partial(jax.jit, static_argnames=("loss", "by"))
def _norms_and_dots(params, examples, mask, mean, *, loss, by):
    _, gradients = per_example_value_and_grad(loss)(params, examples, mask)
    return squared_norms(gradients, by=by), dot(gradients, mean, by=by)


def _intervals(
    loss: Loss, params: PyTree, part: Pass, batch_size: int, by: By | None
) -> dict[str, tuple[float, float, float]]:
    """`{name: (alpha, low, high)}` of one group, in float64.

    From the leave-one-out values of a few of its examples.
    """
    names = everything if by is None else leaf_names(by)
    examples, weights = part.few.examples_and_weights()
    batches_read = []
    for batch in batches(examples, batch_size)[1]:
        both = _norms_and_dots(
            params, batch.examples, batch.mask, part.pooled.mean, loss=loss, by=names
        )
        both = jax.tree.map(lambda x: np.asarray(x, np.float64), both)
        batches_read.append(both if batch.mask is None else take(both, batch.mask))
    norms, dots = jax.tree.map(lambda *parts: np.concatenate(parts), *batches_read)
    result = {}
    for name, sums in moments(part.pooled, by=names).items():
        whole: Any = Moments._make(np.float64(x) for x in sums)
        with np.errstate(divide="ignore", invalid="ignore"):
            without = leave_one_out(whole, norms[name], dots[name])
            low, high = _interval(whole, without, weights / whole.m)
        result[name] = whole.alpha, low, high
    return result


def _interval(whole: Any, without: np.ndarray, shares: np.ndarray) -> tuple[float, float]:
    if whole.m <= 2:  # alpha without one of two is 1, whatever they are: anything is possible
        return 0 * whole.alpha, 0 * whole.alpha + 1
    half = _half_width(without, shares, whole.m)
    return np.maximum(whole.alpha - half, 0), np.minimum(whole.alpha + half, 1)


def _half_width(without: np.ndarray, shares: np.ndarray, m: float) -> float:
    """Of the 95 % interval, from leave-one-out values that stand for these shares of the examples.

    The variance of a heavy-tailed sample is uncertain itself: its degrees of freedom are
    2m/(kurtosis - 1), m where it is normal.
    """
    from scipy import stats

    deviations = without - np.sum(shares * without)
    second, fourth = (np.sum(shares * deviations**k) for k in (2, 4))
    if not second > 0:
        return 0 * second
    freedom = min(m - 1, 2 * m / max(fourth / second**2 - 1, 1e-9))
    return stats.t.ppf(0.975, freedom) * np.sqrt((m - 1) * second)


def _warn(kurtosis: np.ndarray, counts: np.ndarray, *, grouped: bool) -> None:
    heavy = kurtosis > np.minimum(HEAVY, np.maximum(5, 0.04 * counts))
    if not heavy.any():
        return
    which = []
    for k in np.flatnonzero(heavy):
        label = f"group {k}: " if grouped else ""
        which.append(f"{label}kurtosis {kurtosis[k]:.3g} of {counts[k]:,} norms")
    warnings.warn(
        f"the examples' gradient norms have heavy tails ({', '.join(which)}; 3 is normal): "
        "intervals of alpha cover less than they say. A few examples decide the result: measure "
        "more, or look at who they are (coherence.metrics.contributions).",
        UntrustworthyInterval,
        stacklevel=3,
    )
