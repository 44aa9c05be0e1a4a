"""A worker: one of several processes that train an experiment's runs together (`team`).

    python -m coherence.lab.running.worker EXPERIMENT_FILE NUMBER COUNT [ARGUMENT ...]

It trains its share, then what others have left: what nobody writes to and is not finished. Progress
goes to stdout, a JSON object a line; errors to stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coherence.lab.experiment import collect, load
from coherence.lab.grid import Grid, Unit
from coherence.lab.runs import RunBusy

from .arguments import read
from .shares import shares_of

CORES = "COHERENCE_WORKER_CORES"
"""The variable that names the cores of this worker, `0,1`."""
POLL = 0.2
"""Seconds between two looks at what others write to."""
MOST_LINES = 10  # a second


def main(words: Sequence[str]) -> None:
    path, number, count, *command = words
    parent = os.getppid()
    if CORES in os.environ:  # before JAX counts them
        os.sched_setaffinity(0, [int(core) for core in os.environ[CORES].split(",")])
    try:
        experiment = collect(load(path))
        asked = read(experiment, command)
        grid = Grid(experiment.grid(asked.settings), asked.settings.seeds, Path(asked.folder))
        train_with_others(grid, in_turn(grid, int(number), int(count)), parent)
    except (ValueError, FileNotFoundError, RuntimeError, OSError) as error:
        print(f"coherence: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def in_turn(grid: Grid, number: int, count: int) -> list[Unit]:
    """All units: the worker's own share, then the others', each from its end."""
    shares = shares_of(grid, count)
    others = [shares[(number - 1 + i) % count] for i in range(1, count)]
    return [*shares[number - 1], *(unit for share in others for unit in reversed(share))]


def train_with_others(grid: Grid, units: Sequence[Unit], parent: int) -> None:
    """Train every unit that nobody else trains, until all are done or the parent is gone."""
    pending = [unit for unit in units if not grid.is_done(unit)]
    while pending:
        for unit in pending:
            try:
                if not grid.is_done(unit):
                    _train(grid, unit)
            except RunBusy:
                continue
        before, pending = pending, [unit for unit in pending if not grid.is_done(unit)]
        if pending == before:  # others are at all of them
            time.sleep(POLL)
            if os.getppid() != parent:
                return


def _train(grid: Grid, unit: Unit) -> None:
    steps, last = 0, 0.0

    def progress(more: int) -> None:
        nonlocal steps, last
        steps += more
        if time.monotonic() - last >= 1 / MOST_LINES or steps == grid.steps(unit):
            last = time.monotonic()
            _say({"arm": unit.arm, "seeds": unit.seeds, "steps": steps})

    grid.train(unit, progress, lambda line: _say({"line": line}))


def _say(what: Mapping[str, Any]) -> None:
    try:
        print(json.dumps(what), flush=True)
    except BrokenPipeError:  # who started this worker is gone: a checkpoint, and the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1:])
