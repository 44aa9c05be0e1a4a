"""One experiment from the command line: flags, training, table, verdicts, figure."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import runs
from .experiment import Experiment, perform
from .report import gallery
from .report.findings import run_id
from .report.tables import verdict_table
from .runs.files import replacing
from .settings import Setting, apply_flags, check, explain, variant
from .training import compilation_cache

DEFAULT_PRESET = "cpu"
SMOKE = "smoke"  # shows that everything works: compiled and drawn quickly
COMMIT_LIMIT = 100_000  # bytes of recorded arrays a repository should carry for one figure


def main(experiment: Experiment, arguments: Sequence[str]) -> None:
    """Train what is missing, print table and verdicts, draw the figure.

    Arguments are `[--preset PRESET] [--record] [--FIELD VALUE ...]`. With `--record` the recorded
    arrays become those of the committed figure and of `coherence claims`.

    Raises:
        ValueError: an unknown preset, or a run folder that holds other settings.
    """
    record = "--record" in arguments
    preset, words = _preset([word for word in arguments if word != "--record"])
    if preset not in experiment.presets:
        raise ValueError(
            f"{experiment.name} has no preset {preset!r}: there is {', '.join(experiment.presets)}."
        )
    if preset == SMOKE:
        compilation_cache.compile_quickly()
    default = experiment.presets[preset]
    if {"-h", "--help"} & set(words):
        print(
            f"presets: {', '.join(experiment.presets)} (--preset, {DEFAULT_PRESET} if not given); "
            f"below, the values of {preset}.\n\nTo choose from:\n{explain(type(default))}\n"
        )
    settings = apply_flags(
        default, qualified(default, words), f"{experiment.name} --preset {preset}"
    )
    experiment.grid(settings)  # refuses settings before a folder is named
    folder = runs.root() / experiment.name / variant(preset, settings, default)
    if not os.path.exists(folder):  # Path.exists raises where a name is too long
        check(settings)
    print(f"{experiment.name} -> {folder}", flush=True)
    if seconds := expected_seconds(experiment, preset, settings):
        print(
            f"expect about {duration(seconds)} of processor time, less what is done already; "
            "two cores share it",
            flush=True,
        )
    recorded = perform(experiment, settings, folder)
    judgements = experiment.judgements(
        recorded, run_id(folder / "recorded.npz", f"{experiment.name}/{folder.name}")
    )
    print(f"\n{experiment.table(recorded)}\n\n{verdict_table(judgements)}\n")
    home = gallery.checkout()
    if record:
        name = gallery.name(experiment.name, preset, DEFAULT_PRESET)
        _commit(folder / "recorded.npz", gallery.recording(home, name))
    png, *others = gallery.draw(
        home, experiment.name, folder / "recorded.npz", folder, quick=preset == SMOKE
    )
    suffixes = ", ".join(path.suffix for path in others)
    print(f"figure: {png} (also {suffixes}; the CSV has its data)")


def expected_seconds(experiment: Experiment, preset: str, settings: Any) -> float | None:
    """Processor time of an experiment as measured for its preset, in proportion to steps and seeds.

    The measurements are in `experiments/seconds.json` (`benchmarks/startup.py --record`, from
    nothing, on one machine); `None` where there is none.
    """
    file = gallery.checkout() / "experiments" / "seconds.json"
    measured = json.loads(file.read_text()) if file.is_file() else {}
    seconds = measured.get(experiment.name, {}).get(preset)
    if seconds is None:
        return None
    work = lambda s: s.seeds * sum(getattr(arm, "steps", 1) for arm in experiment.arms(s).values())
    return seconds * work(settings) / work(experiment.presets[preset])


def duration(seconds: float) -> str:
    """
    >>> duration(44), duration(150), duration(7000)
    ('45 s', '3 min', '117 min')
    """
    if seconds < 100:
        return f"{5 * math.ceil(seconds / 5)} s"
    return f"{math.ceil(seconds / 60)} min"


def qualified(settings: Any, arguments: Sequence[str]) -> list[str]:
    """Flags with the whole path of their field, which is needed where several have its name.

    `--steps` becomes `--run.steps` if only `run` has such a field.
    """
    own = {field.name for field in dataclasses.fields(settings)}
    nested: dict[str, list[str]] = {}
    for name in own:
        part = getattr(settings, name)
        if dataclasses.is_dataclass(part) and not isinstance(part, Setting):
            for field in dataclasses.fields(part):
                nested.setdefault(field.name, []).append(f"{name}.{field.name}")

    def whole(word):
        flag, equals, value = word.removeprefix("--").partition("=")
        paths = nested.get(flag.replace("-", "_"), [])
        if not word.startswith("--") or flag.replace("-", "_") in own or len(paths) != 1:
            return word
        return f"--{paths[0].replace('_', '-')}{equals}{value}"

    return [whole(word) for word in arguments]


def _preset(arguments: list[str]) -> tuple[str, list[str]]:
    for i, word in enumerate(arguments):
        if word == "--preset" and i + 1 < len(arguments):
            return arguments[i + 1], arguments[:i] + arguments[i + 2 :]
        if word.startswith("--preset="):
            return word.removeprefix("--preset="), arguments[:i] + arguments[i + 1 :]
    return DEFAULT_PRESET, arguments


def _commit(recorded: Path, target: Path) -> None:
    size = recorded.stat().st_size
    if size > COMMIT_LIMIT:
        print(
            f"warning: {recorded} has {size:,} bytes, more than the {COMMIT_LIMIT:,} a repository "
            "should carry.",
            file=sys.stderr,
        )
    target.parent.mkdir(exist_ok=True)
    with replacing(target) as file:
        file.write(recorded.read_bytes())
    print(f"kept as {target}")
