"""Shares of an experiment's runs: which of them a process of many trains.

The runs are laid in a row in which those that share a compiled program are neighbours, and the row
is cut into pieces of equal numbers of steps. An arm's seeds stay together unless a piece would
become too long by that.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

from coherence.lab.grid import Grid, Unit
from coherence.lab.settings import Setting, plain, scalars

UNEVEN = 1.1
"""The longest share over the mean, beyond which an arm's seeds are divided."""
_DATA = "coherence.lab.data."


@dataclasses.dataclass(frozen=True)
class Share:
    """One of `count` shares, counted from 1.

    >>> Share(1, 4).count
    4
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def read_share(text: str, environment: Mapping[str, str]) -> Share:
    """`3/16`; `auto`, which the variables of an array job say; or `auto/16`, if not how many.

    Slurm says both, by `SLURM_ARRAY_TASK_ID`, `_MIN`, `_MAX` and `_COUNT`; an indexed Job of
    Kubernetes only which, by `JOB_COMPLETION_INDEX`.

    Raises:
        ValueError: it is none of these, or `auto` outside an array job.
    """
    which, slash, count = text.partition("/")
    if which == "auto" and (not slash or _is_count(count)):
        share = _array_task(environment)
        if slash and share.count not in (0, int(count)):
            raise ValueError(
                f"--share {text}: the array job has {share.count} tasks. Say as many, or auto."
            )
        share = Share(share.index, share.count or int(count or 0))
        if not share.count:
            raise ValueError(
                "--share auto: Kubernetes says which task this is (JOB_COMPLETION_INDEX) and not "
                "of how many. Say the Job's completions: --share auto/16."
            )
    elif _is_count(which) and _is_count(count):
        share = Share(int(which), int(count))
    else:
        share = Share(0, 0)
    if not 1 <= share.index <= share.count:
        raise ValueError(
            f"--share {text}: expected K/N with K from 1 to N, such as 3/16, or auto in an array "
            f"job{'' if which != 'auto' else f'; this is task {share.index} of {share.count}'}."
        )
    return share


def _is_count(word: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}", word) is not None


def _array_task(environment: Mapping[str, str]) -> Share:
    """The share of an array job's task; count 0 where its variables do not say how many."""
    if "SLURM_ARRAY_TASK_ID" in environment:
        names = ("ID", "MIN", "MAX", "COUNT")
        try:
            task, least, most, count = (int(environment[f"SLURM_ARRAY_TASK_{n}"]) for n in names)
        except (KeyError, ValueError):
            raise ValueError(
                "--share auto: SLURM_ARRAY_TASK_ID is set, but not all of SLURM_ARRAY_TASK_MIN, "
                "_MAX and _COUNT are numbers. Say the share: --share K/N."
            ) from None
        stride = (most - least) // max(count - 1, 1) or 1
        if least + stride * (count - 1) != most or (task - least) % stride:
            raise ValueError(
                f"--share auto: the tasks of this array ({count} from {least} to {most}) are not "
                "evenly spaced. Submit a range, as --array=1-16: runs that are done are skipped."
            )
        return Share((task - least) // stride + 1, count)
    if "JOB_COMPLETION_INDEX" in environment:
        return Share(int(environment["JOB_COMPLETION_INDEX"]) + 1, 0)
    raise ValueError(
        "--share auto: this is no task of an array job (neither SLURM_ARRAY_TASK_ID nor "
        "JOB_COMPLETION_INDEX is set). Say the share: --share 3/16."
    )


def share_of(grid: Grid, share: Share) -> list[Unit]:
    """The units of a share; the shares of a count are disjoint and together the grid.

    >>> from pathlib import Path
    >>> from coherence.lab.training import Regression
    >>> arms = {"few": Regression(steps=10), "many": Regression(steps=30)}
    >>> grid = Grid(arms, seeds=2, folder=Path("runs"))
    >>> [len(share_of(grid, Share(k, 2))) for k in (1, 2)]  # alike in steps, not in runs
    [3, 1]
    """
    return shares_of(grid, share.count)[share.index - 1]


def shares_of(grid: Grid, count: int) -> list[list[Unit]]:
    """The units of every share. Which they are depends on the grid and the count alone.

    There may be empty ones where there are more shares than runs.
    """
    total = sum(map(grid.steps, grid.units()))
    best, longest = [], math.inf
    for blocks in range(1, grid.seeds + 1):
        shares = _cut(grid, _row(grid, blocks), count, total)
        most = max(sum(map(grid.steps, units)) for units in shares)
        if most < longest:
            best, longest = shares, most
        if longest * count <= UNEVEN * total:
            break
    return best


def _cut(grid: Grid, row: list[Unit], count: int, total: int) -> list[list[Unit]]:
    """A row in pieces; the middle of a unit decides, in whole numbers: alike on every machine."""
    shares: list[list[Unit]] = [[] for _ in range(count)]
    before = 0
    for unit in row:
        middle = 2 * before + grid.steps(unit)
        shares[middle * count // (2 * total)].append(unit)
        before += grid.steps(unit)
    return shares


def _row(grid: Grid, blocks: int) -> list[Unit]:
    """All units, each arm's seeds in so many blocks; arms of one program are neighbours."""
    by_program: dict[str, list[str]] = {}
    for name, arm in grid.arms.items():
        by_program.setdefault(repr(_program(arm)), []).append(name)
    edges = [grid.seeds * i // blocks for i in range(blocks + 1)]
    return [
        Unit(name, tuple(range(start, end)))
        for names in by_program.values()
        for name in names
        for start, end in itertools.pairwise(edges)
    ]


def _program(value: Any) -> Any:
    """Settings without what is no part of a compiled program: data, labels, numbers it is given."""
    if isinstance(value, Setting):
        if str(value.source).startswith(_DATA):
            return None
        given = scalars(value)
        return type(value).__name__, [
            (name, part) for name, part in plain(value).items() if name not in given
        ]
    if hasattr(value, "__dataclass_fields__"):
        parts = {name: _program(getattr(value, name)) for name in value.__dataclass_fields__}
        return type(value).__name__, parts
    if isinstance(value, tuple):
        return tuple(map(_program, value))
    return value
