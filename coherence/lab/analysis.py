"""Tools of experiments: runs as arrays, curves at equal loss or fit, preconditions, tables.

Numpy only; everything here reads finished runs or recorded arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coherence.lab.claims import Ratio
from coherence.lab.report.records import track
from coherence.lab.report.tables import aligned, plus_minus
from coherence.lab.runs import Run


def stacked(runs: Sequence[Run], *names: str) -> dict[str, NDArray]:
    """Records of several runs as arrays: `{name: [seed, time, ...]}`, and `step` [time].

    The steps are those of the records that hold the first name (of all without a name); nan where a
    run ended early or did not measure at that step.
    """
    histories = [[r for r in run.records() if set(names[:1]) <= set(r)] for run in runs]
    steps = sorted({record["step"] for history in histories for record in history})
    arrays = {"step": np.array(steps)}
    for name in names:
        recorded = track(histories, name)
        arrays[name] = np.full((len(runs), len(steps), *recorded.values.shape[2:]), np.nan)
        arrays[name][:, np.isin(steps, recorded.steps)] = recorded.values
    return arrays


def stacked_parts(runs: Sequence[Run], name: str) -> tuple[list[str], NDArray]:
    """A quantity recorded by layer or part as an array: the parts, and [seed, time, part]."""
    recorded = track([run.records() for run in runs], name)
    return list(recorded.parts), recorded.values


def stacked_arms(arms: Iterable[Sequence[Run]], *names: str) -> dict[str, NDArray]:
    """Records of arms that were measured at the same steps: `{name: [arm, seed, time]}`, `step`."""
    rows = [stacked(runs, *names) for runs in arms]
    arrays = {name: np.array([row[name] for row in rows]) for name in names}
    return {"step": rows[0]["step"], **arrays}


def first_at(
    curve: ArrayLike, values: ArrayLike, levels: ArrayLike, *, falling: bool = False
) -> NDArray:
    """Values measured where a curve first reached a level, interpolated between two measurements.

    nan where it never did; the first value where it began there. Leading axes of curves and levels
    follow numpy's broadcasting: `first_at(loss[:, None], accuracy[:, None], LEVELS, falling=True)`
    is [seed, level].

    Args:
        curve: [..., times], which has to rise to the levels or, if `falling`, to fall to them.
        values: measured at the same times: other curves, or the steps themselves.
        levels: numbers that broadcast against the curves without their last axis.

    Returns:
        One value a curve and level.
    """
    sign = -1.0 if falling else 1.0
    curve, levels = sign * np.asarray(curve, float), sign * np.asarray(levels, float)
    shape = np.broadcast_shapes(curve.shape[:-1], levels.shape, np.shape(values)[:-1])
    curves = np.broadcast_to(curve, (*shape, curve.shape[-1]))
    measured = np.broadcast_to(np.asarray(values, float), curves.shape)
    levels, result = np.broadcast_to(levels, shape), np.full(shape, np.nan)
    for place in np.ndindex(shape):
        reached = np.flatnonzero(curves[place] >= levels[place])
        if reached.size:
            pair = [max(reached[0] - 1, 0), reached[0]]
            result[place] = np.interp(levels[place], curves[place][pair], measured[place][pair])
    return result[()]


def pooled_windows(run: Run, length: int) -> tuple[NDArray, NDArray]:
    """Mean loss and m-coherence of training batches in windows of consecutive steps: two [window].

    Numerator and denominator of alpha are averaged over the window, then divided: the mean of
    ratios would be biased. m is the batch size. Window t starts at step t.
    """
    loss, squared_norm_of_mean, mean_squared_norm = (
        _moving_mean(run.load("batches")[name].astype(np.float64), length)
        for name in ("loss", "squared_norm_of_mean", "mean_squared_norm")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return loss, run.config["batch_size"] * squared_norm_of_mean / mean_squared_norm


def at_losses(runs: Sequence[Run], losses: ArrayLike, length: int) -> NDArray:
    """m-coherence of training batches where their loss falls to each of `losses`: [seed, loss].

    Pooled over windows of `length` steps, interpolated between the last window whose mean loss is
    higher and the first whose mean loss is not. nan where a run never gets there, or has passed it
    within its first window: what is seen there is at another loss. `losses` is [loss], or
    [seed, loss].
    """
    losses = np.broadcast_to(losses, (len(runs), np.shape(losses)[-1]))
    result = np.full(losses.shape, np.nan)
    for i, run in enumerate(runs):
        loss, coherence = pooled_windows(run, length)
        if len(loss):
            at = first_at(loss, coherence, losses[i], falling=True)
            result[i] = np.where(losses[i] <= loss[0], at, np.nan)
    return result


def at_loss_levels(runs: Sequence[Run], levels: ArrayLike, length: int) -> NDArray:
    """`at_losses` at multiples of each run's initial training loss: [seed, level]."""
    initial = np.array([run.records()[0]["train_loss"] for run in runs])
    return at_losses(runs, initial[:, None] * np.asarray(levels), length)


def alpha_ratio(numerator: ArrayLike, denominator: ArrayLike, m: int) -> Ratio:
    """Of alpha without its floor of 1/m, which hides a ratio where coherence is low.

    Args:
        numerator: m-coherence of m examples: [seed].
        denominator: the same of what it is compared with.
        m: how many examples.
    """
    pair = np.array([numerator, denominator], float)
    above, below = pair.mean(1)
    measured = np.isfinite([above, below]).all()
    note = f"m-coherence {above:.3g} over {below:.3g}, m = {m}" if measured else ""
    numerator, denominator = (pair - 1) / (m - 1)
    return Ratio(numerator, denominator, note)


