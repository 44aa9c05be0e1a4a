"""Which runs belong together: the same settings with different seeds are one arm."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from coherence.lab import runs

from .records import kinds, last
from .settings import differences, flat


class Arm:
    """Runs of the same settings, one a seed, and their records (read once)."""

    def __init__(self, name: str, members: Sequence[runs.Run]):
        self.name, self.runs = name, sorted(members, key=lambda run: run.seed)

    def __repr__(self) -> str:
        return f"Arm({self.name!r}, seeds={self.seeds})"

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    @property
    def config(self) -> dict:
        return self.runs[0].config

    @cached_property
    def histories(self) -> list[list[dict]]:
        """The records of every run."""
        return [run.records() for run in self.runs]

    @cached_property
    def _kinds(self) -> dict[str, str]:
        return kinds([record for history in self.histories for record in history], self.axes)

    @property
    def axes(self) -> dict[str, list[str]]:
        """What the axes of recorded values are; see `Run.axes`."""
        return {name: axes for run in self.runs for name, axes in run.axes.items()}

    def quantities(self, *which: str) -> list[str]:
        """Names of what any of the runs recorded, of some kinds."""
        return [name for name, kind in self._kinds.items() if kind in which]

    def finals(self, name: str) -> dict[int, Any]:
        """`{seed: value}` of the last record that has a quantity; seeds that never recorded it are not in it."""
        values = {run.seed: last(history, name) for run, history in zip(self.runs, self.histories)}
        return {seed: value[1] for seed, value in values.items() if value}


def found(paths: Iterable[str | Path]) -> list[runs.Run]:
    """The runs in some folders and below, each once.

    Raises:
        FileNotFoundError: one of the folders holds none.
    """
    there: dict[Path, runs.Run] = {}
    for path in map(Path, paths):
        inside = runs.find(path) if path.is_dir() else []
        if not inside:
            raise FileNotFoundError(
                f"{path} holds no run. Runs go to {runs.root()}/EXPERIMENT/PRESET/ARM/seed=K."
            )
        there |= {run.path.resolve(): run for run in inside}
    return list(there.values())


def arms(paths: Iterable[str | Path]) -> list[Arm]:
    """The runs in some folders, grouped by their settings; named by what tells their folders apart, else by the settings that differ."""
    groups: dict[str, list[runs.Run]] = {}
    for run in found(paths):
        groups.setdefault(json.dumps(run.config, sort_keys=True), []).append(run)
    members = list(groups.values())
    names = _folder_names([_home(group) for group in members])
    if len(set(names)) < len(names):
        settings = [flat(group[0].config) for group in members]
        names = [
            " ".join(f"{key}={one[key]}" for key in differences(settings) if key in one)
            for one in settings
        ]
    return [Arm(name, group) for name, group in zip(names, members)]


def _home(group: list[runs.Run]) -> Path:
    """The folder that holds an arm's seeds."""
    parents = [run.path.resolve() for run in group]
    parents = [path.parent if path.name.startswith("seed=") else path for path in parents]
    return Path(os.path.commonpath(parents))


def _folder_names(folders: list[Path]) -> list[str]:
    if len(folders) == 1:
        return [folders[0].name]
    shared = Path(os.path.commonpath(folders))
    return [str(folder.relative_to(shared)) for folder in folders]
