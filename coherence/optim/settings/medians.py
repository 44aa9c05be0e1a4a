"""Settings of the aggregators that no few examples can move far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from coherence.optim.aggregation import Aggregator


@dataclass(frozen=True)
class Winsorize:
    """The mean after pulling each coordinate's outliers in."""

    c: float = 2.0
    """Percent of the examples pulled in on each side, in [0, 50]; 50 is the median."""
    per_example: ClassVar[bool] = True

    def __post_init__(self):
        if not 0 <= self.c <= 50:
            raise ValueError(
                f"Winsorize: c is in percent of the examples, in [0, 50], got {self.c}."
            )

    def build(self) -> Aggregator:
        from coherence.optim.winsorizing import winsorize

        return winsorize(self.c)


@dataclass(frozen=True)
class TrimmedMean:
    """The mean without each coordinate's outliers."""

    c: float = 2.0
    """Percent of the examples left out on each side, in [0, 50]; 50 is the median."""
    per_example: ClassVar[bool] = True

    def __post_init__(self):
        if not 0 <= self.c <= 50:
            raise ValueError(
                f"TrimmedMean: c is in percent of the examples, in [0, 50], got {self.c}."
            )

    def build(self) -> Aggregator:
        from coherence.optim.trimming import trimmed_mean

        return trimmed_mean(self.c)


@dataclass(frozen=True)
class Median:
    """The coordinate-wise median."""

    per_example: ClassVar[bool] = True

    def build(self) -> Aggregator:
        from coherence.optim.medians import median

        return median()


@dataclass(frozen=True)
class GeometricMedian:
    """The gradient with the least sum of distances to the examples' gradients."""

    iterations: int = 32
    """How often the examples are weighted anew, at least 1."""
    smoothing: float = 1e-3
    """Distances count as no smaller than this share of their median, in (0, 1]."""
    per_example: ClassVar[bool] = True

    def __post_init__(self):
        if not (self.iterations >= 1 and 0 < self.smoothing <= 1):
            raise ValueError(
                "GeometricMedian: iterations is at least 1 and smoothing in (0, 1], "
                f"got iterations={self.iterations}, smoothing={self.smoothing}."
            )

    def build(self) -> Aggregator:
        from coherence.optim.weiszfeld import geometric_median

        return geometric_median(self.iterations, self.smoothing)


@dataclass(frozen=True)
class MedianOfMeans:
    """The median of the means of a few groups of examples (M3)."""

    groups: int = 3
    """How many groups, at least 1."""
    seed: int | None = None
    """Draw the groups by random permutations from this seed; None takes them in the order of the batch."""
    consecutive: bool = False
    """Each group is a whole batch, and every `groups`-th call updates, as in the authors' code."""

    def __post_init__(self):
        if not self.groups >= 1:
            raise ValueError(f"MedianOfMeans: groups is at least 1, got {self.groups}.")
        if self.consecutive and self.seed is not None:
            raise ValueError(
                f"MedianOfMeans: consecutive batches have no order to draw, got seed={self.seed}. Leave one of the two out."
            )

    @property
    def per_example(self) -> bool:
        return not self.consecutive

    def build(self) -> Aggregator:
        from coherence.optim.grouping import median_of_means

        return median_of_means(self.groups, seed=self.seed, consecutive=self.consecutive)


@dataclass(frozen=True)
class RollingMedian:
    """The median of the last few batch gradients (RM3)."""

    window: int = 3
    """How many steps, at least 1."""
    per_example: ClassVar[bool] = False

    def __post_init__(self):
        if not self.window >= 1:
            raise ValueError(f"RollingMedian: window is at least 1, got {self.window}.")

    def build(self) -> Aggregator:
        from coherence.optim.rolling import rolling_median

        return rolling_median(self.window)
