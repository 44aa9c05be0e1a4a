"""The variational autoencoder of convolutions."""

from __future__ import annotations

import flax.linen as nn
import jax

from coherence.lab.models.autoencoders import SLOPE, Autoencoder, dense
from coherence.lab.models.network import chain_of, images, uniform_init

WINDOW = (3, 3)


class ConvVAE(Autoencoder):
    """A `VAE` of four 3 x 3 convolutions, and four transposed ones back.

    Two of them halve the image, and two double it.
    Channels are `width`, then twice as many: `ConvVAE()` is 1-32-64-64-64 over 28, 14, 7 and 7
    pixels, and 64-64-64-32-1 back. Leaky ReLU everywhere but behind the dense layer that z enters
    by and the last layer, which has the sigmoid. Windows lie as in PyTorch with padding 1 (and
    output padding 1), not as `SAME` puts them with a stride. Height and width are multiples of 4.
    Flat images are folded into `shape`.

    >>> ConvVAE(latents=2).latents
    2
    """

    width: int = 32
    """Channels of the first convolution; the next three have twice as many."""
    latents: int = 1
    """Numbers in the middle."""
    shape: tuple[int, ...] = (28, 28, 1)
    """Height, width and channels of an image; height and width are multiples of 4."""
    sigmoid: bool = True
    """Grey levels through a sigmoid, in [0, 1]."""

    @nn.nowrap
    def check(self) -> None:
        super().check()
        if any(side % 4 for side in self.shape[:2]):
            raise ValueError(
                "ConvVAE(shape): height and width are halved twice, so multiples of 4; "
                f"got {tuple(self.shape)}."
            )

    @nn.nowrap
    def describe(self) -> str:
        return f"convolutional VAE {chain_of(self.width, *[2 * self.width] * 3, self.latents)}"

    def setup(self):
        self.encoder = ConvEncoder(self.width, self.latents)
        self.decoder = ConvDecoder(self.width, self.shape)

    def encode(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`(mu, log_var)`, each `[latents]` or `[m, latents]`."""
        return self.encoder(images(x, self.shape, "ConvVAE"))

    def __call__(self, x: jax.Array) -> jax.Array:
        """The reconstruction from the mean of z: nothing is drawn."""
        return self.decode(self.encode(x)[0])


class ConvEncoder(nn.Module):
    """Convolutions, then mean and log variance from all positions."""

    width: int
    latents: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        for layer, (features, stride) in enumerate(
            [(self.width, 1), (2 * self.width, 2), (2 * self.width, 2), (2 * self.width, 1)]
        ):
            start = uniform_init(9 * x.shape[-1])
            x = nn.Conv(
                features,
                WINDOW,
                stride,
                padding=1,
                kernel_init=start,
                bias_init=start,
                name=f"conv_{layer}",
            )(x)
            x = nn.leaky_relu(x, SLOPE)
        x = x.reshape(*x.shape[:-3], -1)
        mu, log_var = (dense(self.latents, x.shape[-1], head)(x) for head in ("mu", "log_var"))
        return mu, log_var


class ConvDecoder(nn.Module):
    """A dense layer to a small map, then transposed convolutions."""

    width: int
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        height, width, channels = self.shape
        corner = (height // 4, width // 4, 2 * self.width)
        x = dense(corner[0] * corner[1] * corner[2], z.shape[-1], "input")(z)
        x = x.reshape(*x.shape[:-1], *corner)
        layers = [(2 * self.width, 1), (2 * self.width, 2), (self.width, 2), (channels, 1)]
        for layer, (features, stride) in enumerate(layers):
            x = nn.leaky_relu(x, SLOPE) if layer else x
            start = uniform_init(9 * features)
            # One less than the window minus the padding of 1 in front, and the stride's remainder,
            # the output padding, behind.
            edges = ((1, stride), (1, stride))
            x = nn.ConvTranspose(
                features,
                WINDOW,
                (stride, stride),
                padding=edges,
                kernel_init=start,
                bias_init=start,
                name=f"conv_{layer}",
            )(x)
        return x
