"""One experiment from the command line: flags, training, table, verdicts, figure."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coherence.lab.experiment import Experiment, check_begun, perform, prepare
from coherence.lab.grid import ONE_DEVICE, Bar, Devices, Grid
from coherence.lab.report import gallery
from coherence.lab.report.findings import run_id
from coherence.lab.report.tables import verdict_table
from coherence.lab.runs.files import replacing
from coherence.lab.settings import check
from coherence.lab.training import compilation_cache

from .arguments import DEFAULT_PRESET, read
from .estimates import (
    RECORDED,
    Estimate,
    expected,
    from_folders,
    processor_seconds,
    store,
    stored,
    this_machine,
)
from .hosts import connect, follow
from .shares import Share, share_of
from .status import as_json, states, summary
from .submission import submit

SMOKE = "smoke"  # shows that everything works: compiled and drawn quickly
COMMIT_LIMIT = 100_000  # bytes of recorded arrays a repository should carry for one figure


def main(experiment: Experiment, arguments: Sequence[str]) -> None:
    """Train what is missing, print table and verdicts, draw the figure; or train a share only.

    Arguments are `[--preset PRESET] [--record] [--share K/N | --workers N] [--devices N]
    [--divide-above N] [--hosts K/N@HOST:PORT] [--submit slurm|local [--shares N] [--option
    NAME=VALUE ...]] [--FIELD VALUE ...]`.
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
    if asked.devices.hosts and not connect(asked.hosts):
        return follow(experiment, settings, asked.devices)
    begun = os.path.exists(folder)  # Path.exists raises where a name is too long
    if not begun:
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
    if estimate := expected(home, experiment, preset, settings):
        print(f"expect {estimate}, less what is done already", flush=True)
    started = processor_seconds()
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
        if settings == experiment.presets[preset]:
            _keep_time(home, experiment, preset, folder, None if begun else started)
    png, *others = gallery.draw(
        home, experiment.name, folder / "recorded.npz", folder, quick=preset == SMOKE
    )
    suffixes = ", ".join(path.suffix for path in others)
    print(f"figure: {png} (also {suffixes}; the CSV has its data)")


def show_status(experiment: Experiment, arguments: Sequence[str]) -> None:
    """Print how far the runs of an experiment have come, as text or with `--json`.

    The other arguments are those of `main`.

    Raises:
        ValueError: an unknown preset, settings of which there are no runs.
    """
    words = [word for word in arguments if word != "--json"]
    asked = read(experiment, words)
    grid = Grid(experiment.grid(asked.settings), asked.settings.seeds, asked.folder)
    if len(words) < len(arguments):
        print(as_json(experiment.name, grid, states(grid)))
    else:
        print(f"{experiment.name} -> {asked.folder}\n{summary(grid, states(grid))}")


def train_share(
    experiment: Experiment,
    settings: Any,
    folder: Path,
    share: Share,
    devices: Devices = ONE_DEVICE,
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


def _keep_time(
    home: Path, experiment: Experiment, preset: str, folder: Path, started: float | None
) -> None:
    """Store what a preset took, where this process trained all of it, or nothing is stored yet."""
    if started is not None:
        seconds = round(processor_seconds() - started)
        store(home, experiment.name, preset, Estimate(seconds, RECORDED, this_machine()))
    elif preset not in stored(home).get(experiment.name, {}):
        settings = experiment.presets[preset]
        estimate = from_folders(Grid(experiment.grid(settings), settings.seeds, folder))
        if estimate is not None:
            store(home, experiment.name, preset, estimate)


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
