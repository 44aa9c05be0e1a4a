"""The variational autoencoder whose code is a small map, for diffusion in a latent space."""

from __future__ import annotations

import flax.linen as nn
import jax

from coherence.lab.models.autoencoders import Autoencoder
from coherence.lab.models.network import at_least, images

SLOPE = 0.2
"""Of the leaky rectifiers, below 0."""


class SpatialVAE(Autoencoder):
    """A `VAE` of few convolutions whose code has numbers for each place of a map of the image.

    The map is the image halved `halvings` times: `SpatialVAE()` takes 8 x 8 pixels to 4 x 4 places
    of one number. Codes are flat, `[latents]`. With `spatial=False` the same convolutions are
    followed by a dense layer to the code and preceded by one from it, so that a number of it may
    be about any place. With `patches` there is a discriminator of patches beside it, whose outputs
    say how real each place of an image looks.

    Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models (arXiv:2112.10752).

    >>> SpatialVAE(latents=32).latents  # two numbers for each of 4 x 4 places
    32
    """

    width: int = 16
    """Channels at the full resolution; the map has twice as many."""
    latents: int = 16
    """Numbers of a code; of a spatial one as many for each place."""
    halvings: int = 1
    """How often height and width are halved."""
    spatial: bool = True
    patches: int = 0
    """Channels of the discriminator; 0: none."""
    shape: tuple[int, ...] = (8, 8, 1)
    """Height, width and channels of an image."""
    sigmoid: bool = False
    """Grey levels through a sigmoid, in [0, 1]."""

    @nn.nowrap
    def check(self) -> None:
        super().check()
        at_least(self, halvings=1, patches=0)
        part = 2**self.halvings
        if any(side % part for side in self.shape[:2]):
            raise ValueError(
                f"SpatialVAE(halvings={self.halvings}, shape={tuple(self.shape)}): height and "
                f"width are multiples of {part}."
            )
        height, width = self.places
        if self.spatial and self.latents % (height * width):
            raise ValueError(
                f"SpatialVAE(latents={self.latents}): the code has as many numbers for each of "
                f"{height} x {width} places, so latents is a multiple of {height * width}."
            )

    @property
    def places(self) -> tuple[int, int]:
        """Height and width of the map."""
        return self.shape[0] >> self.halvings, self.shape[1] >> self.halvings

    @nn.nowrap
    def describe(self) -> str:
        height, width = self.places
        code = f"{height}x{width}x{self.latents // (height * width)}"
        told = f" and patches of {self.patches} channels" if self.patches else ""
        return f"VAE of {self.width} channels to {code if self.spatial else self.latents}{told}"

    def setup(self):
        self.encoder = MapEncoder(self.width, self.latents, self.halvings, self.spatial)
        self.decoder = MapDecoder(
            self.width, self.places, self.halvings, self.spatial, self.shape[-1]
        )
        if self.patches:
            self.discriminator = PatchDiscriminator(self.patches)

    def encode(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`(mu, log_var)`, each `[latents]` or `[m, latents]`."""
        return self.encoder(images(x, self.shape, "SpatialVAE"))

    def discriminate(self, x: jax.Array) -> jax.Array:
        """How real the places of images look, in logits: `[..., places]`."""
        return self.discriminator(images(x, self.shape, "SpatialVAE"))

    def __call__(self, x: jax.Array) -> jax.Array:
        """The reconstruction from the mean of z: nothing is drawn."""
        if self.patches and self.is_initializing():
            self.discriminate(x)
        return self.decode(self.encode(x)[0])


class MapEncoder(nn.Module):
    """Convolutions, then mean and log variance for each place, or from all places."""

    width: int
    latents: int
    halvings: int
    spatial: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = nn.leaky_relu(nn.Conv(self.width, (3, 3), name="input")(x), SLOPE)
        for stage in range(self.halvings):
            x = nn.Conv(2 * self.width, (3, 3), 2, name=f"down_{stage}")(x)
            x = nn.leaky_relu(x, SLOPE)
        places = x.shape[-3] * x.shape[-2]
        flat = lambda y: y.reshape(*y.shape[:-3], -1)
        heads = []
        for name in ("mu", "log_var"):
            if self.spatial:
                heads.append(flat(nn.Conv(self.latents // places, (3, 3), name=name)(x)))
            else:
                heads.append(nn.Dense(self.latents, name=name)(flat(x)))
        return heads[0], heads[1]


class MapDecoder(nn.Module):
    """From the code to a map, then convolutions, each after the map was doubled."""

    width: int
    places: tuple[int, int]
    halvings: int
    spatial: bool
    channels: int

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        height, width = self.places
        if self.spatial:
            x = z.reshape(*z.shape[:-1], height, width, -1)
            x = nn.Conv(2 * self.width, (3, 3), name="input")(x)
        else:
            x = nn.Dense(height * width * 2 * self.width, name="input")(z)
            x = x.reshape(*z.shape[:-1], height, width, -1)
        for stage in range(self.halvings):
            last = stage == self.halvings - 1
            x = nn.leaky_relu(x, SLOPE).repeat(2, -3).repeat(2, -2)
            x = nn.Conv(self.width if last else 2 * self.width, (3, 3), name=f"up_{stage}")(x)
        return nn.Conv(self.channels, (3, 3), name="output")(nn.leaky_relu(x, SLOPE))


class PatchDiscriminator(nn.Module):
    """How real an image looks at each place of a map of half its size, in logits."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.leaky_relu(nn.Conv(self.width, (4, 4), 2, name="patch")(x), SLOPE)
        x = nn.leaky_relu(nn.Conv(self.width, (3, 3), name="neighbours")(x), SLOPE)
        logits = nn.Conv(1, (1, 1), name="output")(x)
        return logits.reshape(*logits.shape[:-3], -1)
