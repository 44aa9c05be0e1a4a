"""Tables as text, Markdown and CSV. The standard library's csv is all they need."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from coherence.lab.claims import interval
from coherence.lab.runs import Run

from .records import parts

LONG = ("run", "seed", "step", "quantity", "part", "value")
"""The columns of `long`: one number a row, the layer, group or example in `part`."""
_NUMERIC = re.compile(r"|-|[-+]?(\d[\d,]*\.?\d*(e[-+]?\d+)?|nan|inf)( ?%)?")


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns under their headings, two spaces apart: numbers to the right, everything else to the left.

    >>> print(aligned(["labels", "step"], [["real", "5"], ["random", "10"]]))
    labels  step
    real       5
    random    10
    """
    table = [list(map(str, header)), *(list(map(str, row)) for row in rows)]
    columns = list(zip(*table, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(map(_NUMERIC.fullmatch, column[1:])) and len(column) > 1 for column in columns]
    place = [str.rjust if numeric else str.ljust for numeric in right]
    return "\n".join(
        "  ".join(put(cell, width) for put, cell, width in zip(place, row, widths)).rstrip()
        for row in table
    )


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The same as a Markdown table."""
    lines = [list(map(str, header)), ["---"] * len(header), *(list(map(str, row)) for row in rows)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


FORMATS = {"text": aligned, "markdown": markdown}


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The same as CSV; nan is written as `nan`."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def write_csv(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """`csv_text` in a file."""
    Path(path).write_text(csv_text(header, rows), encoding="utf-8")


def long(runs: Iterable[Run]) -> Iterable[tuple]:
    """Every number of every record, one a row (`LONG`): what a data frame or a spreadsheet wants."""
    for run in runs:
        for record in run.records():
            for quantity, value in record.items():
                if quantity != "step":
                    yield from (
                        (str(run.path), run.seed, record["step"], quantity, part, number)
                        for part, number in parts(value)
                    )


def number(value: float | None) -> str:
    """Four digits; nothing for what was not measured, `nan` for what was and is none."""
    return "" if value is None else f"{value:.4g}"


def plus_minus(values: Sequence[float]) -> str:
    """Mean over seeds ± half of its 95 % interval; `-` where a seed has no number, as where it never got to what is compared."""
    mean, low, _ = interval(values)
    return "-" if math.isnan(mean) else f"{mean:.3g} ± {mean - low:.2g}"


def cell(values: Sequence[float]) -> str:
    """Mean over seeds ± half of its 95 % interval; says how many are nan instead of leaving them out."""
    failed = sum(not math.isfinite(value) for value in values)
    if not len(values):
        return "-"
    if failed:
        return str(values[0]) if len(values) == 1 else f"nan in {failed} of {len(values)}"
    mean, low, _ = interval(values)
    return number(mean) if math.isnan(low) else f"{number(mean)} ± {mean - low:.2g}"


def wrapped(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> list[tuple[list[str], list[list[str]]]]:
    """One table as several, none wider than `width`, each with the first column; one column is kept however wide."""
    columns = list(zip(header, *rows))
    widths = [max(map(len, column)) for column in columns]
    pieces: list[list[int]] = [[]]
    for i in range(1, len(columns)):
        if (
            pieces[-1]
            and widths[0] + sum(2 + widths[j] for j in pieces[-1]) + 2 + widths[i] > width
        ):
            pieces.append([])
        pieces[-1].append(i)
    return [
        (
            [header[0], *(header[i] for i in piece)],
            [[row[0], *(row[i] for i in piece)] for row in rows],
        )
        for piece in pieces
    ]
