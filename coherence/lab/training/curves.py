"""Finished runs as arrays: what experiments record. Numpy only."""

import numpy as np


def stacked(runs, *names):
    """`{name: [seeds, times, ...]}` of the runs' records, and `step`: [times] of the records that hold the first name (all without one).

    nan where a run ended early or did not measure at that step.
    """
    histories = [
        {record["step"]: record for record in run.records() if set(names[:1]) <= set(record)}
        for run in runs
    ]
    steps = sorted({step for history in histories for step in history})
    arrays = {"step": np.array(steps)}
    for name in names:
        shape = next(
            np.shape(record[name])
            for history in histories
            for record in history.values()
            if name in record
        )
        nothing = np.full(shape, np.nan)
        arrays[name] = np.array(
            [[history.get(step, {}).get(name, nothing) for step in steps] for history in histories],
            float,
        )
    return arrays


def first_at(curve, values, levels, *, falling=False):
    """What was measured where a curve first reached each level, interpolated between the two measurements around it.

    nan where it never did; the first value where it began there.

    Args:
        curve: [times], which has to rise to the levels or, if `falling`, to fall to them.
        values: [times], measured at the same times: another curve, or the steps themselves.
        levels: a number, or several on one axis; the result has their shape.
    """
    curve, sign = np.asarray(curve, float), -1 if falling else 1
    found = []
    for level in np.ravel(levels):
        there = np.flatnonzero(sign * curve >= sign * level)
        pair = [max(there[0] - 1, 0), there[0]] if there.size else []
        found.append(
            np.interp(sign * level, sign * curve[pair], np.asarray(values, float)[pair])
            if pair
            else np.nan
        )
    return np.reshape(found, np.shape(levels))[()]


def pooled_windows(run, length):
    """Training batches in every window of `length` consecutive steps: mean loss [windows] and m-coherence [windows].

    Numerator and denominator of alpha are averaged over the window, then divided: the mean of
    ratios would be biased. m is the batch size. Window t starts at step t.
    """
    tracked = run.load("batches")
    m = run.config["batch_size"]
    windows = {
        name: _moving_mean(values.astype(np.float64), length) for name, values in tracked.items()
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        return windows["loss"], m * windows["squared_norm_of_mean"] / windows["mean_squared_norm"]


def at_loss_levels(run, levels, length):
    """m-coherence of the training batches where their loss first falls to `levels` x the initial training loss: [levels].

    Pooled over the first window of `length` steps whose mean loss is no higher; nan where the run
    never gets there.
    """
    return at_losses(run, run.records()[0]["train_loss"] * np.asarray(levels), length)


def at_losses(run, losses, length):
    """m-coherence of the training batches where their loss first falls to each of `losses` (in its own unit): [losses]. As above."""
    loss, coherence = pooled_windows(run, length)
    below = [np.flatnonzero(loss <= level) for level in losses]
    return np.array([coherence[there[0]] if there.size else np.nan for there in below])


def _moving_mean(values, length):
    """The mean of every `length` consecutive values; a cumulative sum would spread one nan over all that follow."""
    if len(values) < length:
        return np.empty(0)
    return np.lib.stride_tricks.sliding_window_view(values, length).mean(-1)
