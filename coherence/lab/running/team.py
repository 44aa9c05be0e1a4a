"""Local processes that train an experiment's runs together, each on its own cores or GPU.

Each begins with its share, then takes what others have left: what nobody writes to and is not
finished. So a killed worker's runs are taken up, and nobody is idle for long. Locks decide who has
what; there is no other communication than a line on a pipe for every few steps, for the one bar.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from coherence.lab.experiment import Experiment, prepare
from coherence.lab.grid import Bar, Grid, Unit
from coherence.lab.training.signals import leave

from .worker import CORES

GRACE = 60.0
"""Seconds a worker has for its last steps and a checkpoint before it is killed."""
ASKED_TO_END = 128 + signal.SIGTERM  # the status of one that wrote a checkpoint and ended
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
    places = placements(count, os.environ)
    grid = prepare(experiment, settings, folder)
    if all(map(grid.is_done, grid.units())):
        return
    total, team = sum(map(grid.steps, grid.units())), list[_Worker]()
    with Bar(experiment.name, total, leave=False) as bar, _sigterm_ends():
        progress = _Progress(grid, bar)
        try:
            for number, place in enumerate(places, start=1):
                words = [str(experiment.path), str(number), str(count), *command]
                team.append(_Worker(number, words, place, progress))
            _wait(team, bar)
        finally:
            _end(team)


class _Worker:
    """A process, the lines it says and what it says of errors."""

    def __init__(self, number: int, words: list[str], place: dict, progress: _Progress):
        self.number = number
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `_end`
        self.process = subprocess.Popen(
            [sys.executable, "-m", "coherence.lab.running.worker", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, **place},
            start_new_session=True,  # Ctrl-C is for the first process, which then asks the others
        )
        self.reader = threading.Thread(target=self._read, args=(progress,), daemon=True)
        self.reader.start()

    def _read(self, progress: _Progress) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                progress.take(self.number, json.loads(line))

    def last_words(self) -> str:
        """The last line on its stderr."""
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("coherence: ") if lines else "it said nothing"


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


def _wait(team: Sequence[_Worker], bar: Bar) -> None:
    """Until all have ended.

    Raises:
        RuntimeError: an error ended one.
    """
    running = list(team)
    while running:
        time.sleep(0.05)
        for worker in [worker for worker in running if worker.process.poll() is not None]:
            running.remove(worker)
            worker.reader.join()
            status = worker.process.returncode
            if status < 0 or status == ASKED_TO_END:
                heirs = "the others take up" if running else "this process takes up"
                bar.say(
                    f"worker {worker.number} was killed (status {status}); {heirs} what it has left"
                )
            elif status:
                raise RuntimeError(f"worker {worker.number}: {worker.last_words()}")


def _end(team: Sequence[_Worker]) -> None:
    """Ask all for a checkpoint and their end, wait for it, and kill who takes too long."""
    for worker in team:
        worker.process.terminate()
    deadline = time.monotonic() + GRACE
    try:
        for worker in team:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, deadline - time.monotonic()))
    finally:  # also at a second Ctrl-C
        for worker in team:
            worker.process.kill()
            worker.process.wait()
            worker.errors.close()


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
