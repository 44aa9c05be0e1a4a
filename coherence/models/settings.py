"""Networks as settings: plain values that can be compared and written to JSON, and `build(outputs)` to make the module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coherence.models.convolutional import CNN
    from coherence.models.dense import MLP, Linear


@dataclass(frozen=True)
class FullyConnected:
    """Hidden layers of one width with ReLU; initialized as in the paper."""

    width: int = 256
    """Units in each hidden layer."""
    depth: int = 1
    """Number of hidden layers; 0 is logistic regression."""

    def __post_init__(self):
        if self.width < 1 or self.depth < 0:
            raise ValueError(f"FullyConnected: width is at least 1 and depth at least 0, got width={self.width}, depth={self.depth}.")

    def build(self, outputs: int) -> MLP:
        from coherence.models.dense import MLP

        return MLP(self.width, self.depth, outputs)


@dataclass(frozen=True)
class Convolutional:
    """3 x 3 convolutions with ReLU, no batch norm."""

    features: tuple[int, ...] = (32, 64, 64)
    """Channels of each convolution."""
    shape: tuple[int, ...] | None = None
    """Height, width and channels to fold flat examples into (None: examples are images already)."""

    def __post_init__(self):
        if not self.features or min(self.features) < 1:
            raise ValueError(f"Convolutional: features are the channels of at least one convolution, each at least 1; got {self.features}.")
        if self.shape is not None and len(self.shape) != 3:
            raise ValueError(f"Convolutional: shape is height, width and channels, as (28, 28, 1); got {self.shape}.")

    def build(self, outputs: int) -> CNN:
        from coherence.models.convolutional import CNN

        return CNN(tuple(self.features), outputs, None if self.shape is None else tuple(self.shape))


@dataclass(frozen=True)
class LinearMap:
    """A linear map without bias that starts at zero."""

    def build(self, outputs: int) -> Linear:
        from coherence.models.dense import Linear

        return Linear(outputs)
