"""Generators and discriminators, trained against each other."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from coherence.lab.models.autoencoders import Decoder, Encoder
from coherence.lab.models.network import at_least, chain_of

SLOPE = 0.2
"""Of the leaky rectifiers, below 0."""


class AdversarialNetwork(nn.Module):
    """Two players, whose parameters are `generator` and `discriminator`. Not for use by itself.

    >>> from coherence.lab.models import GAN
    >>> issubclass(GAN, AdversarialNetwork)
    True
    """

    def __post_init__(self) -> None:
        self.check()
        super().__post_init__()

    @nn.nowrap
    def check(self) -> None:
        """Refuse impossible sizes, with a ValueError."""

    @nn.nowrap
    def describe(self) -> str:
        """The players in a few words: `GAN 16-128-128-64 against 64-128-128-1`."""
        raise NotImplementedError

    def generate(self, z: jax.Array, *labels: jax.Array) -> jax.Array:
        """The examples of z, `[latents]` or `[m, latents]`.

        Args:
            labels: integers, only where the network has classes.
        """
        raise NotImplementedError

    def discriminate(self, x: jax.Array, *labels: jax.Array) -> jax.Array:
        """How real examples look, a number each: the log odds that they are, where trained so."""
        raise NotImplementedError

    def __call__(self, x: jax.Array, *labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What is generated from z = 0, and how real x looks: initializes both players."""
        z = jnp.zeros((*x.shape[: -len(self.shape)], self.latents), x.dtype)
        return self.generate(z, *labels), self.discriminate(x, *labels)


class GAN(AdversarialNetwork):
    """Dense layers with leaky ReLU, as many in either player; the label stands beside z and x.

    Starts from PyTorch's defaults (`uniform_init`). Goodfellow et al. 2014 (arXiv:1406.2661); with
    classes Mirza & Osindero 2014 (arXiv:1411.1784).
    """

    width: int = 128
    """Units in each hidden layer."""
    depth: int = 2
    """Hidden layers of each player."""
    latents: int = 16
    """Numbers, normal, that an example is generated from."""
    shape: tuple[int, ...] = (8, 8, 1)
    """Of an example: height, width and channels, or so many numbers, as (2,)."""
    classes: int = 0
    """Labels that both players are told of; 0 tells them nothing."""
    bounded: bool = True
    """Numbers in [0, 1], as grey levels: tanh, and both players see them from -1 to 1. Else any."""

    @nn.nowrap
    def check(self) -> None:
        at_least(self, width=1, depth=0, latents=1, classes=0)
        if not self.shape or min(self.shape) < 1:
            raise ValueError(
                f"GAN: shape is an example's, as (8, 8, 1) or (2,); got {tuple(self.shape)}."
            )

    @nn.nowrap
    def describe(self) -> str:
        hidden, size = [self.width] * self.depth, math.prod(self.shape)
        words = f"{chain_of(self.latents, *hidden, size)} against {chain_of(size, *hidden, 1)}"
        return (
            f"conditional GAN {words}, {self.classes} classes" if self.classes else f"GAN {words}"
        )

    def setup(self):
        self.generator = Decoder(self.width, self.depth, self.shape, SLOPE)
        self.discriminator = Encoder(self.width, self.depth, 1, ("score",), SLOPE)

    def generate(self, z: jax.Array, *labels: jax.Array) -> jax.Array:
        outputs = self.generator(self._beside(z, labels))
        return (jnp.tanh(outputs) + 1) / 2 if self.bounded else outputs

    def discriminate(self, x: jax.Array, *labels: jax.Array) -> jax.Array:
        x = x.reshape(*x.shape[: -len(self.shape)], -1)
        (scores,) = self.discriminator(self._beside(2 * x - 1 if self.bounded else x, labels))
        return scores[..., 0]

    def _beside(self, x, labels):
        if len(labels) != bool(self.classes):
            told = "a label each" if self.classes else "no labels"
            raise ValueError(
                f"GAN(classes={self.classes}) takes {told}, got {len(labels)} arrays of labels: an "
                f"example is {'(x, y, key)' if self.classes else '(x, key)'}."
            )
        return jnp.concatenate([x, *(jax.nn.one_hot(y, self.classes) for y in labels)], -1)
