"""Influence on single predictions as one HTML file: who pulled towards them, who against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coherence.lab.runs.files import write_text

from .audit_page import Shown, sides, table
from .html import document, escape, heading, paragraph

_EXPLAINED = (
    "Of each prediction the training examples whose gradients point most along its own and against "
    "it, with their number, label and cosine: a step on a helper lowers the loss of this label for "
    "this example, a step on an opponent raises it. To first order, at the parameters looked at."
)


def write_influence(
    extremes: Any,
    train: tuple[Sequence[Any] | NDArray, ArrayLike],
    test: tuple[Sequence[Any] | NDArray, ArrayLike],
    output: str | Path = "influence.html",
    *,
    given: ArrayLike | None = None,
    classes: Sequence[str] | None = None,
    most: int = 8,
) -> Path:
    """Write what `coherence.scores.extremes` says of some predictions, and return the page's path.

    Args:
        extremes: of the n test examples.
        train: `(inputs, labels)`, as `extremes` had them; inputs as for `write_audit`.
        test: `(inputs, labels)`, n of each: the labels explained, such as those predicted.
        given: [n], the labels that are right, to show beside those explained.
        classes: names of the labels.
        most: helpers and opponents of each.

    Raises:
        ValueError: another number of test examples or labels than `extremes` has, or a training
            example that is not there.
        FileNotFoundError: there is no folder for the output.
    """
    output = Path(output)
    (train_inputs, train_labels), (test_inputs, explained) = train, test
    labels, explained = np.asarray(train_labels), np.asarray(explained)
    right = None if given is None else np.asarray(given)
    n = len(extremes.helpers)
    for name, values in (("inputs", test_inputs), ("labels", explained), ("given labels", right)):
        if values is not None and len(values) != n:
            raise ValueError(
                f"write_influence(test): extremes are of {n} examples, {name} of {len(values)}."
            )
    last = max(np.max(numbers, initial=-1) for numbers in (extremes.helpers, extremes.opponents))
    if len(train_inputs) != len(labels) or last >= len(labels):
        raise ValueError(
            f"write_influence(train): inputs and labels of the examples that extremes number, up "
            f"to {last}; got {len(train_inputs)} and {len(labels)}."
        )
    if not output.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {output.parent} to write {output.name} to.")
    of_train, of_test = Shown(train_inputs, classes), Shown(test_inputs, classes)

    def row(k: int) -> str:
        words = [of_test.label(explained[k])]
        if right is not None:
            words.append(of_test.label(right[k]))
        cells = "".join(f"<td>{escape(word)}</td>" for word in words)
        return (
            f'<tr><th scope="row">{of_test.example(k)}<br>{k}</th>{cells}'
            f"{sides(extremes, k, of_train, labels, most)}</tr>"
        )

    def body() -> Iterator[str]:
        yield heading("Which training examples are behind these predictions?")
        yield paragraph(_EXPLAINED)
        columns = ["", "explained", *["given"] * (right is not None), "helpers", "opponents"]
        yield table(columns, map(row, range(n)))

    write_text(output, document("coherence: influence", body()))
    return output
