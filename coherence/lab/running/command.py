"""One experiment from the command line: flags, training, table, verdicts, figure."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coherence.lab.experiment import Experiment, check_begun, perform, prepare
from coherence.lab.grid import Bar, Grid
from coherence.lab.report import gallery
from coherence.lab.report.findings import run_id
from coherence.lab.report.tables import verdict_table
from coherence.lab.runs.files import replacing
from coherence.lab.settings import check
from coherence.lab.training import compilation_cache

from .arguments import DEFAULT_PRESET, read
from .shares import Share, share_of
from .status import states, summary
from .submission import submit

SMOKE = "smoke"  # shows that everything works: compiled and drawn quickly
COMMIT_LIMIT = 100_000  # bytes of recorded arrays a repository should carry for one figure


def main(experiment: Experiment, arguments: Sequence[str]) -> None:
    """Train what is missing, print table and verdicts, draw the figure; or train a share only.

    Arguments are `[--preset PRESET] [--record] [--share K/N | --workers N] [--devices N]
    [--submit slurm|local [--shares N] [--option NAME=VALUE ...]] [--FIELD VALUE ...]`.
    With `--record` the recorded arrays become those of the committed figure and of `coherence
    claims`. With `--share` those runs are trained that are this process's, and nothing else is
    done. With `--workers` so many processes train side by side. With `--submit` jobs do all of it.

    Raises:
        ValueError: an unknown preset or no share, or a run folder that holds other settings.
        FileNotFoundError: `--record` outside a working folder.
        RunBusy: another process writes to one of the runs.
    """
    asked = read(experiment, arguments)
    preset, settings, folder = asked.preset, asked.settings, asked.folder
    home = gallery.checkout(write=asked.record)
    if preset == SMOKE:
        compilation_cache.compile_quickly()
    if not os.path.exists(folder):  # Path.exists raises where a name is too long
        check(settings)
    print(f"{experiment.name} -> {folder}", flush=True)
    if asked.submission is not None:
        prepare(experiment, settings, folder)
        check_begun(experiment, settings, folder)
        print(submit(experiment.name, folder, asked.submission))
        words = [word for word in asked.submission.words if word != "--record"]
        print(f"how far it has come: coherence status {' '.join((experiment.name, *words))}")
        return None
    if asked.share is not None:
        return train_share(experiment, settings, folder, asked.share, asked.devices)
    if seconds := expected_seconds(experiment, preset, settings):
        print(
            f"expect about {duration(seconds)} of processor time, less what is done already; "
            "two cores share it",
            flush=True,
        )
    if asked.workers > 1:
        from .team import train_by_workers

        train_by_workers(experiment, settings, folder, arguments, asked.workers)
    recorded = perform(experiment, settings, folder, asked.devices)
    judgements = experiment.judgements(
        recorded, run_id(folder / "recorded.npz", f"{experiment.name}/{folder.name}")
    )
    print(f"\n{experiment.table(recorded)}\n\n{verdict_table(judgements)}\n")
    if asked.record:
        name = gallery.name(experiment.name, preset, DEFAULT_PRESET)
        _commit(folder / "recorded.npz", gallery.recording(home, name))
    png, *others = gallery.draw(
        home, experiment.name, folder / "recorded.npz", folder, quick=preset == SMOKE
    )
    suffixes = ", ".join(path.suffix for path in others)
    print(f"figure: {png} (also {suffixes}; the CSV has its data)")


def show_status(experiment: Experiment, arguments: Sequence[str]) -> None:
    """Print how far the runs of an experiment have come; arguments are those of `main`.

    Raises:
        ValueError: an unknown preset, settings of which there are no runs.
    """
    asked = read(experiment, arguments)
    grid = Grid(experiment.grid(asked.settings), asked.settings.seeds, asked.folder)
    print(f"{experiment.name} -> {asked.folder}\n{summary(grid, states(grid))}")


def train_share(
    experiment: Experiment, settings: Any, folder: Path, share: Share, devices: int | None = 1
) -> None:
    """Train what is missing of a share; nothing is recorded, judged or drawn.

    Raises:
        RunMismatch: the folder was begun with other settings or other code.
        RunBusy: another process writes to one of the runs.
    """
    grid = prepare(experiment, settings, folder, devices)
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

    The measurements are in `experiments/seconds.json`, on one machine: those of `cpu` from
    recordings, the others by `benchmarks/startup.py --record`, from nothing; `None` where there
    is none.
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
