"""Optimizers as settings: plain values that can be compared and written to JSON, and `build()` to make the transformation.

`per_example` says whether an aggregator needs per-example gradients; one that does not is content with the batch gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import optax

    from coherence.optim.aggregation import Aggregator


@dataclass(frozen=True)
class Average:
    """The mean gradient."""

    per_example: ClassVar[bool] = False

    def build(self) -> Aggregator:
        from coherence.optim.averaging import average

        return average()


@dataclass(frozen=True)
class Winsorize:
    """The mean after pulling each coordinate's outliers in."""

    c: float = 2.0
    """Percent of the examples pulled in on each side, in [0, 50]; 50 is the median."""
    per_example: ClassVar[bool] = True

    def __post_init__(self):
        if not 0 <= self.c <= 50:
            raise ValueError(f"Winsorize: c is in percent of the examples, in [0, 50], got {self.c}.")

    def build(self) -> Aggregator:
        from coherence.optim.winsorizing import winsorize

        return winsorize(self.c)


@dataclass(frozen=True)
class Median:
    """The coordinate-wise median."""

    per_example: ClassVar[bool] = True

    def build(self) -> Aggregator:
        from coherence.optim.medians import median

        return median()


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent."""

    learning_rate: float = 0.1
    momentum: float = 0.0

    def __post_init__(self):
        if not self.learning_rate >= 0 or not 0 <= self.momentum < 1:
            raise ValueError(
                "SGD: learning_rate is at least 0 and momentum in [0, 1), "
                f"got learning_rate={self.learning_rate}, momentum={self.momentum}."
            )

    def build(self) -> optax.GradientTransformation:
        import optax

        return optax.sgd(self.learning_rate, self.momentum or None)


@dataclass(frozen=True)
class L1Decay:
    """A constant pull toward zero; goes between the aggregator and the learning rate."""

    rate: float

    def build(self) -> optax.GradientTransformation:
        from coherence.optim.decay import l1_decay

        return l1_decay(self.rate)


@dataclass(frozen=True)
class L2Decay:
    """A pull toward zero in proportion to the weight; goes between the aggregator and the learning rate."""

    rate: float

    def build(self) -> optax.GradientTransformation:
        from coherence.optim.decay import l2_decay

        return l2_decay(self.rate)


@dataclass(frozen=True)
class SoftThreshold:
    """Exact zeros; goes last. The rate is per step: already multiplied by the learning rate."""

    rate: float

    def build(self) -> optax.GradientTransformation:
        from coherence.optim.decay import soft_threshold

        return soft_threshold(self.rate)
