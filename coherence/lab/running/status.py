"""How far an experiment's runs have come, whoever trains them and wherever; without JAX."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from typing import NamedTuple

from coherence.lab.grid import Grid, run_steps
from coherence.lab.report.tables import aligned, json_text
from coherence.lab.runs.locks import STALE, Writer, writer_of

STATES = ("done", "running", "failed", "stopped", "waiting")
MOST_ROWS = 40  # of a table
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class State(NamedTuple):
    """How far one run has come.

    `running`: somebody writes to it. `failed`: an error ended it. `stopped`: it was begun, and its
    process was killed or asked to end. `waiting`: nothing was begun.
    """

    arm: str
    seed: int
    state: str
    writer: Writer | None = None
    """Who writes to it, or was killed doing so."""
    step: int | None = None
    error: str = ""
    """The last line of its `error.log`."""


def states(grid: Grid) -> list[State]:
    """Of every run, in the order of the grid."""
    return [_state(grid, arm, seed) for arm in grid.arms for seed in range(grid.seeds)]


def _state(grid: Grid, arm: str, seed: int) -> State:
    place = grid.place(arm, seed)
    try:
        names = os.listdir(place)
    except FileNotFoundError:
        return State(arm, seed, "waiting")
    if "DONE" in names:
        return State(arm, seed, "done")
    writer = None
    if any(name.startswith(".lock-") for name in names):
        writer = writer_of(place)
    if writer is not None and writer.lives() is not False:
        return State(arm, seed, "running", writer, writer.step)
    steps = [int(match[1]) for match in map(_CHECKPOINT.match, names) if match]
    step = max(steps, default=None)
    if "error.log" in names:
        lines = (place / "error.log").read_text(errors="replace").split("\n")
        last = next(filter(str.strip, reversed(lines)), "")
        return State(arm, seed, "failed", writer, step, last)
    begun = "config.json" in names
    return State(arm, seed, "stopped" if begun else "waiting", writer, step)


def summary(grid: Grid, every: list[State]) -> str:
    """The counts, then what runs, what failed and what was stopped, as text."""
    counts = Counter(state.state for state in every)
    parts = ", ".join(f"{counts[name]:,} {name}" for name in STATES if counts[name])
    paragraphs = [f"{len(every):,} run{'s' * (len(every) > 1)}: {parts}"]
    for name, (header, cells) in _TABLES.items():
        listed = [state for state in every if state.state == name]
        rows = [
            (state.arm, str(state.seed), *cells(state, run_steps(grid.arms[state.arm])))
            for state in listed[:MOST_ROWS]
        ]
        if rows:
            paragraphs.append(aligned((name, "seed", *header), rows))
        if listed[MOST_ROWS:]:
            paragraphs.append(f"and {len(listed) - MOST_ROWS:,} more")
    return "\n\n".join(paragraphs)


def as_json(name: str, grid: Grid, every: list[State]) -> str:
    """The counts and each run, to be read by programs."""
    counts = Counter(state.state for state in every)
    rows = []
    for state in every:
        row = {"arm": state.arm, "seed": state.seed, "state": state.state}
        row |= {"path": str(grid.place(state.arm, state.seed)), "step": state.step}
        row |= {"steps": run_steps(grid.arms[state.arm]), "error": state.error or None}
        row["writer"] = state.writer and vars(state.writer)
        rows.append(row)
    return json_text(
        {
            "experiment": name,
            "folder": str(grid.folder),
            "counts": {state: counts[state] for state in STATES},
            "runs": rows,
        }
    )


def _running(state: State, steps: int) -> tuple[str, ...]:
    writer = state.writer or Writer()
    rate = writer.steps_per_second
    silent = time.time() - writer.seen
    return (
        _progress(state, steps),
        "-" if rate is None else f"{rate:,.1f}",
        writer.host,
        str(writer.pid),
        writer.since,
        f"{silent:.0f} s ago" if abs(silent) <= STALE else f"{silent:,.0f} s ago: dead?",
    )


def _failed(state: State, steps: int) -> tuple[str, ...]:
    return _progress(state, steps), state.error


def _stopped(state: State, steps: int) -> tuple[str, ...]:
    return _progress(state, steps), "" if state.writer is None else f"killed: {state.writer}"


def _progress(state: State, steps: int) -> str:
    return f"{state.step or 0:,} of {steps:,}"


_TABLES = {
    "running": (("step", "steps/s", "host", "process", "since", "sign of life"), _running),
    "failed": (("checkpoint", "last line of its error.log"), _failed),
    "stopped": (("checkpoint", "by"), _stopped),
}
