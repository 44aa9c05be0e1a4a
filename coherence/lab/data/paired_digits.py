"""Pairs of handwritten digits side by side: a hundred classes of real images."""

from __future__ import annotations

import numpy as np

from coherence.lab.data.dataset import Dataset
from coherence.lab.data.handwritten_digits import mnist

HEIGHT, WIDTH = 28, 56  # of a pair


def digit_pairs(
    examples: int = 4000, tests: int = 2000, classes: int = 100, seed: int = 0
) -> Dataset:
    """Two MNIST images side by side, 28 x 56 pixels, flat, float32 in [0, 1].

    Of 100 classes the label is the number that is written, 00 to 99; of 10 it is the left digit
    of the very same images: only the number of classes differs. On each side an image occurs at
    most once. Images of training pairs are MNIST's training images, those of test pairs its test
    images. The images are found, downloaded and verified as `mnist` says.

    Args:
        examples: pairs to train on, up to 60,000.
        tests: pairs to test on, up to 10,000.
        classes: 100, or 10 for the left digit alone.
        seed: of the draw; more pairs keep those that fewer have.

    >>> from coherence.lab.data import digit_pairs
    >>> digit_pairs(classes=20)
    Traceback (most recent call last):
    ...
    ValueError: digit_pairs(classes): 100, or 10 (the left digit), got 20.
    """
    if classes not in (10, 100):
        raise ValueError(f"digit_pairs(classes): 100, or 10 (the left digit), got {classes}.")
    single = mnist()
    train = _paired(single.x_train, single.y_train, examples, [seed, 0])
    test = _paired(single.x_test, single.y_test, tests, [seed, 1])
    (x_train, y_train), (x_test, y_test) = train, test
    if classes == 10:
        y_train, y_test = y_train // 10, y_test // 10
    digits = 2 if classes == 100 else 1
    names = tuple(f"{label:0{digits}}" for label in range(classes))
    return Dataset("digit_pairs", x_train, y_train, x_test, y_test, names)


def _paired(images, labels, count, seed):
    """So many pairs, no image twice on the same side: `([count, 28 * 56], [count])`."""
    if not 1 <= count <= len(labels):
        raise ValueError(
            f"digit_pairs(examples, tests): from 1 to the {len(labels):,} images there are, "
            f"got {count}."
        )
    rng = np.random.default_rng(seed)
    left, right = (rng.permutation(len(labels))[:count] for _ in range(2))
    squares = images.reshape(-1, HEIGHT, WIDTH // 2)
    pairs = np.concatenate([squares[left], squares[right]], axis=2)
    return pairs.reshape(count, -1), 10 * labels[left] + labels[right]
