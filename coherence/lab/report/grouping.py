"""Arms: runs of the same settings with different seeds, their state, and the settings that differ.

Settings are read as recorded. No settings class is imported, so any run can be read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from coherence.lab import runs
from coherence.lab.suggestions import suggestion

from .records import diverged, kinds, last

ABSENT = "absent"


class Arm:
    """Runs of the same settings, one per seed, and their records (read once).

    >>> Arm("SGD", []).seeds
    []
    """

    def __init__(self, name: str, members: Sequence[runs.Run]):
        self.name = name
        self.runs = sorted(members, key=lambda run: run.seed)

    def __repr__(self) -> str:
        return f"Arm({self.name!r}, seeds={self.seeds})"

    @property
    def seeds(self) -> list[int]:
        """The seeds, in order."""
        return [run.seed for run in self.runs]

    @property
    def config(self) -> dict[str, Any]:
        """The settings, as recorded."""
        return self.runs[0].config

    @cached_property
    def histories(self) -> list[list[dict]]:
        """The records of every run."""
        return [run.records() for run in self.runs]

    @property
    def axes(self) -> dict[str, list[str]]:
        """What the axes of recorded values are; see `Run.axes`."""
        return {name: axes for run in self.runs for name, axes in run.axes.items()}

    @cached_property
    def _kinds(self) -> dict[str, str]:
        return kinds([record for history in self.histories for record in history], self.axes)

    def quantities(self, *which: str) -> list[str]:
        """Names of what any of the runs recorded, of some kinds."""
        return [name for name, kind in self._kinds.items() if kind in which]

    def finals(self, name: str) -> dict[int, Any]:
        """`{seed: value}` of the last record that has a quantity, without seeds that have none."""
        values = {run.seed: last(history, name) for run, history in zip(self.runs, self.histories)}
        return {seed: value[1] for seed, value in values.items() if value}


def find(
    paths: Iterable[str | Path],
    failed: list[Exception] | None = None,
    where: Sequence[str] = (),
) -> list[runs.Run]:
    """The runs in some folders and below, each once.

    Args:
        paths: the folders.
        where: conditions that all must hold, as `noise.fraction=0.5`, `noise=0.5`, `seed=0`.
        failed: if given, errors of runs that cannot be read are put here.

    Raises:
        FileNotFoundError: one of the folders holds none.
        ValueError: a condition is none, or holds for no run.
        OSError, ValueError: a run cannot be read, and there is no `failed`.
    """
    members: dict[Path, runs.Run] = {}
    folders = list(map(Path, paths))
    several = len(folders) > 1
    for path in folders:
        inside = runs.find(path, failed=failed) if path.is_dir() else []
        if not inside and not failed:
            raise FileNotFoundError(
                f"{path} holds no run. Runs go to {runs.root()}/EXPERIMENT/PRESET/ARM/seed=K."
                f"{_suggested_folder(path)}"
            )
        members |= {run.path.resolve() if several else run.path: run for run in inside}
    return chosen(list(members.values()), where)


def _suggested_folder(path: Path) -> str:
    """` Did you mean runs/toy/cpu?` where a part of a path is mistyped and a folder is close."""
    while not path.parent.is_dir() and path.parent != path:
        path = path.parent
    if path.exists():
        return ""
    beside = [other.name for other in path.parent.iterdir() if other.is_dir()]
    return suggestion(path.name, beside, f"{path.parent}{os.sep}")


def chosen(members: list[runs.Run], where: Sequence[str]) -> list[runs.Run]:
    """The runs for which all conditions hold, `NAME=VALUE` each.

    A name may be the beginning or the end of a setting's dotted one, and is then all of these.

    Raises:
        ValueError: a condition is none, no run has such a setting, or none that value.
    """
    every = members
    for condition in where:
        name, equals, value = condition.partition("=")
        if not name or not equals:
            raise ValueError(f"--where {condition}: expected NAME=VALUE, such as noise=0.5.")
        of_runs = [_values(run, name) for run in members]
        members = [run for run, has in zip(members, of_runs) if any(_same(x, value) for x in has)]
        if not members:
            have = sorted({x for has in of_runs for x in has}, key=by_size)
            raise ValueError(
                f"--where {condition}: "
                + (
                    f"no run has this value; there is {', '.join(have[:20])}."
                    if have
                    else f"no run has a setting {name}. `coherence show` lists what differs."
                    + suggestion(name, {key for run in every for key in flat(run.config)})
                )
            )
    return members


def _values(run: runs.Run, name: str) -> list[str]:
    """The values of the settings that a name means."""
    if name == "seed":
        return [str(run.seed)]
    dotted = f".{name}."
    return [value for key, value in flat(run.config).items() if dotted in f".{key}."]


def _same(value: str, asked: str) -> bool:
    numbers = is_number(value) and is_number(asked)
    return float(value) == float(asked) if numbers else value == asked


def is_number(text: str) -> bool:
    """Whether a setting's text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def by_size(text: str) -> tuple[bool, float, str]:
    """What settings' texts are sorted by: numbers by size, then words."""
    return (False, float(text), "") if is_number(text) else (True, 0.0, text)


