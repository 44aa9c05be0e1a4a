"""Settings of the aggregators that keep some coordinates of the mean gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from coherence.optim.aggregation import Aggregator


@dataclass(frozen=True)
class SignAgreement:
    """The mean gradient where the examples agree on its sign (the AND-mask)."""

    threshold: float = 0.5
    """Share by which one sign outnumbers the other, in [0, 1]."""
    per_example: ClassVar[bool] = True

    def __post_init__(self):
        if not 0 <= self.threshold <= 1:
            raise ValueError(
                f"SignAgreement: threshold is a share of the examples, in [0, 1], got {self.threshold}."
            )

    def build(self) -> Aggregator:
        from coherence.optim.signs import sign_agreement

        return sign_agreement(self.threshold)


@dataclass(frozen=True)
class CoherenceMask:
    """The mean gradient of the layers whose own m-coherence exceeds a threshold."""

    threshold: float = 1.0
    """How many examples of the batch one must help, itself included, at least 0; scales with the batch size."""
    by: Literal["layer", "leaf"] = "layer"
    """What is kept or dropped as one."""
    per_example: ClassVar[bool] = True

    def __post_init__(self):
        if not self.threshold >= 0:
            raise ValueError(
                f"CoherenceMask: threshold is an m-coherence, at least 0, got {self.threshold}."
            )
        if self.by not in ("layer", "leaf"):
            raise ValueError(f"CoherenceMask: by is layer or leaf, got {self.by}.")

    def build(self) -> Aggregator:
        from coherence import trees
        from coherence.optim.coherence_masks import coherence_mask

        return coherence_mask(self.threshold, getattr(trees, self.by))


@dataclass(frozen=True)
class CoordinateMask:
    """The mean gradient of the coordinates whose own m-coherence exceeds a threshold."""

    threshold: float = 1.5
    """How many examples of the batch one must help, itself included, at least 0; scales with the batch size."""
    per_example: ClassVar[bool] = True

    def __post_init__(self):
        if not self.threshold >= 0:
            raise ValueError(
                f"CoordinateMask: threshold is an m-coherence, at least 0, got {self.threshold}."
            )

    def build(self) -> Aggregator:
        from coherence.optim.coherence_masks import coordinate_mask

        return coordinate_mask(self.threshold)


@dataclass(frozen=True)
class TopK:
    """The strongest coordinates of the mean gradient."""

    share: float = 0.1
    """Of the coordinates, in (0, 1]."""
    by_coherence: bool = False
    """Rank by the coordinates' own coherence, not by magnitude."""

    def __post_init__(self):
        if not 0 < self.share <= 1:
            raise ValueError(f"TopK: share is of the coordinates, in (0, 1], got {self.share}.")

    @property
    def per_example(self) -> bool:
        return self.by_coherence

    def build(self) -> Aggregator:
        from coherence.optim.sparsifying import top_k

        return top_k(self.share, by_coherence=self.by_coherence)
