"""Tables as text, Markdown and CSV, and the cells they are made of."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from coherence.lab.claims import Judgement, effect, format_p, interval
from coherence.lab.runs import Run
from coherence.lab.runs.files import replacing, write_text

from .records import parts, printable

Format = Literal["text", "markdown", "latex"]
Header = Sequence[str]
Rows = Iterable[Sequence[Any]]

LONG = ("run", "seed", "step", "quantity", "part", "value")
"""The columns of `long`: one number per row, the layer, group or example in `part`."""
_FORMULA = ("=", "+", "-", "@")
_TAG = re.compile("<(?=[A-Za-z/!?])")
_NUMERIC = re.compile(r"|-|[-+]?(\d[\d,]*\.?\d*(e[-+]?\d+)?|nan|inf)( ?%)?")


def check_format(function: str, format: str) -> None:
    """Refuse formats of tables that do not exist, in the name of the function that was called."""
    if format not in get_args(Format):
        raise ValueError(f'{function}(format): "text", "markdown" or "latex", got {format!r}.')


def aligned(header: Header, rows: Rows) -> str:
    """A table as text, columns two spaces apart: numbers to the right, words to the left.

    >>> print(aligned(["labels", "step"], [["real", "5"], ["random", "10"]]))
    labels  step
    real       5
    random    10
    """
    table = [[_line(cell) for cell in row] for row in (header, *rows)]
    columns = list(zip(*table, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(map(_NUMERIC.fullmatch, column[1:])) and len(column) > 1 for column in columns]
    place = [str.rjust if numeric else str.ljust for numeric in right]
    return "\n".join(
        "  ".join(put(cell, width) for put, cell, width in zip(place, row, widths)).rstrip()
        for row in table
    )


def markdown(header: Header, rows: Rows) -> str:
    """A table in Markdown, in which no cell is HTML."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_markdown_cell, line))} |" for line in lines)


_LATEX = {
    **{mark: rf"\{mark}" for mark in "&%$#_{}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"},
    **{"✓": r"$\checkmark$", "✗": r"$\times$", "○": r"$\circ$", "<": "$<$", ">": "$>$"},
    "±": r"$\pm$",
}


def latex_cell(cell: Any) -> str:
    """Text that LaTeX prints as it is."""
    return re.sub("|".join(map(re.escape, _LATEX)), lambda match: _LATEX[match[0]], _line(cell))


def latex(header: Header, rows: Rows) -> str:
    """A table for a paper; needs the package booktabs.

    >>> print(latex(["labels", "error"], [["real", "5 %"]]))
    \\begin{tabular}{ll}
    \\toprule
    labels & error \\\\
    \\midrule
    real & 5 \\% \\\\
    \\bottomrule
    \\end{tabular}
    """
    line = lambda cells: " & ".join(map(latex_cell, cells)) + r" \\"
    head = [rf"\begin{{tabular}}{{{'l' * len(header)}}}", r"\toprule", line(header), r"\midrule"]
    return "\n".join([*head, *map(line, rows), r"\bottomrule", r"\end{tabular}"])


def join(parts: Iterable[str], format: Format) -> str:
    """Tables and sentences as one text; in LaTeX sentences are comments."""
    if format == "latex":
        parts = (
            part if r"\begin{tabular}" in part else re.sub("(?m)^", "% ", part) for part in parts
        )
    return "\n\n".join(parts)


def _line(cell: Any) -> str:
    """A cell in one line that a terminal only prints."""
    return printable(str(cell)).replace("\n", " ")


def _markdown_cell(cell: Any) -> str:
    return _TAG.sub("&lt;", _line(cell)).replace("|", "\\|")


def blocks(
    title: str,
    header: Header,
    rows: Sequence[Sequence[str]],
    format: Format,
    width: int,
    most: int | None = None,
) -> list[str]:
    """A table as printed, the title above it: as text in several where one would be too wide.

    Of `most` tables at most; the columns beyond are named.
    """
    if format == "markdown":
        return [f"{title}\n\n{markdown(header, rows)}"]
    if format == "latex":
        return [f"% {_line(title)}\n{latex(header, rows)}"]
    pieces = wrapped(header, rows, width)
    text = [aligned(*piece) for piece in pieces[:most]]
    text[0] = f"{title}\n{text[0]}"
    if left := [name for names, _ in pieces[len(text) :] for name in names[1:]]:
        text.append(f"and {len(left)} more: {', '.join(left)} (all with --csv FILE)")
    return text


def wrapped(
    header: Header, rows: Sequence[Sequence[str]], width: int
) -> list[tuple[list[str], list[list[str]]]]:
    """One table as several, none wider than `width`, each with the first column.

    A column that is too wide by itself is kept however wide.
    """
    columns = list(zip(header, *rows))
    widths = [max(map(len, column)) for column in columns]
    pieces: list[list[int]] = [[]]
    total = widths[0]
    for i in range(1, len(columns)):
        if pieces[-1] and total + 2 + widths[i] > width:
            pieces.append([])
            total = widths[0]
        pieces[-1].append(i)
        total += 2 + widths[i]
    return [
        (
            [header[0], *(header[i] for i in piece)],
            [[row[0], *(row[i] for i in piece)] for row in rows],
        )
        for piece in pieces
    ]


