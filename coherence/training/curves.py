"""Finished runs as arrays: what experiments record. Numpy only."""

import numpy as np


def stacked(runs, *names):
    """`{name: [seeds, times, ...]}` of the runs' records, and `step`: [times]. Runs that ended early are padded with nan."""
    histories = [run.records() for run in runs]
    longest = max(histories, key=len)
    arrays = {"step": np.array([record["step"] for record in longest])}
    for name in names:
        shape = np.shape(longest[0][name])
        arrays[name] = np.full((len(runs), len(longest), *shape), np.nan)
        for i, history in enumerate(histories):
            if history:
                arrays[name][i, : len(history)] = [record[name] for record in history]
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
