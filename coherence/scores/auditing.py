"""The audit: which examples are mislabelled, hard, alone? A table, most suspicious first."""

from __future__ import annotations

import csv
import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from coherence.gradients.reductions import dot, squared_norms
from coherence.gradients.transform import per_example_value_and_grad
from coherence.metrics.batching import take
from coherence.trees import Loss, PyTree

from .cosines import mean_cosine
from .pairs import Extremes, as_trajectory, extremes
from .streaming import Logits, Trajectory, checked, members, score, score_along, sums

SUSPICIOUS = {
    "agreement": -1,
    "own_class": -1,
    "pull": -1,
    "aum": -1,
    "margin": -1,
    "confidence": -1,
    "loss": 1,
    "el2n": 1,
    "grand": 1,
    "forgetting": 1,
    "self_influence": 1,
    "weight_alignment": -1,
}
"""Scores an audit may be ordered by: 1 where a large one is suspicious, -1 where a small one is."""

VANISHED = 1e-30
"""Squared norm of a gradient below which squares are lost in float32, and its direction with them.
"""


@dataclasses.dataclass(frozen=True)
class Audit:
    """What an audit found: rows most suspicious first.

    order: int [m], numbers of examples.
    by: the score that ordered them.
    labels: int [m], the labels given, in the order of the data.
    scores: `{name: [m]}`, every score, in the order of the data.
    argued: int [n], of the first n rows the label that the others' gradients argue for
        (`label_agreement`).
    supported: [n], the mean cosine with that label's examples under it; of the given label it is
        the score `own_class`.
    extremes: helpers and opponents of the first n rows.
    spoiled: int, how many have a loss or gradient that is not finite; they come first.
    """

    order: NDArray
    by: str
    labels: NDArray
    scores: dict[str, NDArray]
    argued: NDArray
    supported: NDArray
    extremes: Extremes
    spoiled: int

    def __len__(self) -> int:
        return len(self.order)

    def columns(self) -> dict[str, NDArray]:
        """The whole table by columns, most suspicious first.

        `rank`, `example`, `label`, `argued`, `supported`, the scores; `helpers` and `opponents`,
        numbers of examples joined by spaces. Below the examined rows -1, nan and empty.
        """
        m, n = len(self.order), len(self.argued)
        argued = np.full(m, -1)
        supported = np.full(m, np.nan)
        argued[:n], supported[:n] = self.argued, self.supported
        columns: dict[str, NDArray] = {
            "rank": np.arange(1, m + 1),
            "example": self.order,
            "label": self.labels[self.order],
            "argued": argued,
            "supported": supported,
            **{name: values[self.order] for name, values in self.scores.items()},
        }
        for name, numbers, strengths in (
            ("helpers", self.extremes.helpers, self.extremes.helped),
            ("opponents", self.extremes.opponents, self.extremes.opposed),
        ):
            words = [" ".join(map(str, row[~np.isnan(s)])) for row, s in zip(numbers, strengths)]
            columns[name] = np.array(words + [""] * (m - n), dtype=object)
        return columns

    def to_dataframe(self) -> Any:
        """The table as a `pandas.DataFrame`, which must be installed."""
        import pandas

        return pandas.DataFrame(self.columns())

    def to_csv(self, path: str | Path) -> None:
        """Write the table."""
        columns = self.columns()
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values()))

    def __str__(self) -> str:
        """The first ten rows, to read."""
        known = [name for name in ("loss", "margin", "aum") if name in self.scores]
        shown = list(dict.fromkeys([self.by, *known]))
        head = f"{len(self):,} examples by {self.by}, most suspicious first"
        rows = ["example  label  argued for" + "".join(f"{name:>12}" for name in shown)]
        for row, example in enumerate(self.order[:10]):
            argued = "-" if row >= len(self.argued) else f"{self.argued[row]}"
            values = "".join(f"{self.scores[name][example]:12.3g}" for name in shown)
            rows.append(f"{example:>7}  {self.labels[example]:>5}  {argued:>10}{values}")
        if self.spoiled:
            rows.insert(0, f"{self.spoiled} of them have no finite loss or gradient: look at these")
        return "\n".join([head, *rows])


