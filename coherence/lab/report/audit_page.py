"""An audit as one HTML file: the most suspicious examples as pictures or text, and who argues."""

from __future__ import annotations

import base64
import html as markup
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coherence.lab.runs.files import write_text

from . import examples
from .html import document, escape, heading, paragraph

_SHOWN = 4  # helpers and opponents of a row
_PIXELS = 72  # the side of a picture on the page
_TEXT = 200  # characters of a text that are shown
_EXPLAINED = (
    "Most suspicious first. Argued for: the label under which its gradient would agree most with "
    "the other examples of that label. Helpers and opponents: the examples whose gradients point "
    "most along its own and against it, as it is labelled; a step on an opponent undoes it."
)


def write_audit(
    audit: Any,
    inputs: Sequence[Any] | NDArray,
    output: str | Path = "audit.html",
    *,
    classes: Sequence[str] | None = None,
    most: int = 50,
) -> Path:
    """Write the first rows of a `coherence.scores.Audit` as a page, and return its path.

    Args:
        inputs: the examples, in the order of the data: images [m, height, width(, 3)], flat rows
            whose length is a square, or texts; of anything else the first numbers are shown.
        classes: names of the labels.
        most: rows on the page, of those that were examined.

    Raises:
        ValueError: inputs of another number of examples.
        FileNotFoundError: there is no folder for the output.
    """
    output = Path(output)
    if len(inputs) != len(audit):
        raise ValueError(
            f"write_audit(inputs): one an example of the audit, {len(audit)}, got {len(inputs)}."
        )
    if not output.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {output.parent} to write {output.name} to.")
    write_text(output, document("coherence: audit", _body(audit, Shown(inputs, classes), most)))
    return output


class Shown:
    """How an example and a label look on the page."""

    def __init__(self, inputs: Sequence[Any] | NDArray, classes: Sequence[str] | None):
        self.inputs, self.classes = inputs, classes
        self.pictures = examples.images(inputs) if isinstance(inputs, np.ndarray) else None
        if self.pictures is not None:
            self.range = float(self.pictures.min()), float(self.pictures.max())

    def label(self, number: int) -> str:
        return str(number) if self.classes is None else str(self.classes[number])

    def example(self, index: int) -> str:
        if self.pictures is not None:
            return self._picture(self.pictures[index])
        value = self.inputs[index]
        text = value if isinstance(value, str) else np.array2string(np.ravel(value)[:8])
        return f"<span>{escape(text[:_TEXT])}</span>"

    def _picture(self, picture: NDArray) -> str:
        from PIL import Image

        low, high = self.range
        grey = np.clip((picture - low) / max(high - low, 1e-12) * 255, 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(grey).save(file, format="PNG")
        source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        return f'<img width="{_PIXELS}" style="image-rendering: pixelated" alt="" src="{source}">'


def _body(audit: Any, shown: Shown, most: int) -> Iterator[str]:
    yield heading("Which labels are suspicious?")
    yield paragraph(f"{len(audit):,} examples by {audit.by}. {_EXPLAINED}")
    if audit.spoiled:
        yield paragraph(f"{audit.spoiled} of them have no finite loss or gradient and come first.")
    rows = (_row(audit, shown, k) for k in range(min(most, len(audit.argued))))
    yield table(("", "given", "argued for", "reasons", "helpers", "opponents"), rows)


def _row(audit: Any, shown: Shown, k: int) -> str:
    example = int(audit.order[k])
    given, argued = shown.label(audit.labels[example]), shown.label(audit.argued[k])
    reasons = "<br>".join(
        markup.escape(f"{name} {values[example]:.3g}") for name, values in audit.scores.items()
    )
    return (
        f'<tr><th scope="row">{shown.example(example)}<br>{example}</th>'
        f"<td>{escape(given)}</td><td>{escape(argued)}</td><td>{reasons}</td>"
        f"{sides(audit.extremes, k, shown, audit.labels, _SHOWN)}</tr>"
    )


def sides(extremes: Any, k: int, shown: Shown, labels: NDArray, most: int) -> str:
    """Two cells of a table: the helpers and the opponents of the k-th example."""
    cells = []
    for numbers, cosines in (
        (extremes.helpers[k], extremes.helped[k]),
        (extremes.opponents[k], extremes.opposed[k]),
    ):
        drawn = [
            f"{shown.example(int(i))} {int(i)}: {escape(shown.label(labels[i]))}, {cosine:.2f}"
            for i, cosine in zip(numbers[:most], cosines[:most])
            if not np.isnan(cosine)
        ]
        cells.append(f"<td>{'<br>'.join(drawn)}</td>")
    return "".join(cells)


def table(columns: Sequence[str], rows: Iterable[str]) -> str:
    """A table that scrolls where it is wide."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in columns)
    body = "\n".join(rows)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )
