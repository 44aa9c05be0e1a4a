"""Results as HTML, for notebooks: every text in it is escaped."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_LONGEST_LIST = 8


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; numbers are rounded to four digits.

    >>> table(["layer", "alpha"], [["<Dense>", 0.25]])
    '<table><tr><th>layer</th><th>alpha</th></tr><tr><td>&lt;Dense&gt;</td><td>0.25</td></tr></table>'
    """
    lines = [_row("th", head), *(_row("td", cells) for cells in rows)]
    return f"<table>{''.join(lines)}</table>"


def paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def number(value: Any) -> str:
    """A number, or a nested list of them, as short text."""
    if isinstance(value, list):
        shown = ", ".join(map(number, value[:_LONGEST_LIST]))
        return f"[{shown}{', ...' * (len(value) > _LONGEST_LIST)}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Readings(dict[str, Any]):
    """The values that a probe read, by name; a notebook shows them as a table."""

    def _repr_html_(self) -> str:
        rows: list[tuple[str, str, Any]] = []
        for name, value in self.items():
            parts = value.items() if isinstance(value, Mapping) else [("", value)]
            rows += [(name, part, inner) for part, inner in parts]
        return table(["quantity", "layer", "value"], rows)


def _row(tag: str, cells: Sequence[Any]) -> str:
    marked = (f"<{tag}>{html.escape(number(cell))}</{tag}>" for cell in cells)
    return f"<tr>{''.join(marked)}</tr>"
