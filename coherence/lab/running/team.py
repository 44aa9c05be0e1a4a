"""Local processes that train an experiment's runs together, each on its own cores or GPU.

One process imports JAX and forks them (`worker`). Each begins with its share, then takes what
others have left: what nobody writes to and is not finished. So a killed worker's runs are taken up,
and nobody is idle for long. Locks decide who has what; there is no other communication than a line
on a pipe for every few steps, for the one bar.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias

from coherence.lab.experiment import Experiment, prepare
from coherence.lab.grid import Bar, Grid, Unit
from coherence.lab.training.signals import leave

from .worker import CORES

GRACE = 60.0
"""Seconds a worker has for its last steps and a checkpoint before it is killed."""
ASKED_TO_END = 128 + signal.SIGTERM  # the status of one that wrote a checkpoint and ended
FORKS = sys.platform == "linux"
"""Whether one process imports for all workers: elsewhere a library's threads may not bear a fork.
"""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def train_by_workers(
    experiment: Experiment, settings: Any, folder: Path, command: Sequence[str], count: int
) -> None:
    """Train what is missing with so many processes; returns when all of them have ended.

    Args:
        experiment, settings, folder: as for `perform`.
        command: the arguments from which a worker reads the same settings (`arguments.read`).
        count: how many processes.

    Raises:
        ValueError: more workers than GPUs.
        RuntimeError: an error ended a worker, and with it the others; its words are the message.
    """
    places = dict(enumerate(placements(count, os.environ), start=1))
    grid = Grid(experiment.grid(settings), settings.seeds, folder)
    if all(map(grid.is_done, grid.units())):
        return
    parts = [places] if FORKS else [{number: place} for number, place in places.items()]
    total, team = sum(map(grid.steps, grid.units())), list[_Workers]()
    ends: _Ends = queue.SimpleQueue()
    with _sigterm_ends():
        try:
            for part in parts:
                words = [str(experiment.path), str(count), json.dumps(part), *command]
                team.append(_Workers(words, part, ends))
            prepare(experiment, settings, folder)
            with Bar(experiment.name, total, leave=False) as bar:
                progress = _Progress(grid, bar)
                for workers in team:
                    workers.begin(progress)
                # The workers take a core and a second to import JAX. Meanwhile this process imports
                # what it needs afterwards, for the figure and for what is said of the networks.
                importlib.import_module("coherence.lab.report.drawing")
                experiment.scale(grid.arms)
                _wait(team, ends, bar)
        finally:
            _end(team)


class _Workers:
    """A process that forks workers, and what it and they say.

    How a worker ended is put into `ends` as (this, its number, its status), and last how the
    process did, as number 0: then none of them runs any more. What goes wrong in reading them is
    put there, too, as number 0 with the error.
    """

    def __init__(self, words: list[str], places: Mapping[int, Mapping[str, str]], ends: _Ends):
        if not os.path.exists(sys.executable):
            raise FileNotFoundError(
                f"there is no {sys.executable} on {socket.gethostname()}, with which to start "
                "workers: start this with a Python that is there, or without --workers."
            )
        self.count = len(places)
        self.processes: dict[int, int] = {}
        """By the number of a worker."""
        self._errors: dict[int, str] = {}
        self._ends = ends
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        place = next(iter(places.values()))  # the one of the fewest cores
        messages, channel = os.pipe()  # stdout is for what an experiment prints
        self._messages: IO[bytes] = os.fdopen(messages, "rb")
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "coherence.lab.running.worker", str(channel), *words],
                stdin=subprocess.PIPE,
                stderr=self._stderr,
                pass_fds=(channel,),
                env={**os.environ, **{name: place[name] for name in _THREADS if name in place}},
                start_new_session=True,  # Ctrl-C is for this process, which then asks the others
            )
        finally:
            os.close(channel)
        self._reader: threading.Thread | None = None

    def begin(self, progress: _Progress) -> None:
        """Let the workers train."""
        self._reader = threading.Thread(target=self._read, args=(progress,), daemon=True)
        self._reader.start()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as line:
            line.write(b"\n")

    def _read(self, progress: _Progress) -> None:
        try:
            with self._messages as lines:
                for line in lines:
                    self._take(json.loads(line), progress)
        except Exception as error:  # as of a bar that is shown to nobody any more
            self._ends.put((self, 0, error))
        else:
            self._ends.put((self, 0, self._process.wait()))

    def _take(self, message: dict[str, Any], progress: _Progress) -> None:
        number = message.pop("worker")
        if "process" in message:
            self.processes[number] = message["process"]
        elif "error" in message:
            self._errors[number] = message["error"]
        elif "status" in message:
            self._ends.put((self, number, message["status"]))
        else:
            progress.take(number, message)

    def last_words(self, number: int) -> str:
        """The error that ended a worker, or the last line on stderr."""
        if number in self._errors:
            return self._errors[number]
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("coherence: ") if lines else "it said nothing"

    def signal(self, number: int) -> None:
        """Send a signal to all of them."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def wait(self, seconds: float) -> None:
        """Until all have ended, but no longer than that."""
        deadline = time.monotonic() + seconds
        if self._reader is not None:
            self._reader.join(seconds)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))

    def end(self) -> None:
        """Kill who is left."""
        self.signal(signal.SIGKILL)
        self.wait(GRACE)
        for file in (self._process.stdin, self._messages, self._stderr):
            assert file is not None
            file.close()


