"""Coherence of a whole data set, streaming, with error bars: memory does not depend on its size."""

import dataclasses
import warnings
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from coherence.gradients.reductions import dot, squared_norms
from coherence.gradients.transform import per_example_value_and_grad

from .coherence import Moments, leave_one_out, moments
from .pooling import Pooled, pool
from .sampling import Few, batches

LOOKED_AT_TWICE = 2048  # examples of each group whose leave-one-out values make the interval: its length is then known to 2-3 %
HEAVY = 12  # kurtosis of the norms above which intervals cover too little (`benchmarks/coverage.py`); of fewer than 300 examples 0.04 m


class UntrustworthyInterval(UserWarning):
    """A few examples' gradients are so much longer than the others' that an interval covers less than it says."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Alpha of a data set, with a 95 % interval.

    value, low, high: a float; with groups an array [groups]; with `by` `{name: float or array}`.
    m: examples, an int or [groups].
    by: the names, or `None`.  groups: how many, or `None`.  kurtosis: of the examples' gradient
    norms (3 for normal ones, larger for heavy tails), a float or [groups].
    """

    value: Any
    low: Any
    high: Any
    m: Any
    by: tuple[str, ...] | None = None
    groups: int | None = None
    kurtosis: Any = None

    @property
    def m_coherence(self):
        """The same as m-coherence: m alpha, in examples helped."""
        return self._map(lambda alpha: self.m * alpha)

    @property
    def alpha_unbiased(self):
        """The same without the floor 1/m: (m alpha - 1) / (m - 1)."""
        pairs = np.where(np.asarray(self.m) > 1, np.asarray(self.m) - 1.0, np.nan)
        return self._map(lambda alpha: (self.m * alpha - 1) / pairs)

    def __str__(self):
        """A line for each layer and group, as `hidden_0, group 1: alpha 0.00599 [0.00553, 0.00644], m = 13,472`."""
        named = self.value if self.by is not None else {None: self.value}
        lines = []
        for name in named:
            value, low, high = (
                one if self.by is None else one[name] for one in (self.value, self.low, self.high)
            )
            for k, (alpha, *bounds) in enumerate(zip(*map(np.atleast_1d, (value, low, high)))):
                where = [str(name)] * (name is not None) + [f"group {k}"] * (
                    self.groups is not None
                )
                said = "{:.3g} [{:.3g}, {:.3g}]".format(alpha, *bounds)
                lines.append(
                    f"{', '.join(where)}{': ' if where else ''}alpha {said}, m = {np.atleast_1d(self.m)[k]:,}"
                )
        return "\n".join(lines)

    def _map(self, function):
        changed = {
            name: jax.tree.map(function, getattr(self, name)) for name in ("value", "low", "high")
        }
        return dataclasses.replace(self, **changed)


