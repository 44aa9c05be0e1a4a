"""Finished runs as arrays: what experiments record. Numpy only."""

import numpy as np


def stacked(runs, *names):
    """`{name: [seeds, times, ...]}` of the runs' records, and `step`: [times] of the records that hold the first name (all without one).

    nan where a run ended early or did not measure at that step.
    """
    histories = [{record["step"]: record for record in run.records() if set(names[:1]) <= set(record)} for run in runs]
    steps = sorted({step for history in histories for step in history})
    arrays = {"step": np.array(steps)}
    for name in names:
        shape = next(np.shape(record[name]) for history in histories for record in history.values() if name in record)
        nothing = np.full(shape, np.nan)
        arrays[name] = np.array([[history.get(step, {}).get(name, nothing) for step in steps] for history in histories], float)
    return arrays


def pooled_windows(run, length):
    """Training batches in every window of `length` consecutive steps: mean loss [windows] and m-coherence [windows].

    Numerator and denominator of alpha are averaged over the window, then divided: the mean of ratios would be biased. m is the
    batch size. Window t starts at step t.
    """
    tracked = run.load("batches")
    m = run.config["batch_size"]
    windows = {name: _moving_mean(values.astype(np.float64), length) for name, values in tracked.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        return windows["loss"], m * windows["squared_norm_of_mean"] / windows["mean_squared_norm"]


def at_loss_levels(run, levels, length):
    """m-coherence of the training batches where their loss first falls to `levels` x the initial training loss: [levels].

    Pooled over the first window of `length` steps whose mean loss is no higher; nan where the run never gets there.
    """
    initial = run.records()[0]["train_loss"]
    loss, coherence = pooled_windows(run, length)
    found = []
    for level in levels:
        below = np.flatnonzero(loss <= level * initial)
        found.append(coherence[below[0]] if below.size else np.nan)
    return np.array(found)


def _moving_mean(values, length):
    """The mean of every `length` consecutive values; a cumulative sum would spread one nan over all that follow."""
    if len(values) < length:
        return np.empty(0)
    return np.lib.stride_tricks.sliding_window_view(values, length).mean(-1)
