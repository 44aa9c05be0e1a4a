"""How long an experiment takes: measured for its presets, stored, and scaled to other settings.

>>> import tempfile
>>> from coherence.lab.experiment import collect, load
>>> from coherence.lab.report.gallery import checkout
>>> toy = collect(load(checkout() / "experiments" / "toy.py"))
>>> settings = toy.presets["cpu"]
>>> with tempfile.TemporaryDirectory() as folder:
...     home = Path(folder)
...     (home / FILE).parent.mkdir()
...     store(home, "toy", "cpu", Estimate(90.0, FOLDERS, "2 CPUs, Linux x86_64"))
...     list(stored(home)), expected(home, toy, "cpu", settings).seconds
(['toy'], 90.0)
"""

from __future__ import annotations

import json
import os
import platform
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from coherence.lab.experiment import Experiment
from coherence.lab.grid import Grid
from coherence.lab.progress import duration
from coherence.lab.runs import Run
from coherence.lab.runs.files import write_text

FILE = Path("experiments") / "seconds.json"
"""In a working folder: `{experiment: {preset: Estimate}}`."""
RECORDED = "processor time of run --record"
FOLDERS = "wall time in run folders"


class Estimate(NamedTuple):
    """What a preset took, or settings like it should take."""

    seconds: float
    how: str
    """Such as `processor time of run --record`."""
    machine: str
    """On what it was measured, roughly: `2 CPUs, Linux x86_64`."""

    def __str__(self) -> str:
        return f"about {duration(self.seconds)} ({self.how}, {self.machine})"


def this_machine() -> str:
    """Roughly what this machine is."""
    return _machine({"cpus": os.cpu_count(), "system": platform.platform()})


def _machine(host: dict[str, Any]) -> str:
    """Of a manifest's `host`: `2 CPUs, Linux x86_64`."""
    count, parts = host.get("cpus") or 1, str(host.get("system", "unknown system")).split("-")
    kind = next((part for part in parts if part in ("x86_64", "aarch64", "arm64", "AMD64")), "")
    return f"{count} CPU{'s' * (count > 1)}, {parts[0]} {kind}".rstrip()


def processor_seconds() -> float:
    """Processor time of this process and its ended children so far."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def stored(home: Path) -> dict[str, dict[str, Estimate]]:
    """The measurements of a working folder, by experiment and preset.

    Raises:
        ValueError: the file holds something else.
    """
    path = home / FILE
    if not path.is_file():
        return {}
    try:
        return {
            name: {preset: Estimate(**values) for preset, values in presets.items()}
            for name, presets in json.loads(path.read_text()).items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} holds no measured times ({error}). Delete it; `coherence run NAME --record` "
            "writes it again."
        ) from error


def store(home: Path, experiment: str, preset: str, estimate: Estimate) -> None:
    """Keep what a preset took, in the place of what was there."""
    estimates = stored(home)
    estimates.setdefault(experiment, {})[preset] = estimate
    plain = {
        name: {preset: of_preset._asdict() for preset, of_preset in sorted(presets.items())}
        for name, presets in sorted(estimates.items())
    }
    write_text(home / FILE, json.dumps(plain, indent=1) + "\n")


def expected(home: Path, experiment: Experiment, preset: str, settings: Any) -> Estimate | None:
    """What settings should take: what their preset took, in proportion to steps and seeds.

    `None` where the preset was never measured.
    """
    measured = stored(home).get(experiment.name, {}).get(preset)
    if measured is None:
        return None
    share = _work(experiment, settings) / _work(experiment, experiment.presets[preset])
    return measured._replace(seconds=measured.seconds * share)


def _work(experiment: Experiment, settings: Any) -> float:
    arms = experiment.arms(settings).values()
    return settings.seeds * sum(getattr(arm, "steps", 1) for arm in arms)


def from_folders(grid: Grid) -> Estimate | None:
    """The time in which somebody trained, as the run folders say, scaled to the whole grid.

    Runs that were resumed do not count: their time holds a pause. `None` where all were, or none
    is finished.
    """
    spans, steps, machine = [], 0, ""
    for unit in grid.units():
        for seed in unit.seeds:
            place = grid.place(unit.arm, seed)
            run = Run.read(place) if (place / "DONE").exists() else None
            if run is not None and run.finished_at and not run.manifest.get("resumed"):
                ends = run.manifest["created"], run.finished_at
                spans.append(tuple(datetime.fromisoformat(end).timestamp() for end in ends))
                steps += grid.steps(unit) // len(unit.seeds)
                machine = _machine(run.manifest.get("host", {}))
    if not spans:
        return None
    share = steps / sum(map(grid.steps, grid.units()))
    return Estimate(round(_covered(spans) / share), FOLDERS, machine)


def _covered(spans: list[tuple[float, ...]]) -> float:
    """Seconds that at least one of the spans covers."""
    covered, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered
