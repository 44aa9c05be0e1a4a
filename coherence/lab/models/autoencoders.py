"""Autoencoders of dense layers: plain, variational, and conditional on the label."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from coherence.lab.models.network import at_least, chain_of, check_shape, flat, uniform_init

SLOPE = 0.01
"""Of the leaky rectifiers, below 0."""


class Autoencoder(nn.Module):
    """An image through a few numbers and back. Not for use by itself.

    >>> from coherence.lab.models import AE, VAE
    >>> issubclass(AE, Autoencoder), issubclass(VAE, Autoencoder)
    (True, True)
    """

    def __post_init__(self) -> None:
        self.check()
        super().__post_init__()

    @nn.nowrap
    def check(self) -> None:
        """Refuse impossible sizes, with a ValueError."""
        at_least(self, width=1, latents=1)
        check_shape(self, ("height", "width", "channels"), (28, 28, 1))

    @nn.nowrap
    def describe(self) -> str:
        """The network in a few words: `VAE 784-2048-2048-1`."""
        raise NotImplementedError

    def logits(self, z: jax.Array, *labels: jax.Array) -> jax.Array:
        """The decoder's outputs, before the sigmoid of networks that have one.

        Args:
            z: `[latents]` or `[m, latents]`.
            labels: integers, only where the network has classes.
        """
        return self.decoder(
            jnp.concatenate([z, *(jax.nn.one_hot(y, self.classes) for y in labels)], -1)
        )

    def decode(self, z: jax.Array, *labels: jax.Array) -> jax.Array:
        """The images of z, `[latents]` or `[m, latents]`."""
        outputs = self.logits(z, *labels)
        return nn.sigmoid(outputs) if self.sigmoid else outputs


class DenseAutoencoder(Autoencoder):
    """An autoencoder of dense layers. Not for use by itself."""

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

    @nn.nowrap
    def check(self) -> None:
        super().check()
        at_least(self, depth=0)

    @nn.nowrap
    def describe(self) -> str:
        sizes = chain_of(math.prod(self.shape), *[self.width] * self.depth, self.latents)
        return f"{type(self).__name__} {sizes}"


class AE(DenseAutoencoder):
    """An autoencoder of hidden layers of one width with leaky ReLU.

    Image to z and back, each by `depth` hidden layers; no distribution anywhere.
    Takes one image or a batch, flat or folded; `shape` is that of a decoded one. Starts from
    PyTorch's defaults (`uniform_init`). The tutorial's is `AE()`.

    >>> model = AE(width=8, depth=1, shape=(8, 8, 1))
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.zeros((2, 8, 8, 1)))[0].shape
    (2, 8, 8, 1)
    """

    def setup(self):
        self.encoder = Encoder(self.width, self.depth, self.latents, ("z",))
        self.decoder = Decoder(self.width, self.depth, self.shape)

    def encode(self, x: jax.Array) -> jax.Array:
        """z, `[latents]` or `[m, latents]`."""
        return self.encoder(flat(x))[0]

    def __call__(self, x: jax.Array) -> jax.Array:
        """The reconstruction."""
        return self.decode(self.encode(x))


class VAE(DenseAutoencoder):
    """A variational autoencoder: an `AE` whose encoder puts out a normal distribution of z.

    Its mean and the logarithm of its variance come from a linear layer each.
    """

    def setup(self):
        self.encoder = Encoder(self.width, self.depth, self.latents, ("mu", "log_var"))
        self.decoder = Decoder(self.width, self.depth, self.shape)

    def encode(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`(mu, log_var)`, each `[latents]` or `[m, latents]`."""
        mu, log_var = self.encoder(flat(x))
        return mu, log_var

    def __call__(self, x: jax.Array) -> jax.Array:
        """The reconstruction from the mean of z: nothing is drawn."""
        return self.decode(self.encode(x)[0])


class ConditionalVAE(DenseAutoencoder):
    """A `VAE` conditional on the label: it can draw images *of* a class.

    The label, one-hot, stands beside the image and again beside z.

    >>> ConditionalVAE(latents=2, classes=3).classes
    3
    """

    classes: int = 10
    """Number of labels."""

    @nn.nowrap
    def check(self) -> None:
        super().check()
        at_least(self, classes=1)

    @nn.nowrap
    def describe(self) -> str:
        words = super().describe().replace("ConditionalVAE", "conditional VAE")
        return f"{words}, {self.classes} classes"

    def setup(self):
        self.encoder = Encoder(self.width, self.depth, self.latents, ("mu", "log_var"))
        self.decoder = Decoder(self.width, self.depth, self.shape)

    def encode(self, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`(mu, log_var)` of images with integer labels y, `[]` or `[m]`."""
        mu, log_var = self.encoder(jnp.concatenate([flat(x), jax.nn.one_hot(y, self.classes)], -1))
        return mu, log_var

    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """The reconstruction from the mean of z: nothing is drawn."""
        return self.decode(self.encode(x, y)[0], y)


class Encoder(nn.Module):
    """Hidden layers, then a linear layer for each head; an output a head."""

    width: int
    depth: int
    latents: int
    heads: tuple[str, ...]
    slope: float = SLOPE

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        for layer in range(self.depth):
            x = nn.leaky_relu(dense(self.width, x.shape[-1], f"hidden_{layer}")(x), self.slope)
        return tuple(dense(self.latents, x.shape[-1], head)(x) for head in self.heads)


class Decoder(nn.Module):
    """Hidden layers, then a linear layer to the pixels, folded into images."""

    width: int
    depth: int
    shape: tuple[int, ...]
    slope: float = SLOPE

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        for layer in range(self.depth):
            z = nn.leaky_relu(dense(self.width, z.shape[-1], f"hidden_{layer}")(z), self.slope)
        pixels = dense(math.prod(self.shape), z.shape[-1], "output")(z)
        return pixels.reshape(*pixels.shape[:-1], *self.shape)


def dense(features: int, inputs: int, name: str) -> nn.Dense:
    """A dense layer that starts from PyTorch's defaults."""
    start = uniform_init(inputs)
    return nn.Dense(features, kernel_init=start, bias_init=start, name=name)
