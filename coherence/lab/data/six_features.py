"""The two six-feature sets, on which coherence can be computed by hand."""

from __future__ import annotations

import numpy as np

from coherence.lab.data.dataset import Dataset

_LABELS = np.array([1, -1, -1, 1, -1], np.float32)  # the last example is the test set


def learnable() -> Dataset:
    """Five examples that share a feature; six features, regression.

    Feature 6 is the label, features 1 to 5 are private to one example each.
    The linear model that fits the 4 training examples from zero puts 1/5 on each private feature
    and 4/5 on the shared one, and so is right about the test example. Targets are float32 (a
    regression).

    Chatterjee & Zielinski, On the Generalization Mystery in Deep Learning (arXiv:2203.10036),
    Section 3, dataset L.

    >>> learnable().x_train.shape
    (4, 6)
    """
    return _six_features("learnable", shared=_LABELS)


def memorizable() -> Dataset:
    """Five examples without a shared feature; six features, regression.

    Those of `learnable` without feature 6: fitting the training examples says nothing about the
    test example.
    Chatterjee & Zielinski, On the Generalization Mystery in Deep Learning (arXiv:2203.10036),
    Section 3, dataset M.

    >>> memorizable().x_train.shape
    (4, 6)
    """
    return _six_features("memorizable", shared=np.zeros(5, np.float32))


def _six_features(name: str, shared: np.ndarray) -> Dataset:
    x = np.column_stack([np.diag(_LABELS), shared])
    return Dataset(name, x[:4], _LABELS[:4], x[4:], _LABELS[4:])
