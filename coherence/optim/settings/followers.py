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
class Adam:
    """Momentum over a running size of each coordinate's gradient (Kingma & Ba, arXiv:1412.6980)."""

    learning_rate: float = 1e-3
    b1: float = 0.9
    b2: float = 0.999

    def __post_init__(self):
        _check_rate(self)
        if not (0 <= self.b1 < 1 and 0 <= self.b2 < 1):
            raise ValueError(f"Adam: b1 and b2 are in [0, 1), got b1={self.b1}, b2={self.b2}.")

    def build(self) -> optax.GradientTransformation:
        import optax

        return optax.adam(self.learning_rate, self.b1, self.b2)


@dataclass(frozen=True)
class AdaGrad:
    """Each coordinate's step shrinks with the squares it has seen (Duchi, Hazan & Singer, JMLR 2011)."""

    learning_rate: float = 0.01

    def __post_init__(self):
        _check_rate(self)

    def build(self) -> optax.GradientTransformation:
        import optax

        return optax.adagrad(self.learning_rate)


@dataclass(frozen=True)
class RMSProp:
    """The gradient over a running size of each coordinate (Tieleman & Hinton, lecture notes, 2012)."""

    learning_rate: float = 1e-3
    decay: float = 0.9

    def __post_init__(self):
        _check_rate(self)
        if not 0 <= self.decay < 1:
            raise ValueError(f"RMSProp: decay is in [0, 1), got {self.decay}.")

    def build(self) -> optax.GradientTransformation:
        import optax

        return optax.rmsprop(self.learning_rate, self.decay)


def _check_rate(optimizer):
    if not optimizer.learning_rate >= 0:
        raise ValueError(
            f"{type(optimizer).__name__}: learning_rate is at least 0, got {optimizer.learning_rate}."
        )


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
