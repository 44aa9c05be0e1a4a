"""Workers: processes that train an experiment's runs together (`team`).

    python -m coherence.lab.running.worker CHANNEL EXPERIMENT_FILE COUNT PLACES [ARGUMENT ...]

The first process imports what training needs, waits for a line on stdin and forks a worker for each
place: `{number: environment}` as JSON. It does not compute, so JAX has no threads yet that a fork
would lose. A worker trains its share, then what others have left: what nobody writes to and is not
finished. All talk on the open file of number CHANNEL, a JSON object a line: which process a worker
is, its progress, the error that ended it, its status. Stdout is for what an experiment prints.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
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
MOST_WORDS = 2000  # characters of an error: what is written at once, another worker cannot divide
NEEDED = (
    "coherence.lab.training.loop",
    "coherence.lab.tasks.classification",
    "coherence.lab.models.dense",
    "coherence.lab.optimizers",
    "coherence.optim.aggregation",
)
"""What most experiments import when they train."""

Say = Callable[[Mapping[str, Any]], None]


def main(words: Sequence[str]) -> None:
    """The first process; in each worker, where the fork returns 0, that worker."""
    channel, path, count, places, *command = words
    say = functools.partial(_say, int(channel))
    try:
        experiment = collect(load(path))
        asked = read(experiment, command)
        grid = Grid(experiment.grid(asked.settings), asked.settings.seeds, Path(asked.folder))
        for module in NEEDED:
            importlib.import_module(module)
    except (ValueError, FileNotFoundError, RuntimeError, OSError) as error:
        print(f"coherence: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if not sys.stdin.readline():  # who started this process is gone
        return
    parent, numbers = os.getpid(), dict[int, int]()
    if sys.stdout is not None:  # as it is where the caller closed it
        sys.stdout.flush()  # else each worker prints what waits once more
    for name, place in json.loads(places).items():
        number = int(name)
        process = os.fork()
        if not process:
            os.environ.update(place)
            if CORES in place:  # before JAX counts them
                os.sched_setaffinity(0, [int(core) for core in place[CORES].split(",")])
            return work(grid, in_turn(grid, number, int(count)), parent, number, say)
        numbers[process] = number
        say({"worker": number, "process": process})
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is for the workers, who have it too
    while numbers:
        process, status = os.wait()
        say({"worker": numbers.pop(process), "status": os.waitstatus_to_exitcode(status)})


def work(grid: Grid, units: Sequence[Unit], parent: int, number: int, tell: Say) -> None:
    """A worker's whole life.

    Raises:
        SystemExit: an error ended it, which it has said.
    """

    def say(what: Mapping[str, Any]) -> None:
        tell({"worker": number, **what})

    try:
        train_with_others(grid, units, parent, say)
    except (ValueError, FileNotFoundError, RuntimeError, OSError) as error:
        say({"error": str(error)[:MOST_WORDS]})
        raise SystemExit(2) from None
    except Exception as error:
        say({"error": f"{type(error).__name__}: {error}"[:MOST_WORDS]})
        raise


def in_turn(grid: Grid, number: int, count: int) -> list[Unit]:
    """All units: the worker's own share, then the others', each from its end."""
    shares = shares_of(grid, count)
    others = [shares[(number - 1 + i) % count] for i in range(1, count)]
    return [*shares[number - 1], *(unit for share in others for unit in reversed(share))]


def train_with_others(grid: Grid, units: Sequence[Unit], parent: int, say: Say) -> None:
    """Train every unit that nobody else trains, until all are done or the parent is gone."""
    pending = [unit for unit in units if not grid.is_done(unit)]
    while pending:
        for unit in pending:
            try:
                if not grid.is_done(unit):
                    _train(grid, unit, say)
            except RunBusy:
                continue
        before, pending = pending, [unit for unit in pending if not grid.is_done(unit)]
        if pending == before:  # others are at all of them
            time.sleep(POLL)
            if os.getppid() != parent:
                return


def _train(grid: Grid, unit: Unit, say: Say) -> None:
    steps, last = 0, 0.0

    def progress(more: int) -> None:
        nonlocal steps, last
        steps += more
        if time.monotonic() - last >= 1 / MOST_LINES or steps == grid.steps(unit):
            last = time.monotonic()
            say({"arm": unit.arm, "seeds": unit.seeds, "steps": steps})

    grid.train(unit, progress, lambda line: say({"line": line}))


def _say(channel: int, what: Mapping[str, Any]) -> None:
    try:
        os.write(channel, f"{json.dumps(what)}\n".encode())  # at once: others write to it, too
    except BrokenPipeError:  # who started this worker is gone: a checkpoint, and the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), channel)
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1:])
