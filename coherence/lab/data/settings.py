"""Data sets as settings: plain values that can be compared and written to JSON, and `build()` to load them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np

from coherence.lab.data.dataset import Dataset


@dataclass(frozen=True)
class Digits:
    """scikit-learn's handwritten digits: 1,437 + 360 images of 8 x 8 pixels; bundled."""

    def build(self) -> Dataset:
        from coherence.lab.data.bundled import digits

        return digits()


@dataclass(frozen=True)
class MNIST:
    """Handwritten digits: 60,000 + 10,000 images of 28 x 28 pixels; downloaded if need be."""

    examples: int | None = None
    """Use the first so many training examples (None: all)."""

    def build(self) -> Dataset:
        from coherence.lab.data.idx import mnist

        return mnist(self.examples)


@dataclass(frozen=True)
class Npz:
    """A user's own file with keys x_train, y_train, x_test, y_test and perhaps classes."""

    path: str
    examples: int | None = None
    """Use the first so many training examples (None: all)."""

    def build(self) -> Dataset:
        from coherence.lab.data.user_file import npz

        return npz(self.path, self.examples)


@dataclass(frozen=True)
class Learnable:
    """The six-feature set with a shared feature."""

    def build(self) -> Dataset:
        from coherence.lab.data.toy import learnable

        return learnable()


@dataclass(frozen=True)
class Memorizable:
    """The six-feature set without a shared feature."""

    def build(self) -> Dataset:
        from coherence.lab.data.toy import memorizable

        return memorizable()


@dataclass(frozen=True)
class Circles:
    """Outlines of circles, 28 x 28 pixels, with their radius as target; drawn, not downloaded."""

    examples: int = 1000
    """Training images."""
    tests: int = 1000
    """Test images; from a random stream of their own."""
    seed: int = 0
    """Of radii and centres."""

    def build(self) -> Dataset:
        from coherence.lab.data.circles import circle_images

        return circle_images(self.examples, self.tests, self.seed)


@dataclass(frozen=True)
class SMSSpam:
    """Text messages as bags of words, spam or ham; 4,171 + 1,000 distinct ones, downloaded if need be."""

    words: int | None = 2000
    """The most frequent words of the training messages, at most so many (None: all)."""
    counts: bool = False
    """How often a word occurs, instead of whether."""
    examples: int | None = None
    """Training messages (None: all that are not for testing)."""
    tests: int = 1000
    """Test messages."""
    seed: int = 0
    """Of the split."""

    def build(self) -> Dataset:
        from coherence.lab.data.sms import sms_spam

        return sms_spam(**dataclasses.asdict(self))

    def vocabulary(self) -> tuple[str, ...]:
        """The word behind each feature."""
        from coherence.lab.data.sms import sms_vocabulary

        return sms_vocabulary(**dataclasses.asdict(self))


@dataclass(frozen=True)
class LabelNoise:
    """Random labels for a fraction of the training examples; test labels stay clean."""

    fraction: float = 0.0
    how: Literal["permute", "redraw"] = "permute"
    """Permute labels among the chosen examples, or draw them again uniformly."""

    def __post_init__(self):
        if not 0 <= self.fraction <= 1:
            raise ValueError(
                f"LabelNoise(fraction): the fraction of examples given random labels is in [0, 1], got {self.fraction}."
            )

    def apply(self, dataset: Dataset, *, seed: int) -> tuple[Dataset, np.ndarray]:
        """The data set with noisy training labels, and which training examples are corrupt (bool `[n]`)."""
        from coherence.lab.data.labels import corrupt_labels

        if not dataset.classes:
            raise ValueError(
                f"LabelNoise: {dataset.name} has targets, not classes; only class labels can be made noisy."
            )
        noisy, corrupt = corrupt_labels(
            dataset.y_train, self.fraction, seed=seed, how=self.how, classes=len(dataset.classes)
        )
        return dataclasses.replace(dataset, y_train=noisy), corrupt
