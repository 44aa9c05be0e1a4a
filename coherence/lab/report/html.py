"""Pieces of a page that stands alone: everything is in the one file, nothing is fetched, nothing runs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from .tables import csv_text

DRAWN = ("panel", "curve", "x", "y", "low", "high")


def document(title: str, body: Iterable[str]) -> str:
    """A whole page."""
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    """The heading of a section."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """Words."""
    return f"<p>{escape(text)}</p>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], marked: Iterable[bool] = ()) -> str:
    """A table whose first column are headings; rows that are `marked` stand out."""
    head = "".join(f'<th scope="col">{escape(str(cell))}</th>' for cell in header)
    flags = [*marked]
    lines = []
    for i, (first, *rest) in enumerate(rows):
        open_row = '<tr class="differs">' if i < len(flags) and flags[i] else "<tr>"
        lines.append(
            f'{open_row}<th scope="row">{escape(str(first))}</th>'
            + "".join(f"<td>{escape(str(c))}</td>" for c in rest)
            + "</tr>"
        )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n'
        + "\n".join(lines)
        + "\n</tbody></table></div>"
    )


def picture(figure: Figure, caption: str) -> str:
    """A figure, drawn into the page; what it shows is its caption, and its numbers are folded below."""
    encoded = base64.b64encode(svg(figure)).decode()
    drawn = folded("numbers of this figure (CSV)", csv_text(DRAWN, getattr(figure, "drawn", [])))
    said = escape(caption)
    source, width = f"data:image/svg+xml;base64,{encoded}", round(96 * figure.get_figwidth() * 1.25)
    image = f'<img width="{width}" alt="{said}" src="{source}">'
    return f"<figure>{image}<figcaption>{said}</figcaption>{drawn}</figure>"


def folded(summary: str, text: str) -> str:
    """Text to copy, behind a line that opens it; it is not printed."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"


def svg(figure: Figure) -> bytes:
    """A figure as SVG: no date and no random names, so the same figure is the same bytes."""
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "coherence"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
