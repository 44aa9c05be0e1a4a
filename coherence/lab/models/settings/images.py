"""Settings of the networks that read images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coherence.lab.models.convolutional import CNN
    from coherence.lab.models.residual import ResNet


@dataclass(frozen=True)
class Convolutional:
    """3 x 3 convolutions with ReLU, no batch norm."""

    width: int = 32
    """Channels of the first convolution; those that follow have twice as many."""
    depth: int = 3
    """Number of convolutions; each after the first halves the image."""
    shape: tuple[int, ...] | None = None
    """Height, width and channels to fold flat examples into (None: examples are images already)."""

    def __post_init__(self):
        _check_at_least_one(self, "width", "depth")
        _check_shape(self)

    def build(self, outputs: int) -> CNN:
        from coherence.lab.models.convolutional import CNN

        return CNN(self.width, self.depth, outputs, self.shape and tuple(self.shape))

    def describe(self, inputs: int, outputs: int) -> str:
        return "CNN " + "-".join(map(str, [self.width, *[2 * self.width] * (self.depth - 1)]))


@dataclass(frozen=True)
class Residual:
    """A residual network with group norm; the default is ResNet-18 for small images."""

    width: int = 64
    """Channels of the first stage; each stage that follows has twice those of the one before."""
    depth: int = 2
    """Residual blocks of a stage, two convolutions each."""
    stages: int = 4
    """Each after the first halves the image."""
    shape: tuple[int, ...] | None = None
    """Height, width and channels to fold flat examples into (None: examples are images already)."""

    def __post_init__(self):
        _check_at_least_one(self, "width", "depth", "stages")
        _check_shape(self)

    def build(self, outputs: int) -> ResNet:
        from coherence.lab.models.residual import ResNet

        return ResNet(
            self.width, self.depth, outputs, self.stages, self.shape and tuple(self.shape)
        )

    def describe(self, inputs: int, outputs: int) -> str:
        return f"ResNet-{2 * self.stages * self.depth + 2} of width {self.width}"  # named, as usual, by its convolutions and the last layer


def _check_at_least_one(network, *names):
    values = {name: getattr(network, name) for name in names}
    if min(values.values()) < 1:
        given = ", ".join(f"{name}={value}" for name, value in values.items())
        raise ValueError(
            f"{type(network).__name__}: {' and '.join(names)} are at least 1, got {given}."
        )


def _check_shape(network):
    if network.shape is not None and len(network.shape) != 3:
        raise ValueError(
            f"{type(network).__name__}: shape is height, width and channels, as (28, 28, 1); got {network.shape}."
        )
