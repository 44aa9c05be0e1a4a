"""The handwritten digits that scikit-learn bundles: real data without a download."""

from __future__ import annotations

import numpy as np

from coherence.lab.data.dataset import Dataset

TEST_EXAMPLES = 360


def digits() -> Dataset:
    """1,797 images of 8 x 8 pixels, flat, float32 in [0, 1] (the 17 grey levels divided by 16), 10 classes.

    The split is always the same: 1,437 to train on and 360 to test on, each class in proportion to
    within one example. Writers appear on both sides of it, so the test accuracy says nothing about
    new writers.

    Alpaydin & Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), its test part, as
    bundled with scikit-learn.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = (bunch.data / 16).astype(np.float32)
    y = bunch.target.astype(np.int32)
    train, test = _split(y)
    return Dataset("digits", x[train], y[train], x[test], y[test], tuple("0123456789"))


def _split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train and to test on, both in shuffled order so that any prefix is mixed."""
    n = len(labels)
    order = np.random.RandomState(0).permutation(
        n
    )  # the legacy stream: the one that numpy never changes
    # Walk through the shuffled examples class by class and take every (n / TEST_EXAMPLES)-th: exact
    # total, proportional classes.
    taken = np.diff(np.arange(n + 1) * TEST_EXAMPLES // n).astype(bool)
    test = np.empty(n, bool)
    test[np.argsort(labels[order], kind="stable")] = taken
    return order[~test], order[test]
