"""A report on one page: what was run, how it went, what was coherent. One HTML file that needs nothing else, also on paper."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from . import circumstances, drawing, html, sections
from .grouping import Arm, arms
from .settings import ABSENT, differences, flat
from .tables import cell, csv_text, markdown

_MOST_COLUMNS = 5  # arms in a table


def write(paths: Iterable[str | Path], output: str | Path = "report.html") -> Path:
    """Draw runs into one HTML file and return its path.

    Runs of the same settings are one arm, with 95 % bands over its seeds; arms share panels and are
    told apart by colour and dashes. What a run did not record has no section. The same runs give
    the same bytes.

    Raises:
      FileNotFoundError: one of `paths` holds no run, or there is no folder for the output.
    """
    output = Path(output)
    if not output.parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder {output.parent} to write {output.name} to. Make it, or name another with --output."
        )
    found = arms(paths)
    with drawing.in_house_style():
        text = html.document(f"coherence: {_title(found)}", _body(found))
    output.write_text(text, encoding="utf-8")
    return output


def _title(found: Sequence[Arm]) -> str:
    shared = Path(os.path.commonpath([run.path.resolve() for arm in found for run in arm.runs]))
    return "/".join(shared.parts[1:][-3:])


def _body(found: Sequence[Arm]) -> Iterator[str]:
    count = sum(len(arm.runs) for arm in found)
    yield f"<h1>{html.escape(_title(found))}</h1>"
    yield html.paragraph(
        f"{count} run{'s' * (count > 1)} of {len(found)} setting{'s' * (len(found) > 1)}."
    )
    yield html.table(
        ["", "seed", "state", "last step", "took", "device"],
        [_run(arm, i) for arm in found for i in range(len(arm.runs))],
    )
    yield from _settings(found)
    yield from _ends(found)
    yield from sections.training(found)
    yield from sections.layers_and_groups(found)
    yield from sections.ends(found)


def _run(arm: Arm, i: int) -> list[str]:
    run, records = arm.runs[i], arm.histories[i]
    step = str(records[-1]["step"]) if records else "nothing recorded"
    state = circumstances.state(run, records)
    return [
        arm.name,
        str(run.seed),
        state,
        step,
        circumstances.duration(run) or "-",
        circumstances.device(run),
    ]


def _settings(found: Sequence[Arm]) -> Iterator[str]:
    yield html.heading("Settings")
    settings = [flat(arm.config) for arm in found]
    differ = differences(settings)
    names = [*differ, *(name for name in settings[0] if name not in differ)]
    rows = [[name, *(one.get(name, ABSENT) for one in settings)] for name in names]
    if len(found) > 1:
        yield html.paragraph("Those that differ come first, marked and in bold.")
    yield from _tables(
        ["setting", *(arm.name for arm in found)], rows, [name in differ for name in names]
    )


def _tables(header: list[str], rows: list[list[str]], marked: Sequence[bool] = ()) -> Iterator[str]:
    """A table of arms side by side, in several where it would be too wide for paper."""
    for start in range(1, len(header), _MOST_COLUMNS):
        some = slice(start, start + _MOST_COLUMNS)
        yield html.table([header[0], *header[some]], [[row[0], *row[some]] for row in rows], marked)


def _ends(found: Sequence[Arm]) -> Iterator[str]:
    """The last value of every scalar, to read and to copy."""
    names = sections.names(found, "scalar")
    if not names:
        return
    yield html.heading("At the end")
    header = ["quantity", *(arm.name for arm in found)]
    rows = [[name, *(cell([*arm.finals(name).values()]) for arm in found)] for name in names]
    yield html.paragraph(
        "The last record of each run, however far it came: mean ± half of the 95 % interval over seeds."
    )
    yield from _tables(header, rows)
    yield html.folded("this table as Markdown", markdown(header, rows))
    values = [
        (arm.name, seed, name, value)
        for arm in found
        for name in names
        for seed, value in arm.finals(name).items()
    ]
    yield html.folded(
        "each seed's value as CSV", csv_text(("arm", "seed", "quantity", "value"), values)
    )