def cross_fitted(curves: ArrayLike, place: Callable[[NDArray], Any]) -> NDArray:
    """Each seed's curve where the mean of the others' says: [seed, ...] of [seed, time].

    A curve's own maximum is above the truth wherever there is noise; its value where others have
    theirs is not.

    Args:
        curves: [seed, time].
        place: from a mean curve [time], the index or indices that are asked for.
    """
    values = np.asarray(curves, float)
    if len(values) == 1:
        return values[:, place(values[0])]
    others = (values.sum(0) - values) / (len(values) - 1)
    return np.array([curve[place(mean)] for curve, mean in zip(values, others)])


def _moving_mean(values: NDArray, length: int) -> NDArray:
    """The mean of every `length` consecutive values.

    A cumulative sum would spread one nan over all that follow.
    """
    if len(values) < length:
        return np.empty(0)
    return np.lib.stride_tricks.sliding_window_view(values, length).mean(-1)


def rank_correlation(a: ArrayLike, b: ArrayLike) -> NDArray:
    """Spearman's rank correlation along the last axis; leading axes follow numpy's broadcasting.

    nan where a value is nan, or where all are equal. (`scipy.stats` takes a second to import.)
    """
    a, b = np.broadcast_arrays(np.asarray(a), np.asarray(b))
    result = np.full(a.shape[:-1], np.nan)
    for place in np.ndindex(result.shape):
        x, y = ranks(a[place]), ranks(b[place])
        if not np.isnan(a[place] + b[place]).any() and x.std() * y.std() > 0:
            result[place] = np.corrcoef(x, y)[0, 1]
    return result[()]


def log_odds(outputs: ArrayLike, labels: ArrayLike) -> NDArray:
    """log p / (1 - p) of each label, from logits: [..., example, class] to [..., example]."""
    outputs = np.asarray(outputs)
    given = np.arange(outputs.shape[-1]) == np.asarray(labels)[:, None]
    others = np.where(given, -np.inf, outputs)
    top = others.max(-1)
    rest = top + np.log(np.exp(others - top[..., None]).sum(-1))
    return (outputs * given).sum(-1) - rest


def datamodel_score(influences: NDArray, inside: NDArray, outputs: NDArray) -> float:
    """Linear datamodel score: do sums of influences over a subset rank the outputs it brings?

    Spearman over networks of both, the mean over test examples (Park et al., arXiv:2303.14186,
    Section 2.3).

    Args:
        influences: [test, train].
        inside: bool [network, train], what each network was trained on.
        outputs: [network, test].
    """
    return float(rank_correlation(influences @ inside.T, outputs.T).mean())


def mean_of_others(values: ArrayLike) -> NDArray:
    """For each value the mean of all the others: [n] to [n]."""
    array = np.asarray(values, float)
    return (array.sum() - array) / (len(array) - 1)


def ranks(values: ArrayLike) -> NDArray:
    """Ranks of [n] from 1 on; equal values share their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[places]


def under(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays renamed to `PREFIX/NAME`."""
    return {f"{prefix}/{name}": values for name, values in arrays.items()}


def single(arrays: Mapping[str, ArrayLike]) -> dict[str, NDArray]:
    """The arrays in single precision, which is what a figure needs; integers and text stay."""
    whole = {name: np.asarray(values) for name, values in arrays.items()}
    return {
        name: values.astype(np.float32) if values.dtype.kind == "f" else values
        for name, values in whole.items()
    }


def computed(runs: Sequence[Run], *names: str) -> dict[str, NDArray]:
    """What runs without training steps computed: `{name: [seed, ...]}`, without names all of it."""
    arrays = [run.load("computed") for run in runs]
    return {name: np.array([each[name] for each in arrays]) for name in names or arrays[0]}


def parameter_count(run: Run) -> int:
    """How many numbers a finished run learned."""
    return sum(leaf.size for leaf in run.load("params").values())


def too_low(values: ArrayLike, least: float, what: str) -> str | None:
    """A precondition: `None` if all values are at least `least`, else `WHAT 0.71 < 0.9`."""
    lowest = np.min(values)
    return None if lowest >= least else f"{what} {_apart(lowest, least)} < {least:g}"


def too_high(values: ArrayLike, most: float, what: str) -> str | None:
    """A precondition: `None` if all values are at most `most`, else `WHAT 0.71 > 0.5`."""
    highest = np.max(values)
    return None if highest <= most else f"{what} {_apart(highest, most)} > {most:g}"


def _apart(value: float, limit: float) -> str:
    """A value with two decimals, or as many more as tell it from the limit."""
    for decimals in range(2, 7):
        text = f"{value:.{decimals}f}"
        if np.sign(float(text) - limit) == np.sign(value - limit) or np.isnan(value):
            return text
    return str(float(value))


def given(precondition: str | None, differences: Mapping[str, ArrayLike]) -> dict[str, tuple]:
    """Differences of several claims under one precondition, as `judge` returns them."""
    return {name: (values, precondition) for name, values in differences.items()}


def tabulate(rows: Iterable[Mapping[str, Any]], note: str = "") -> str:
    """A table from rows `{heading: cell}`, with a note below.

    An array over seeds is shown as its mean ± half of the 95 % interval, which the note then says;
    anything else as it prints. The headings are those of the first row.
    """
    rows = list(rows)
    cells = [[_cell(value) for value in row.values()] for row in rows]
    means = any(_is_sample(value) for row in rows for value in row.values())
    notes = [*([note] if note else []), *(["mean ± half of the 95 % interval over seeds"] * means)]
    return "\n".join([aligned(list(rows[0]), cells), *(["; ".join(notes)] if notes else [])])


def _is_sample(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 1


def _cell(value: Any) -> str:
    return plus_minus(value) if _is_sample(value) else str(value)
