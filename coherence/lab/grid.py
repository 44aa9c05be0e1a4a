"""The runs of an experiment: which there are, what is trained together, and training them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import runs
from .progress import meter
from .settings import plain

Progress = Callable[[int], object]
Say = Callable[[str], object]
BRIEF = 500  # steps that are done before it is known what their probes will cost


class Unit(NamedTuple):
    """Runs of one arm that one process trains together."""

    arm: str
    seeds: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Devices:
    """What each run is computed on."""

    count: int | None = 1
    """Among how many its batches are divided; `None`: all that there are."""
    divide_above: int | None = None
    """Parameters of more numbers are divided among them, too; `None`: no parameters are."""
    hosts: bool = False
    """Whether the devices are those of several processes, which train the same runs together."""


ONE_DEVICE = Devices()


@dataclasses.dataclass(frozen=True)
class Grid:
    """Every arm with every seed, each a run in `folder/ARM/seed=K`."""

    arms: Mapping[str, Any]
    seeds: int
    folder: Path
    devices: Devices = ONE_DEVICE

    def units(self) -> list[Unit]:
        """The arms in order, each with all of its seeds."""
        return [Unit(arm, tuple(range(self.seeds))) for arm in self.arms]

    def place(self, arm: str, seed: int) -> Path:
        """The folder of a run."""
        return self.folder / arm / f"seed={seed}"

    def is_done(self, unit: Unit) -> bool:
        """Whether all runs of a unit are finished."""
        return all((self.place(unit.arm, seed) / "DONE").exists() for seed in unit.seeds)

    def steps(self, unit: Unit) -> int:
        """Steps of all runs of a unit; what is not trained step by step is one."""
        return len(unit.seeds) * run_steps(self.arms[unit.arm])

    def train(self, unit: Unit, progress: Progress, say: Say) -> list[runs.Run]:
        """The runs of a unit, after what is missing of them has been trained or computed.

        Args:
            unit: which.
            progress: called with the number of steps done since the last call, also those that
                were done before.
            say: called with a line on what probes cost.

        Raises:
            ValueError: a folder holds another run.
            RunBusy: another process writes to one of the runs.
        """
        arm, opened = self.arms[unit.arm], []
        try:
            for seed in unit.seeds:
                place = self.place(unit.arm, seed)
                opened.append(runs.Run.open(place, plain(arm), seed=seed))
            progress(sum(run.done for run in opened) * run_steps(arm))
            # The first of several processes knows what is done.
            if self.devices.hosts or not all(run.done for run in opened):
                _train_missing(arm, opened, self.devices, progress, say)
        finally:
            for run in opened:
                run.close()
        return opened


class Bar:
    """The progress of an experiment, on a terminal or in a log file; a context."""

    def __init__(self, name: str, total: int, leave: bool = True):
        self._name, self._said = name, set[str]()
        self._bar = meter(total, leave)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception) -> None:
        self._bar.close()

    def train(self, grid: Grid, unit: Unit) -> list[runs.Run]:
        """`grid.train(unit)`, shown."""
        self.begin(unit.arm)
        return grid.train(unit, self._bar.update, self.say)

    def begin(self, arm: str) -> None:
        """Name the arm that is being trained."""
        self._bar.set_description(f"{self._name} · {arm}")

    def come_to(self, steps: int) -> None:
        """Show that so many steps are done in all."""
        self._bar.update(steps - self._bar.n)

    def say(self, line: str) -> None:
        """Print a line above, once: most arms' probes cost the same."""
        if line not in self._said:
            self._bar.write(line, file=sys.stderr)
        self._said.add(line)


def run_steps(arm: Any) -> int:
    """Steps of a run with these settings; 1 of what is not trained step by step."""
    return 1 if is_computed(arm) else arm.steps


def _train_missing(
    arm: Any, opened: Sequence[runs.Run], devices: Devices, progress: Progress, say: Say
) -> None:
    try:
        if is_computed(arm):
            _compute(arm, opened, progress)
        else:
            _train(arm, opened, devices, progress, say)
    except runs.RunBusy:  # another process has taken over
        raise
    except Exception as error:
        for run in opened:
            if not run.done:
                run.fail(error)
        raise


def is_computed(arm: Any) -> bool:
    """Whether the runs of an arm are not trained step by step."""
    return hasattr(arm, "compute")


def _train(
    arm: Any, seeds: Sequence[runs.Run], devices: Devices, progress: Progress, say: Say
) -> None:
    from .training import compilation_cache
    from .training.devices import LargestAxis, mesh_of
    from .training.loop import train

    compilation_cache.switch_on()
    # One that is finished comes along, for its data must be those of the seeds that are added.
    pending = [*[run for run in seeds if run.done][-1:], *[run for run in seeds if not run.done]]
    if devices.hosts:
        pending = list(seeds)
    above = devices.divide_above
    train(
        [arm.build(run.seed) for run in pending],
        pending,
        steps=arm.steps,
        batch_size=arm.batch_size,
        schedule=arm.schedule(),
        mesh=mesh_of(devices.count),
        shard=None if above is None else LargestAxis(above),
        progress=progress,
        say=say if arm.steps > BRIEF else None,
    )


def _compute(arm: Any, seeds: Sequence[runs.Run], progress: Progress) -> None:
    from .training import compilation_cache

    compilation_cache.switch_on()
    for run in seeds:
        if not run.done:
            arrays = arm.compute(run.seed)
            run.save("computed", **arrays)
            run.truncate(-1)  # what a killed process left
            numbers = {name: float(value) for name, value in arrays.items() if np.ndim(value) == 0}
            run.append({"step": 0, **numbers})
            run.finish()
            progress(1)
