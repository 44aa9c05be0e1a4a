"""A run, or a folder of them, in the terminal: what it is and how it went."""

from __future__ import annotations

import math
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from coherence.lab.runs import Run

from . import circumstances, examples
from .grouping import found
from .records import PREFERRED, axis, last, parts, quantities, series, split
from .settings import ABSENT, differences, flat, text
from .tables import FORMATS, number, wrapped

ROWS = 8
"""Steps in a table: enough to see how it went, few enough to read."""
_MOST_TABLES, _MOST_PARTS, _MOST_EXAMPLES = 3, 40, 10

Format = Literal["text", "markdown"]


def describe(path: str | Path, format: Format = "text", width: int | None = None) -> str:
    """What `coherence show` prints: of one run everything, of several one line each and what they have in common.

    Of one run: settings, seed, device, whether it is done; scalars at a few steps, a table a probe;
    by layer and by group at the last step; the most and least coherent examples. Nothing is printed
    for what was not measured, and `nan` for what was and is none.

    Args:
      path: a run's folder, or one that holds several.
      format: of the tables, "text" or "markdown".
      width: what tables should fit into; the terminal's by default.

    Raises:
      FileNotFoundError: the folder holds no run.
    """
    if format not in FORMATS:
        raise ValueError(f'describe(format): "text" or "markdown", got {format!r}.')
    width = width or shutil.get_terminal_size().columns
    runs = found([path])
    blocks = (
        _one(runs[0], format, width)
        if len(runs) == 1
        else _several(runs, Path(path), format, width)
    )
    return "\n\n".join(blocks)


def _one(run: Run, format: Format, width: int) -> Iterator[str]:
    records = run.records()
    yield f"{run.path}: seed {run.seed}, {circumstances.state(run, records)}, {len(records)} records"
    facts = [
        ("device", circumstances.device(run)),
        ("took", circumstances.duration(run)),
        ("ended with", _summary(run)),
    ]
    settings = [(key, text(value)) for key, value in run.config.items()]
    yield "\n".join(f"  {name:<18}{value}" for name, value in [*facts, *settings] if value)
    scalars = quantities(records, run.axes, "scalar")
    for probe in dict.fromkeys(split(name)[0] for name in scalars):
        yield from _over_steps(
            records, probe, [name for name in scalars if split(name)[0] == probe], format, width
        )
    latest = {
        name: _last_with_numbers(records, name)
        for name in quantities(records, run.axes, "layers", "groups")
    }
    places = {
        name: (split(name)[0], axis(name, value, run.axes)) for name, (_, value) in latest.items()
    }
    for probe, what in dict.fromkeys(places.values()):
        some = {name: latest[name] for name in latest if places[name] == (probe, what)}
        yield from _by_part(run, probe, what, some, format, width)
    for probe in examples.probes(quantities(records, run.axes, "examples")):
        yield from _ranked(run, records, probe)


def _summary(run: Run) -> str:
    return ", ".join(f"{key} {text(value)}" for key, value in (run.summary or {}).items())


def _over_steps(
    records: list[dict], probe: str, names: list[str], format: Format, width: int
) -> Iterator[str]:
    """The scalars of one probe at a few of the steps at which most of them were recorded."""
    empty = [
        name
        for name in names
        if not any(math.isfinite(record.get(name, math.nan)) for record in records)
    ]
    names = [name for name in names if name not in empty]
    having = [sum(name in record for name in names) for record in records]
    full = [record for record, count in zip(records, having) if count == max(having)]
    picked = [
        full[i] for i in sorted({round(k * (len(full) - 1) / (ROWS - 1)) for k in range(ROWS)})
    ]
    rows = [
        [str(record["step"]), *(number(record.get(name)) for name in names)] for record in picked
    ]
    title = f"probe {probe}" if probe else "over training"
    shown = f", {len(rows)} of {len(full)} steps" if len(full) > len(rows) else ""
    if names:
        yield from _fitting(
            f"{title}{shown}", ["step", *(split(name)[1] for name in names)], rows, format, width
        )
    if empty:
        yield f"nan throughout: {', '.join(empty)}"


def _last_with_numbers(records: list[dict], name: str) -> tuple[int, Any]:
    """The last step and value that are not all nan: a run that diverged says more a moment before."""
    values = series(records, name)
    return next(
        (
            one
            for one in reversed(values)
            if any(math.isfinite(number) for _, number in parts(one[1]))
        ),
        values[-1],
    )


