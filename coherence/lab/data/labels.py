"""Label noise: what separates what examples share from what must be memorized."""

from __future__ import annotations

import numpy as np


def corrupt_labels(
    labels: np.ndarray,
    fraction: float,
    *,
    seed: int,
    how: str = "permute",
    classes: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a fraction is random, and which examples are corrupt: whose label really changed.

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
            f"corrupt_labels(labels): labels are integers of shape [n], got {labels.dtype} of shape {labels.shape}."
        )
    if not 0 <= fraction <= 1:
        raise ValueError(
            f"corrupt_labels(fraction): the fraction of examples given random labels is in [0, 1], got {fraction}."
        )
    if how not in ("permute", "redraw"):
        raise ValueError(f'corrupt_labels(how): how is "permute" or "redraw", got {how!r}.')
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(labels))[: round(fraction * len(labels))]
    noisy = labels.copy()
    if how == "permute":
        noisy[chosen] = rng.permutation(labels[chosen])
    else:
        noisy[chosen] = rng.integers(
            int(labels.max(initial=-1)) + 1 if classes is None else classes,
            size=len(chosen),
            dtype=labels.dtype,
        )
    return noisy, noisy != labels