def audit(
    loss: Loss,
    params: PyTree | Trajectory,
    data: tuple[PyTree, Any],
    *,
    logits: Logits | None = None,
    by: str | None = None,
    examine: int = 200,
    most: int = 8,
    batch_size: int = 256,
    reference: int | None = 8192,
    progress: bool = False,
) -> Audit:
    r"""Score every example and examine the most suspicious ones.

    A wrong label makes a gradient that agrees with few others. Of the most suspicious rows it is
    asked under which label they would agree most with that label's other examples, and which
    examples pull most towards and against them as they are labelled.

    Given a `Trajectory`, scores are those of the whole run (`CourseScores`), which tell wrong
    labels apart even where the network has memorized them in the end. With the final parameters
    alone use a network that has not: an early checkpoint, or out-of-fold (`LabelAudit`).

    Cost: that of `score` a checkpoint, and `examine` x m inner products of factors.

    Args:
        loss, data, logits, batch_size, reference, progress: as for `score`.
        params: one checkpoint's, or a `Trajectory`.
        by: the score that orders, one of `SUSPICIOUS` that is there. Default: with `logits` the
            margin, along a run the area under it, which were ahead wherever we looked; else
            `own_class`, which is blunt where the network is sure of nearly all.
        examine: rows of which neighbours are asked.
        most: helpers and opponents of each.

    Returns:
        `Audit`.

    Raises:
        ValueError: labels of one class only, an unknown score, or one that needs `logits`; what
            `score` raises.
    """
    labels, m = checked(data)
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"audit: all {m} labels are {int(labels[0])}. A wrong label disagrees with other "
            "classes; of one class there is nothing to compare."
        )
    options: dict[str, Any] = {
        "logits": logits,
        "batch_size": batch_size,
        "reference": reference,
        "progress": progress,
    }
    along = score_along if isinstance(params, Trajectory) else score
    named: Any = along(loss, params, data, **options)
    scores = {name: np.asarray(x, np.float64) for name, x in named._asdict().items()}
    spoiled = ~np.isfinite(scores["loss"]) | np.isnan(scores.get("grand", scores["loss"]))
    scores = {name: x for name, x in scores.items() if not np.isnan(x).all()}
    if by is None:
        by = next(name for name in ("aum", "margin", "own_class") if name in scores)
    if by not in SUSPICIOUS or by not in scores:
        known = ", ".join(name for name in SUSPICIOUS if name in scores)
        raise ValueError(f"audit(by): one of {known} here, got {by!r}.")
    order = suspicion_order(scores[by], SUSPICIOUS[by], spoiled)
    examined = order[int(spoiled.sum()) : int(spoiled.sum()) + examine]
    under = label_agreement(
        loss, params, data, examined, batch_size=batch_size, reference=reference
    )
    argued = np.argmax(np.nan_to_num(under, nan=-np.inf), axis=1) if len(examined) else examined
    supported = under[np.arange(len(examined)), argued]
    found = extremes(
        loss, params, data, take(data, examined), most=most, itself=examined, batch_size=batch_size
    )
    if spoiled.any():  # they come first, with nothing to say of them
        count = int(spoiled.sum())
        argued = np.concatenate([labels[order[:count]], argued])
        supported = np.concatenate([np.full(count, np.nan), supported])
        found = Extremes._make(
            np.concatenate([np.full((count, x.shape[1]), fill, x.dtype), x])
            for x, fill in zip(found, (0, np.nan, 0, np.nan))
        )
    return Audit(order, by, labels, scores, argued, supported, found, int(spoiled.sum()))


def suspicion_order(values: NDArray, sign: int, first: NDArray) -> NDArray:
    """Examples by suspicion; those marked `first` before all, those without a number last."""
    key = np.where(np.isnan(values), np.inf, -sign * values)
    return np.argsort(np.where(first, -np.inf, key), kind="stable")


def label_agreement(
    loss: Loss,
    params: PyTree | Trajectory,
    data: tuple[PyTree, Any],
    index: NDArray,
    *,
    classes: int | None = None,
    batch_size: int = 256,
    reference: int | None = 8192,
) -> NDArray:
    r"""How far examples would agree with each class if they bore its label: [n, classes].

    .. math:: \frac1{n_c}\sum_{j\ne i,\,y_j = c} \cos(g_i^{(c)}, g_j), \qquad
        g_i^{(c)} = \nabla\ell(x_i, c)

    `class_agreement` under every label, the mean over checkpoints. The label with the largest is
    the one that the others' gradients argue for. Price: a gradient for each class of every example
    asked for, and the classes' directions.

    Args:
        index: int [n], the examples asked for.
        classes: how many labels there are (default: the largest one given, plus 1).
        others: as for `score`.

    Returns:
        [n, classes] in [-1, 1]; 1 where the gradient has vanished, for the network is as sure of
        that label as numbers can say; nan for a class without other examples.
    """
    labels, m = checked(data)
    count = int(labels.max()) + 1 if classes is None else classes
    member = members(m, reference)
    inputs, given = take(data, index)[0], labels[index]
    trajectory = as_trajectory(params)
    total = np.zeros((len(index), count))
    for checkpoint, _ in trajectory:
        _, own = sums(loss, checkpoint, data, labels, member, batch_size)
        for label in range(count):
            directions = own.get(label)
            if directions is None:
                total[:, label] = np.nan
                continue
            labelled = inputs, np.full(len(index), label, data[1].dtype)
            for start in range(0, len(index), batch_size):
                rows = np.arange(start, min(start + batch_size, len(index)))
                products, squares = map(
                    np.asarray,
                    _with_directions(checkpoint, take(labelled, rows), directions.total, loss=loss),
                )
                itself = member[index[rows]] & (given[rows] == label)
                agreement = mean_cosine(
                    products, float(directions.count), ~np.isnan(products), itself
                )
                total[rows, label] += np.where(squares < VANISHED, 1.0, agreement)
    return total / len(trajectory.params)


@partial(jax.jit, static_argnames="loss")
def _with_directions(params, examples, directions, *, loss):
    """g_i / ||g_i|| . v, nan without a direction, and ||g_i||^2: [m] each."""
    _, gradients = per_example_value_and_grad(loss)(params, examples)
    squares = squared_norms(gradients)
    return dot(gradients, directions) / jax.numpy.sqrt(squares), squares