def measure(
    loss, params, data, *, batch_size, by=None, groups=None, num_groups=None, progress=False
):
    r"""Alpha of a whole data set, pooled over batches, with a jackknife interval.

    .. math:: \alpha_m \pm t_{0.975}\sqrt{(m-1)\,\mathrm{Var}_i\,\alpha_{(i)}}

    with :math:`\alpha_{(i)}` alpha without example i (`alpha_without`), and Student's t with as
    many degrees of freedom as their kurtosis leaves, :math:`2m/(\kappa - 1)`. Numerator and
    denominator are pooled over all batches and divided once. One pass over the data, and a second
    one over at most 2,048 examples of each group (the half with the longest gradients, the others
    at random), whose leave-one-out values estimate the variance. Batches hold examples of one group
    only, so groups cost nothing.

    The interval is for alpha of samples of this size, :math:`\alpha + (1-\alpha)/m` with alpha of
    the population: the floor 1/m does not go away, `Measurement.alpha_unbiased` subtracts it from
    value and interval. It covers 95 % where norms are not too unequal (`benchmarks/coverage.py`);
    `UntrustworthyInterval` warns where they are. It is the error of choosing these examples; that
    of choosing another seed for the training is not in it.

    Args:
        loss: `(params, example) -> scalar` for one example.
        params: where to measure.
        data: a pytree of arrays with a shared leading axis of examples (on the host or the device),
            or an iterable of such batches of any sizes, read once.
        batch_size: examples differentiated at a time. It bounds the memory and changes the result
        by rounding only.
        by: `coherence.layer`, `coherence.leaf`, or any function from a leaf's key path to a name.
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
    many, source = batches(data, batch_size, groups, num_groups)
    seen = stream(loss, params, source, few=LOOKED_AT_TWICE, progress=progress)
    if not seen:
        raise ValueError(
            "data holds no examples: the iterable gave no batch. A generator that was read before gives nothing more."
        )
    names = _names(params, by)
    nothing = dict.fromkeys(names, (np.nan,) * 3)
    found = [
        _interval(loss, params, seen[k], batch_size, by) if k in seen else nothing
        for k in range(many)
    ]
    counts = np.array([int(seen[k].pooled.m) if k in seen else 0 for k in range(many)])
    kurtosis = np.array([seen[k].norms.kurtosis if k in seen else np.nan for k in range(many)])
    _warn(kurtosis, counts, groups is not None)
    shaped = (lambda x: x) if groups is not None else (lambda x: x[0].item())
    parts = [
        {name: shaped(np.array([one[name][i] for one in found])) for name in names}
        for i in range(3)
    ]
    parts = [part if by is not None else part[None] for part in parts]
    return Measurement(
        *parts,
        shaped(counts),
        names if by is not None else None,
        many if groups is not None else None,
        shaped(kurtosis),
    )


class Seen(NamedTuple):
    """What one pass leaves of one group."""

    pooled: Pooled
    norms: "Norms"
    few: Few


def stream(loss, params, source, *, few, progress=False):
    """One pass over batches: `{group: Seen}`, with up to `few` examples kept of each group."""
    seen: dict[int, Seen] = {}
    behind = None  # the host works on one batch while the device works on the next
    for batch in tqdm(source, unit="batch", disable=not progress):
        one, squared = _of_batch(params, batch.examples, batch.mask, loss=loss)
        before = seen.get(batch.group)
        seen[batch.group] = (
            before._replace(pooled=_add(before.pooled, one))
            if before
            else Seen(one, Norms(), Few(few))
        )
        _note(seen, behind)
        behind = batch, squared
    _note(seen, behind)
    return seen


def _note(seen, behind):
    if behind is not None:
        batch, squared = behind
        one = seen[batch.group]
        one.norms.add(squared, batch.mask)
        one.few.add(batch.examples, np.asarray(squared), batch.mask)


class Norms:
    """Sums of the powers of the examples' gradient norms, in float64."""

    def __init__(self):
        self.powers = np.zeros(5)

    def add(self, squared, mask=None):
        lengths = np.sqrt(np.asarray(squared, np.float64))
        self.powers += [
            np.sum(lengths[mask if mask is not None else slice(None)] ** k) for k in range(5)
        ]

    @property
    def kurtosis(self):
        """Fourth central moment over the squared variance; nan where all norms are equal."""
        m, one, two, three, four = self.powers
        mean, second, third, fourth = one / m, two / m, three / m, four / m
        variance = second - mean**2
        if not variance > 1e-12 * second:
            return np.nan
        return (fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4) / variance**2


@partial(jax.jit, static_argnames="loss")
def _of_batch(params, examples, mask, *, loss):
    _, gradients = per_example_value_and_grad(loss)(params, examples, mask)
    return pool(gradients), squared_norms(gradients)


@partial(jax.jit, donate_argnums=0)
def _add(pooled, one):
    return pooled + one


@partial(jax.jit, static_argnames=("loss", "by"))
def _norms_and_dots(params, examples, mask, mean, *, loss, by):
    _, gradients = per_example_value_and_grad(loss)(params, examples, mask)
    return squared_norms(gradients, by=by), dot(gradients, mean, by=by)


def _interval(loss, params, seen, batch_size, by):
    """`{name: (alpha, low, high)}` of one group, from the leave-one-out values of a few of its examples, in float64."""
    everything = by or _all
    examples, weights = seen.few.examples_and_weights()
    parts = []
    for batch in batches(examples, batch_size)[1]:
        pair = _norms_and_dots(
            params, batch.examples, batch.mask, seen.pooled.mean, loss=loss, by=everything
        )
        keep = slice(None) if batch.mask is None else batch.mask
        parts.append(jax.tree.map(lambda x, keep=keep: np.asarray(x, np.float64)[keep], pair))
    norms, dots = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    result = {}
    for name, whole in moments(seen.pooled, by=everything).items():
        whole = Moments(*(np.float64(x) for x in whole))
        with np.errstate(divide="ignore", invalid="ignore"):
            without = leave_one_out(whole, norms[name], dots[name])
            half = _half_width(without, weights / whole.m, whole.m) if whole.m > 1 else np.nan
            result[None if by is None else name] = (
                whole.alpha,
                whole.alpha - half,
                whole.alpha + half,
            )
    return result


def _half_width(without, shares, m):
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


def _all(path):
    return None


def _names(params, by):
    return (
        (None,)
        if by is None
        else tuple(dict.fromkeys(by(path) for path, _ in jax.tree.leaves_with_path(params)))
    )


def _warn(kurtosis, counts, grouped):
    heavy = [k for k, m in enumerate(counts) if kurtosis[k] > min(HEAVY, max(5, 0.04 * m))]
    if heavy:
        which = ", ".join(
            (f"group {k}: " if grouped else "")
            + f"kurtosis {kurtosis[k]:.3g} of {counts[k]:,} norms"
            for k in heavy
        )
        warnings.warn(
            f"the examples' gradient norms have heavy tails ({which}; 3 is normal): intervals of alpha cover less than they say. "
            "A few examples decide the result: measure more, or look at who they are (coherence.metrics.contributions).",
            UntrustworthyInterval,
            stacklevel=3,
        )
