"""Settings of the networks that put out images like those they read. Their `build()` needs to be told nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coherence.lab.models.autoencoders import AE, VAE, ConditionalVAE
    from coherence.lab.models.convolutional_autoencoders import ConvVAE


@dataclass(frozen=True)
class _Dense:
    width: int = 2048
    """Units in each hidden layer."""
    depth: int = 2
    """Hidden layers of the encoder, and of the decoder."""
    latents: int = 1
    """Numbers in the middle."""
    shape: tuple[int, ...] = (28, 28, 1)
    """Height, width and channels of an image."""
    sigmoid: bool = False
    """Grey levels through a sigmoid, in [0, 1]."""

    def __post_init__(self):
        _check(self, "width", "latents")
        if self.depth < 0:
            raise ValueError(f"{type(self).__name__}: depth is at least 0, got depth={self.depth}.")

    def _sizes(self):
        height, width, channels = self.shape
        return "-".join(
            map(str, [height * width * channels, *[self.width] * self.depth, self.latents])
        )


@dataclass(frozen=True)
class Autoencoder(_Dense):
    """Image to a few numbers and back, by dense layers."""

    def build(self) -> AE:
        from coherence.lab.models.autoencoders import AE

        return AE(self.width, self.depth, self.latents, tuple(self.shape), self.sigmoid)

    def describe(self) -> str:
        return f"AE {self._sizes()}"


@dataclass(frozen=True)
class Variational(_Dense):
    """An autoencoder of dense layers whose middle is a normal distribution."""

    def build(self) -> VAE:
        from coherence.lab.models.autoencoders import VAE

        return VAE(self.width, self.depth, self.latents, tuple(self.shape), self.sigmoid)

    def describe(self) -> str:
        return f"VAE {self._sizes()}"


@dataclass(frozen=True)
class ConditionalVariational(_Dense):
    """A variational autoencoder of dense layers that is told the label."""

    classes: int = 10
    """Number of labels."""

    def __post_init__(self):
        super().__post_init__()
        _check(self, "classes")

    def build(self) -> ConditionalVAE:
        from coherence.lab.models.autoencoders import ConditionalVAE

        return ConditionalVAE(
            self.width, self.depth, self.latents, tuple(self.shape), self.sigmoid, self.classes
        )

    def describe(self) -> str:
        return f"conditional VAE {self._sizes()}, {self.classes} classes"


@dataclass(frozen=True)
class ConvolutionalVariational:
    """A variational autoencoder of 3 x 3 convolutions."""

    width: int = 32
    """Channels of the first convolution; the next three have twice as many."""
    latents: int = 1
    """Numbers in the middle."""
    shape: tuple[int, ...] = (28, 28, 1)
    """Height, width and channels of an image; height and width are multiples of 4."""
    sigmoid: bool = True
    """Grey levels through a sigmoid, in [0, 1]."""

    def __post_init__(self):
        _check(self, "width", "latents")
        if any(side % 4 for side in self.shape[:2]):
            raise ValueError(
                f"ConvolutionalVariational: height and width are halved twice, so multiples of 4; got shape={self.shape}."
            )

    def build(self) -> ConvVAE:
        from coherence.lab.models.convolutional_autoencoders import ConvVAE

        return ConvVAE(self.width, self.latents, tuple(self.shape), self.sigmoid)

    def describe(self) -> str:
        return "convolutional VAE " + "-".join(
            map(str, [self.width, *[2 * self.width] * 3, self.latents])
        )


AnyAutoencoder = Autoencoder | Variational | ConditionalVariational | ConvolutionalVariational


def _check(network, *names):
    name = type(network).__name__
    sizes = {one: getattr(network, one) for one in names}
    if min(sizes.values()) < 1:
        given = ", ".join(f"{one}={value}" for one, value in sizes.items())
        raise ValueError(
            f"{name}: {' and '.join(names)} {'are' if len(names) > 1 else 'is'} at least 1, got {given}."
        )
    if len(network.shape) != 3:
        raise ValueError(
            f"{name}: shape is height, width and channels, as (28, 28, 1); got {network.shape}."
        )
