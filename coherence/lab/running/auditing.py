"""The audit of one run from the command line: a page, a CSV file, the first rows."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from coherence.lab.experiment import Experiment
from coherence.lab.grid import Grid
from coherence.lab.runs import Run
from coherence.lab.suggestions import suggestion

from .arguments import read
from .flags import add_audit_flags


def show_audit(experiment: Experiment, arguments: Sequence[str]) -> None:
    """Audit the labels of a run of an experiment; write a page and a CSV file beside it.

    Of an unfinished run the newest checkpoints are asked, together, and named.

    Arguments are `[--arm ARM] [--seed K] [--of train|test] [--by SCORE] [--output FILE]` and those
    that name an experiment's runs, as for `coherence run`.

    Raises:
        ValueError: an unknown preset, arm, seed or score; a page named as its table; a run without
            a checkpoint, of other settings, or that has no labels.
        FileNotFoundError: there is no such run, or no folder for the page.
    """
    parser = argparse.ArgumentParser(f"coherence audit {experiment.name}", allow_abbrev=False)
    add_audit_flags(parser)
    own, words = parser.parse_known_args(arguments)
    asked = read(experiment, words)
    grid = Grid(experiment.grid(asked.settings), asked.settings.seeds, asked.folder)
    arm = next(iter(grid.arms)) if own.arm is None and len(grid.arms) == 1 else own.arm
    if arm not in grid.arms:
        close = "" if arm is None else suggestion(arm, grid.arms)
        got = "" if arm is None else f", got {arm!r}"
        raise ValueError(f"--arm: one of {', '.join(grid.arms)}{got}.{close}")
    if not 0 <= own.seed < grid.seeds:
        raise ValueError(f"--seed: from 0 to {grid.seeds - 1}, got {own.seed}.")
    if own.output.suffix == ".csv":
        raise ValueError(
            f"--output: the page's name, such as audit.html, got {own.output}, which is that of "
            "the table beside it."
        )
    if not own.output.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {own.output.parent} for {own.output.name}.")
    place = grid.place(arm, own.seed)
    if not place.is_dir():
        raise FileNotFoundError(
            f"there is no run {place}: `coherence run {experiment.name} --preset {asked.preset}`, "
            "with the same fields, trains it."
        )
    print(audit_run(grid.arms[arm], Run.read(place), own.of, own.by, own.output))


def audit_run(settings: object, run: Run, part: str, by: str | None, output: Path) -> str:
    """The audit of one part of a run's data: its first rows, and where the rest was written."""
    import numpy as np

    from coherence.lab.report import write_audit
    from coherence.lab.training.trained import classifier
    from coherence.scores import Trajectory, audit

    trained = classifier(settings, run)
    x, y = (np.asarray(array) for array in trained.data[part])
    params = list(trained.params.values())
    where = Trajectory(params) if len(params) > 1 else params[0]
    table = audit(trained.loss, where, (x, y), logits=trained.logits, by=by)
    page = write_audit(table, x, output, classes=trained.classes)
    table.to_csv(output.with_suffix(".csv"))
    steps = " and ".join(f"step {step:,}" for step in trained.params)
    came = "" if run.done else f", not finished: its parameters at {steps}"
    return f"{run.path}, {part}{came}\n{table}\n{page} (also .csv)"