def json_text(value: Any) -> str:
    """Plain values as strict JSON: nan and infinity, which it does not have, are null."""
    return json.dumps(_strict(value), indent=1, ensure_ascii=False)


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _strict(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def verdict_table(judgements: Sequence[Judgement], format: Format = "text") -> str:
    """A table of judgements: verdict, effect with interval and unit, p, scope, source and run."""
    check_format("verdict_table", format)
    header = ("claim", "verdict", "effect [95 % interval]", "values", "p")
    rows = [
        (j.claim.name, j.verdict, effect(j), j.n, format_p(_adjusted(j.p, j.p_adjusted)))
        for j in judgements
    ]
    sources = [f"{j.claim.source.reference} ({j.claim.source.known})" for j in judgements]
    if format == "markdown":
        return markdown(
            (*header, "scope", "source", "run"),
            [
                (f"**{name}**: {j.claim.statement}", *cells, _scope(j), source, j.run)
                for (name, *cells), j, source in zip(rows, judgements, sources)
            ],
        )
    if format == "latex":
        return latex(header, rows)
    first, *lines = aligned(header, rows).splitlines()
    text = [first]
    for line, j, source in zip(lines, judgements, sources):
        notes = (j.claim.text, f"measured: {j.claim.statistic}", j.where, j.remarks, source, j.run)
        text += [line, *(f"    {note}" for note in notes if note)]
    return "\n".join(text)


def _adjusted(p: float, adjusted: float) -> float:
    return p if math.isnan(adjusted) else adjusted


def _scope(judgement: Judgement) -> str:
    remarks = f" ({judgement.remarks})" if judgement.remarks else ""
    return f"{judgement.where}{remarks}"


def csv_text(header: Header, rows: Rows) -> str:
    """A table as CSV; nan is written as `nan`.

    Text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_csv_cell(cell) for cell in row] for row in (header, *rows))
    return text.getvalue()


def _csv_cell(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    text = printable(cell)
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMERIC.fullmatch(text) else text


def write_csv(path: str | Path, header: Header, rows: Rows) -> None:
    """Write a table to a file as `csv_text`."""
    write_text(Path(path), csv_text(header, rows))


def write_parquet(path: str | Path, header: Header, rows: Rows) -> None:
    """Write a table as a Parquet file, by polars or by pandas with pyarrow.

    Raises:
        ValueError: neither is installed.
    """
    path, table = Path(path), [list(row) for row in rows]
    try:
        import polars
    except ImportError:
        try:
            import pandas
            import pyarrow  # noqa: F401
        except ImportError:
            raise ValueError(
                f"{path}: Parquet files are written by polars, or by pandas with pyarrow, and "
                "neither is installed: pip install polars. --csv FILE needs nothing."
            ) from None
        with replacing(path) as file:
            pandas.DataFrame(table, columns=list(header)).to_parquet(file, index=False)
    else:
        with replacing(path) as file:
            columns = polars.DataFrame(
                table, schema=list(header), orient="row", infer_schema_length=None
            )
            columns.write_parquet(file)


def long(runs: Iterable[Run]) -> Iterator[tuple]:
    """Every number of every record, one per row (`LONG`), as data frames and spreadsheets want."""
    for run in runs:
        for record in run.records():
            for quantity, value in record.items():
                if quantity != "step":
                    place = (str(run.path), run.seed, record["step"], quantity)
                    yield from ((*place, part, number) for part, number in parts(value))


def number(value: float | None) -> str:
    """A cell of four digits: empty for what was not measured, `nan` for what is no number."""
    return "" if value is None else f"{value:.4g}"


def plus_minus(values: Sequence[float], digits: int = 3) -> str:
    """Mean over seeds ± half of its 95 % interval.

    One value has no interval. `-` where a seed has no number, as where it never got to what is
    compared.
    """
    mean, low, _ = interval(values)
    if math.isnan(mean):
        return "-"
    half = "" if math.isnan(low) else f" ± {_rounded(mean - low, 2)}"
    return f"{_rounded(mean, digits)}{half}"


def _rounded(value: float, digits: int) -> str:
    """So many digits; below a million all of the whole number's: 1023, not 1e+03."""
    whole = 10**digits - 0.5 <= abs(value) < 1e6
    return f"{value:.0f}" if whole else f"{value:.{digits}g}"


def cell(values: Sequence[float]) -> str:
    """`plus_minus` that says how many values are nan or infinite instead of leaving them out."""
    failed = sum(not math.isfinite(value) for value in values)
    if failed:
        return str(values[0]) if len(values) == 1 else f"nan in {failed} of {len(values)}"
    return plus_minus(values, digits=4) if len(values) else "-"
