"""TensorBoard event files of recorded runs. Their writer is an extra, imported here alone."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from coherence.lab.runs import Run

from .grouping import arms, flat
from .records import kind, parts
from .tables import markdown


def export(paths: Iterable[str | Path], folder: str | Path) -> list[Path]:
    """Write runs where `tensorboard --logdir FOLDER` finds them, and return the folders written.

    A folder per run: scalars, layers and groups, and its settings as text. Values per example and
    matrices have no place there and are left out; nan is kept.

    Raises:
        RuntimeError: the extra `tensorboard` is not installed.
        FileExistsError: a run was exported there before; TensorBoard would show every point twice.
        FileNotFoundError: one of `paths` holds no run.

    >>> export(["nothing/here"], "events")
    Traceback (most recent call last):
        ...
    FileNotFoundError: ...
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise RuntimeError(
            "export needs the extra tensorboard, which brings tensorboardX: "
            'pip install -e ".[tensorboard]".'
        ) from None
    # nan is data here; it would warn of each
    logging.getLogger("tensorboardX.x2num").setLevel(logging.ERROR)
    targets = {
        Path(folder) / _inner(arm.name) / f"seed={run.seed}": run
        for arm in arms(paths)
        for run in arm.runs
    }
    for target in targets:
        if any(target.glob("events.*")):
            raise FileExistsError(
                f"{target} holds exported events already. Name another folder, or delete that one."
            )
    for target, run in targets.items():
        part = target.with_name(f".{target.name}.tmp")  # a kill must not leave half an export
        shutil.rmtree(part, ignore_errors=True)
        with SummaryWriter(str(part)) as writer:
            writer.add_text("settings", markdown(["setting", "value"], flat(run.config).items()))
            for tag, value, step in points(run):
                writer.add_scalar(tag, value, step)
        target.mkdir(parents=True, exist_ok=True)
        for file in part.iterdir():
            os.replace(file, target / file.name)
        part.rmdir()
    return list(targets)


def _inner(name: str) -> str:
    """An arm's name as a path that stays inside the folder it is put into."""
    outside = {"", ".", ".."} & set(name.split("/"))
    return quote(name, safe="=., ") if outside else name


def points(run: Run) -> Iterator[tuple[str, float, int]]:
    """`(tag, value, step)` of everything TensorBoard can draw.

    A tag is such as `train/m_coherence_by_layer/hidden_0`.
    """
    for record in run.records():
        for name, value in record.items():
            if name != "step" and kind(name, value, run.axes) in ("scalar", "layers", "groups"):
                for part, number in parts(value):
                    yield f"{name}/{part}" if part else name, number, record["step"]