def arms(paths: Iterable[str | Path], where: Sequence[str] = ()) -> list[Arm]:
    """The runs in some folders, grouped by their settings.

    They are named by what tells their folders apart, else by the settings that differ. `where` are
    conditions that choose some of them, as for `find`.

    Raises:
        FileNotFoundError: one of the folders holds none.
        ValueError: two runs of the same settings have the same seed.
    """
    groups: dict[str, dict[int, runs.Run]] = {}
    for run in find(paths, where=where):
        seeds = groups.setdefault(json.dumps(run.config, sort_keys=True), {})
        if run.seed in seeds:
            raise ValueError(
                f"{seeds[run.seed].path} and {run.path} have the same settings and the same seed "
                f"{run.seed}: counted as two, they would narrow every interval. "
                "Name the folders without a copy, or move it elsewhere."
            )
        seeds[run.seed] = run
    members = [list(seeds.values()) for seeds in groups.values()]
    names = _folder_names([_home(group) for group in members])
    if len(set(names)) < len(names):
        settings = [flat(group[0].config) for group in members]
        differing = differences(settings)
        names = [
            " ".join(f"{key}={values[key]}" for key in differing if key in values)
            for values in settings
        ]
    return [Arm(name, group) for name, group in zip(names, members)]


def _home(group: list[runs.Run]) -> Path:
    """The folder that holds an arm's seeds."""
    paths = [run.path.resolve() for run in group]
    parents = [path.parent if path.name.startswith("seed=") else path for path in paths]
    return Path(os.path.commonpath(parents))


def _folder_names(folders: list[Path]) -> list[str]:
    if len(folders) == 1:
        return [folders[0].name]
    shared = Path(os.path.commonpath(folders))
    return [str(folder.relative_to(shared)) for folder in folders]


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings by their dotted names, as text; a choice by its kind.

    Such as `{"model": "FullyConnected", "model.width": "64"}`.
    """
    values = {prefix.rstrip(".") or "kind": config["kind"]} if "kind" in config else {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            values |= flat(value, f"{prefix}{key}.")
        elif key != "kind":
            values[f"{prefix}{key}"] = setting_text(value)
    return values


def differences(settings: Sequence[dict[str, str]]) -> list[str]:
    """The names of flat settings that are not the same in all, in order of appearance."""
    names = dict.fromkeys(name for values in settings for name in values)
    return [name for name in names if len({values.get(name, ABSENT) for values in settings}) > 1]


def setting_text(value: Any) -> str:
    """A setting as it would be typed: `FullyConnected(width=64, depth=3)`, `0.1`, `(1, 2)`."""
    if isinstance(value, dict) and "kind" in value:
        fields = [f"{key}={setting_text(x)}" for key, x in value.items() if key != "kind"]
        return f"{value['kind']}({', '.join(fields)})"
    if isinstance(value, list):
        return f"({', '.join(map(setting_text, value))}{',' * (len(value) == 1)})"
    return repr(value) if isinstance(value, float) else str(value)


def state(run: runs.Run, records: Sequence[dict]) -> str:
    """How far a run came: `done`, or `unfinished, checkpoints at 200, 100`; and if it diverged."""
    checkpoints = ", ".join(map(str, run.checkpoints()))
    if run.done:
        words = "done"
    else:
        words = f"unfinished, {f'checkpoints at {checkpoints}' if checkpoints else 'no checkpoint'}"
    lost = diverged(records)
    if lost is None:
        return words
    return f"{words}, diverged: a loss is nan or infinite from step {lost}"


def duration(run: runs.Run) -> str | None:
    """From the first start to the end, as `1 min 20 s`; None for a run that has not ended.

    Pauses before a resume are in it.
    """
    started, ended = run.manifest.get("created"), run.finished_at
    if not started or not ended:
        return None
    span = datetime.fromisoformat(ended) - datetime.fromisoformat(started)
    if span.total_seconds() < 0:  # the clock was set back
        return None
    resumed = len(run.manifest.get("resumed", []))
    again = f", resumed {resumed} time{'s' * (resumed > 1)}" if resumed else ""
    return _span(span.total_seconds()) + again


def device(run: runs.Run) -> str:
    """What a run was computed on, as far as it was noted."""
    host = run.manifest.get("host", {})
    return str(run.manifest.get("device") or host.get("system", "unknown device"))


def _span(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {rest} s"
    return f"{rest} s" if whole else "less than a second"
