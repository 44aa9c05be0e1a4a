"""One experiment from the command line: flags, training, table, verdicts, figure."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from coherence.lab import runs
from coherence.lab.experiment import Experiment, check_begun, perform, prepare
from coherence.lab.grid import Bar, Grid
from coherence.lab.report import gallery
from coherence.lab.report.findings import run_id
from coherence.lab.report.tables import verdict_table
from coherence.lab.runs.files import replacing
from coherence.lab.settings import Setting, apply_flags, check, explain, variant
from coherence.lab.training import compilation_cache

from .shares import Share, read_share, share_of
from .status import states, summary

DEFAULT_PRESET = "cpu"
SMOKE = "smoke"  # shows that everything works: compiled and drawn quickly
COMMIT_LIMIT = 100_000  # bytes of recorded arrays a repository should carry for one figure


class Asked(NamedTuple):
    """What a command line asks for."""

    preset: str
    settings: Any
    folder: Path
    record: bool
    share: Share | None


def main(experiment: Experiment, arguments: Sequence[str]) -> None:
    """Train what is missing, print table and verdicts, draw the figure; or train a share only.

    Arguments are `[--preset PRESET] [--record] [--share K/N] [--FIELD VALUE ...]`. With `--record`
    the recorded arrays become those of the committed figure and of `coherence claims`. With
    `--share` those runs are trained that are this process's, and nothing else is done.

    Raises:
        ValueError: an unknown preset or no share, or a run folder that holds other settings.
        RunBusy: another process writes to one of the runs.
    """
    asked = read(experiment, arguments)
    preset, settings, folder = asked.preset, asked.settings, asked.folder
    if preset == SMOKE:
        compilation_cache.compile_quickly()
    if not os.path.exists(folder):  # Path.exists raises where a name is too long
        check(settings)
    print(f"{experiment.name} -> {folder}", flush=True)
    if asked.share is not None:
        return train_share(experiment, settings, folder, asked.share)
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
    if asked.record:
        name = gallery.name(experiment.name, preset, DEFAULT_PRESET)
        _commit(folder / "recorded.npz", gallery.recording(home, name))
    png, *others = gallery.draw(
        home, experiment.name, folder / "recorded.npz", folder, quick=preset == SMOKE
    )
    suffixes = ", ".join(path.suffix for path in others)
    print(f"figure: {png} (also {suffixes}; the CSV has its data)")


def read(experiment: Experiment, arguments: Sequence[str]) -> Asked:
    """The settings, the folder and the rest that a command line asks for.

    Raises:
        ValueError: an unknown preset, no share, settings of which there are no runs.
        SystemExit: an unknown field, or a value of another type; or help was asked for.
    """
    parser = argparse.ArgumentParser(
        f"coherence run {experiment.name}", add_help=False, allow_abbrev=False
    )
    parser.add_argument("--preset", default=DEFAULT_PRESET)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--share", metavar="K/N")
    own, words = parser.parse_known_args(arguments)
    if own.preset not in experiment.presets:
        raise ValueError(
            f"{experiment.name} has no preset {own.preset!r}: "
            f"there is {', '.join(experiment.presets)}."
        )
    share = None if own.share is None else read_share(own.share, os.environ)
    if share is not None and own.record:
        raise ValueError(
            "--record keeps what is made of all runs, and a share trains some. When all shares are "
            f"done: coherence run {experiment.name} --record."
        )
    default = experiment.presets[own.preset]
    if {"-h", "--help"} & set(words):
        print(
            f"presets: {', '.join(experiment.presets)} (--preset, {DEFAULT_PRESET} if not given); "
            f"below, the values of {own.preset}.\n"
            "--share K/N trains one of N shares of the runs and nothing else; --record keeps the "
            f"arrays of the figure.\n\nTo choose from:\n{explain(type(default))}\n"
        )
    settings = apply_flags(
        default, qualified(default, words), f"{experiment.name} --preset {own.preset}"
    )
    experiment.grid(settings)  # refuses settings before a folder is named
    folder = runs.root() / experiment.name / variant(own.preset, settings, default)
    return Asked(own.preset, settings, folder, own.record, share)


def show_status(experiment: Experiment, arguments: Sequence[str]) -> None:
    """Print how far the runs of an experiment have come; arguments are those of `main`.

    Raises:
        ValueError: an unknown preset, settings of which there are no runs.
    """
    asked = read(experiment, arguments)
    grid = Grid(experiment.grid(asked.settings), asked.settings.seeds, asked.folder)
    print(f"{experiment.name} -> {asked.folder}\n{summary(grid, states(grid))}")


def train_share(experiment: Experiment, settings: Any, folder: Path, share: Share) -> None:
    """Train what is missing of a share; nothing is recorded, judged or drawn.

    Raises:
        RunMismatch: the folder was begun with other settings or other code.
        RunBusy: another process writes to one of the runs.
    """
    grid = prepare(experiment, settings, folder)
    check_begun(experiment, settings, folder)
    units = share_of(grid, share)
    with Bar(experiment.name, sum(map(grid.steps, units))) as bar:
        for unit in units:
            bar.train(grid, unit)
    count, whole = (sum(len(unit.seeds) for unit in some) for some in (units, grid.units()))
    print(
        f"share {share}: its {count} of {whole} run{'s' * (whole > 1)} are done; when all shares "
        "are, the same command without --share judges and draws"
    )


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
