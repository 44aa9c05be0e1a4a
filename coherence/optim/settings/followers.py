"""Settings of what comes behind the aggregator: the optimizer and the background forces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optax


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
