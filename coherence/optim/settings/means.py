"""Settings of the aggregators that are means, of examples or of steps, or count signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from coherence.optim.aggregation import Aggregator


@dataclass(frozen=True)
class Average:
    """The mean gradient."""

    per_example: ClassVar[bool] = False

    def build(self) -> Aggregator:
        from coherence.optim.averaging import average

        return average()


@dataclass(frozen=True)
class RollingMean:
    """The mean of the last few batch gradients (RA3)."""

    window: int = 3
    """How many steps, at least 1."""
    per_example: ClassVar[bool] = False

    def __post_init__(self):
        if not self.window >= 1:
            raise ValueError(f"RollingMean: window is at least 1, got {self.window}.")

    def build(self) -> Aggregator:
        from coherence.optim.rolling import rolling_mean

        return rolling_mean(self.window)


@dataclass(frozen=True)
class NormClip:
    """The mean after scaling long gradients down."""

    max_norm: float = 1.0
    """The length beyond which an example's gradient is scaled down, above 0."""
    per_example: ClassVar[bool] = True

    def __post_init__(self):
        if not self.max_norm > 0:
            raise ValueError(f"NormClip: max_norm is a length, above 0, got {self.max_norm}.")

    def build(self) -> Aggregator:
        from coherence.optim.norm_clipping import norm_clip

        return norm_clip(self.max_norm)


@dataclass(frozen=True)
class SumOfSigns:
    """Each example has one vote a coordinate; the learning rate goes as 1/m."""

    per_example: ClassVar[bool] = True

    def build(self) -> Aggregator:
        from coherence.optim.signs import sum_of_signs

        return sum_of_signs()


@dataclass(frozen=True)
class SignOfSum:
    """The sign of the mean gradient."""

    per_example: ClassVar[bool] = False

    def build(self) -> Aggregator:
        from coherence.optim.signs import sign_of_sum

        return sign_of_sum()