def _by_part(
    run: Run, probe: str, what: str, latest: dict[str, tuple], format: Format, width: int
) -> Iterator[str]:
    """Quantities by layer or by group, where they last were numbers."""
    steps = sorted({step for step, _ in latest.values()})
    values = [
        {
            str(key): one
            for key, one in (value.items() if isinstance(value, dict) else enumerate(value))
        }
        for _, value in latest.values()
    ]
    keys = list(dict.fromkeys(key for value in values for key in value))
    titles = examples.part_names(run, next(iter(latest)), keys)
    rows = [
        [title, *(number(value.get(key)) for value in values)]
        for title, key in list(zip(titles, keys))[:_MOST_PARTS]
    ]
    more = f", the first {_MOST_PARTS} of {len(keys)}" if len(keys) > _MOST_PARTS else ""
    title = (
        f"{f'probe {probe}, ' if probe else ''}by {what} at step {', '.join(map(str, steps))}{more}"
    )
    yield from _fitting(
        title,
        [what, *(split(name)[1].removesuffix(f"_by_{what}") for name in latest)],
        rows,
        format,
        width,
    )


def _fitting(
    title: str, header: list[str], rows: list[list[str]], format: Format, width: int
) -> Iterator[str]:
    """A table as at most a few tables that fit; the columns beyond are named."""
    pieces = wrapped(header, rows, width) if format == "text" else [(header, rows)]
    for i, (some, cells) in enumerate(pieces[:_MOST_TABLES]):
        yield (
            (f"{title}\n" if i == 0 else "")
            + ("\n" * (format == "markdown"))
            + FORMATS[format](some, cells)
        )
    if left := [name for some, _ in pieces[_MOST_TABLES:] for name in some[1:]]:
        yield f"and {len(left)} more: {', '.join(left)} (all with --csv FILE)"


def _ranked(run: Run, records: list[dict], probe: str) -> Iterator[str]:
    ranking = examples.rankings(records, probe)
    if not ranking:
        return
    latest, kept = ranking[-1], examples.sample(run, probe)
    lines = [
        f"{f'probe {probe}, ' if probe else ''}{len(latest.contributions)} examples by their part of step {latest.step}, 1x the average"
    ]
    for title, indices in zip(("most coherent", "least coherent"), latest.ends(_MOST_EXAMPLES)):
        lines += [f"  {title}: " + ", ".join(_example(kept, latest, int(i)) for i in indices)]
    yield "\n".join(lines)


def _example(kept: dict, ranking: examples.Ranking, index: int) -> str:
    known = examples.caption(kept, index)
    return f"{examples.place(kept, index)} ({known + ', ' if known else ''}{ranking.said(index)})"


def _several(runs: list[Run], path: Path, format: Format, width: int) -> Iterator[str]:
    """One line a run: what sets it apart, how far it came, and the last of the quantities one looks for first."""
    histories = [run.records() for run in runs]
    settings = [flat(run.config) for run in runs]
    differ = differences(settings)
    yield f"{path}: {len(runs)} runs, {sum(run.done for run in runs)} done"
    common = {key: value for key, value in settings[0].items() if key not in differ}
    yield textwrap.fill(
        "in common: " + ", ".join(f"{key}={value}" for key, value in common.items()),
        width,
        subsequent_indent="  ",
    )
    recorded = quantities([record for history in histories for record in history], {}, "scalar")
    names = sorted(
        (name for name in recorded if split(name)[1] in PREFERRED),
        key=lambda name: PREFERRED.index(split(name)[1]),
    )
    rows = []
    for run, history, one in zip(runs, histories, settings):
        numbers = [number(value[1]) if (value := last(history, name)) else "" for name in names]
        step = str(history[-1]["step"]) if history else "-"
        rows.append(
            [
                str(run.path.relative_to(path)),
                step,
                _state(run, history),
                *(one.get(key, ABSENT) for key in differ),
                *numbers,
            ]
        )
    yield from _fitting(
        "at the last record of each", ["run", "step", "state", *differ, *names], rows, format, width
    )
    yield f"One of them in full: coherence show {runs[0].path}\nAll of them drawn:   coherence report {path}"


def _state(run: Run, history: list[dict]) -> str:
    return ("done" if run.done else "unfinished") + (
        ", diverged" if circumstances.diverged(history) is not None else ""
    )