_Ends: TypeAlias = "queue.SimpleQueue[tuple[_Workers, int, int | Exception]]"


class _Progress:
    """The steps that are done, from what all workers say; runs that were done before count."""

    def __init__(self, grid: Grid, bar: Bar):
        self._bar = bar
        self._lock = threading.Lock()
        self._steps: dict[tuple[str, int], int] = {}
        for unit in grid.units():
            for seed in unit.seeds:
                alone = Unit(unit.arm, (seed,))
                if grid.is_done(alone):
                    self._steps[unit.arm, seed] = grid.steps(alone)
        bar.come_to(sum(self._steps.values()))

    def take(self, worker: int, message: Mapping[str, Any]) -> None:
        with self._lock:
            if "line" in message:
                self._bar.say(message["line"])
                return
            # A unit's steps are noted with its first run. Whoever resumes it counts anew.
            for seed in message["seeds"]:
                self._steps[message["arm"], seed] = 0
            self._steps[message["arm"], message["seeds"][0]] = message["steps"]
            self._bar.begin(message["arm"])
            self._bar.come_to(sum(self._steps.values()))


def _wait(team: Sequence[_Workers], ends: _Ends, bar: Bar) -> None:
    """Until all have ended.

    Raises:
        RuntimeError: an error ended one.
        Exception: their messages could not be read or shown.
    """
    running, parts = sum(workers.count for workers in team), len(team)
    while parts:
        workers, number, status = ends.get()
        if isinstance(status, Exception):
            raise status
        running -= bool(number)
        parts -= not number
        name = f"worker {number}" if number else "the process of the workers"
        if status < 0 or status == ASKED_TO_END:
            others = running if number else parts
            heirs = "the others take up" if others else "this process takes up"
            bar.say(f"{name} was killed (status {status}); {heirs} what it has left")
        elif status:
            raise RuntimeError(f"{name}: {workers.last_words(number)}")


def _end(team: Sequence[_Workers]) -> None:
    """Ask all for a checkpoint and their end, wait for it, and kill who takes too long."""
    for workers in team:
        workers.signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    try:
        for workers in team:
            workers.wait(max(0.0, deadline - time.monotonic()))
    finally:  # also at a second Ctrl-C
        for workers in team:
            workers.end()


@contextlib.contextmanager
def _sigterm_ends() -> Iterator[None]:
    """A context in which SIGTERM ends this process as Ctrl-C does: after the workers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    leaving = lambda *_: leave("the workers write checkpoints and end")
    before = signal.signal(signal.SIGTERM, leaving)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def placements(count: int, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """What each worker's environment says of where it computes: a GPU each, else cores.

    Raises:
        ValueError: fewer GPUs than workers.
    """
    gpus = _gpus(environment)
    if gpus and count > len(gpus):
        raise ValueError(
            f"--workers {count}: there {'is' if len(gpus) == 1 else 'are'} {len(gpus)} GPU"
            f"{'s' * (len(gpus) > 1)}, and each worker takes one. Ask for at most as many, or set "
            "JAX_PLATFORMS=cpu."
        )
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[:count]]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if not cores:
        return [{} for _ in range(count)]
    parts = [cores[i * len(cores) // count : (i + 1) * len(cores) // count] for i in range(count)]
    parts = [part or [cores[i % len(cores)]] for i, part in enumerate(parts)]
    return [
        {CORES: ",".join(map(str, part))}
        | {name: str(len(part)) for name in _THREADS if name not in environment}
        for part in parts
    ]


def _gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that JAX would see, as `CUDA_VISIBLE_DEVICES` names them."""
    if "cpu" in environment.get("JAX_PLATFORMS", "").split(",")[:1]:
        return []
    if "CUDA_VISIBLE_DEVICES" in environment:
        named = environment["CUDA_VISIBLE_DEVICES"].split(",")
        return [gpu.strip() for gpu in named if gpu.strip() not in ("", "-1")]
    devices = Path("/dev").glob("nvidia*")
    return sorted(
        match[1] for path in devices if (match := re.fullmatch(r"nvidia(\d+)", path.name))
    )
