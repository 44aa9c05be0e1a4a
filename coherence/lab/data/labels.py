"""Label noise: what separates what examples share from what must be memorized."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np

from coherence.lab.data.dataset import Dataset

LabelNoise = Callable[[Dataset, int], tuple[Dataset, np.ndarray]]


def label_noise(fraction: float = 0.0, how: Literal["permute", "redraw"] = "permute") -> LabelNoise:
    """Random labels for a fraction of the training examples; test labels stay clean.

    Args:
        fraction: of the examples chosen, in [0, 1].
        how: permute labels among the chosen examples, or redraw them uniformly.

    Returns:
        A function of a data set and a seed, which gives the data set with noisy training labels and
        which training examples are corrupt (bool `[n]`): see `corrupt_labels`.

    >>> from coherence.lab.data import digits
    >>> noise: LabelNoise = label_noise(0.5)
    >>> noisy, corrupt = noise(digits(), 0)
    >>> bool(0.4 < corrupt.mean() < 0.5)  # a tenth of the permuted keep their label
    True
    """
    _check(fraction, how)

    def add_noise(dataset: Dataset, seed: int) -> tuple[Dataset, np.ndarray]:
        if not dataset.classes:
            raise ValueError(
                f"label_noise: {dataset.name} has targets, not classes; "
                "only class labels can be made noisy."
            )
        noisy, corrupt = corrupt_labels(
            dataset.y_train, fraction, seed=seed, how=how, classes=len(dataset.classes)
        )
        return dataclasses.replace(dataset, y_train=noisy), corrupt

    return add_noise


def corrupt_labels(
    labels: np.ndarray,
    fraction: float,
    *,
    seed: int,
    how: str = "permute",
    classes: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a fraction is random, and which examples are corrupt: whose label changed.

    Exactly `round(fraction * n)` examples are chosen without replacement. (The authors' code picks
    each example by its own coin instead, so that their number varies from seed to seed; the
    expected fraction is the same.) Their labels are then

    * `how="permute"`: permuted among them. Class frequencies stay what they were. (Coherent
      Gradients, arXiv:2002.10657.)
    * `how="redraw"`: drawn again, uniformly over the `classes`. (Weak and Strong Gradient
      Directions, arXiv:2003.07422.)

    With ten balanced classes a tenth of the chosen keep their label by luck: those are pristine,
    not corrupt. Draw once a seed and keep the result; labels drawn again at every access cannot be
    memorized.

    Args:
      labels: integers `[n]`.
      fraction: of the examples chosen, in [0, 1].
      seed: the same seed gives the same labels.
      how: "permute" or "redraw".
      classes: the number of classes to redraw from; the largest label plus one if not given.

    Returns:
      The labels `[n]`, a copy of the same dtype, and a bool `[n]`, true where corrupt.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            "corrupt_labels(labels): labels are integers of shape [n], "
            f"got {labels.dtype} of shape {labels.shape}."
        )
    _check(fraction, how)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(labels))[: round(fraction * len(labels))]
    noisy = labels.copy()
    if how == "permute":
        noisy[chosen] = rng.permutation(labels[chosen])
    else:
        if classes is None:
            classes = 1 + (int(labels.max()) if len(labels) else 0)
        noisy[chosen] = rng.integers(classes, size=len(chosen), dtype=labels.dtype)
    return noisy, noisy != labels


def _check(fraction, how):
    if not 0 <= fraction <= 1:
        raise ValueError(
            "label_noise(fraction): the fraction of examples given random labels is in [0, 1], "
            f"got {fraction}."
        )
    if how not in ("permute", "redraw"):
        raise ValueError(f'label_noise(how): "permute" or "redraw", got {how!r}.')
