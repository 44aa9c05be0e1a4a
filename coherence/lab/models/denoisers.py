"""Networks that predict the noise in a noisy example: dense layers, and a small U-Net."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from coherence.lab.models.network import at_least, chain_of
from coherence.lab.models.residual import groups


class Denoiser(nn.Module):
    """A network that predicts the noise in an example. Not for use by itself.

    It takes a noisy example and the number t of its noise level, `[*shape]` and `[]`, or m of
    them, `[m, *shape]` and `[m]`; returned is the noise, of the example's shape. One with `classes`
    also takes a label, an integer; without it, or with the label `classes`, it is told none.

    >>> from coherence.lab.models import UNet
    >>> issubclass(UNet, Denoiser)
    True
    """

    def __post_init__(self) -> None:
        self.check()
        super().__post_init__()

    @nn.nowrap
    def check(self) -> None:
        """Refuse impossible sizes, with a ValueError."""
        at_least(self, width=1, depth=1, classes=0, embedding=2)
        if not self.shape or min(self.shape) < 1:
            raise ValueError(
                f"{type(self).__name__}(shape): the sizes of an example's axes, at least 1 each; "
                f"got {tuple(self.shape)}."
            )

    @nn.nowrap
    def describe(self) -> str:
        """The network in a few words: `noise predictor 2-256-256-256-2`."""
        raise NotImplementedError

    def _told(self) -> str:
        return f", told one of {self.classes} classes" if self.classes else ""

    def conditions(self, t: jax.Array, y: jax.Array | None) -> jax.Array:
        """The noise level as sines and cosines, and the label, one-hot: `[..., numbers]`.

        Raises:
            ValueError: a label for a network without classes.
        """
        sizes = jnp.exp(-math.log(10_000) * jnp.arange(0, self.embedding, 2) / self.embedding)
        angles = jnp.asarray(t)[..., None] * sizes
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
        if not self.classes:
            if y is not None:
                raise ValueError(
                    f"{type(self).__name__} has classes=0 and was given a label: say how many "
                    f"classes there are, {type(self).__name__}(classes=10)."
                )
            return waves
        y = jnp.full(jnp.shape(t), self.classes) if y is None else y
        return jnp.concatenate([waves, jax.nn.one_hot(y, self.classes)], -1)

    @nn.nowrap
    def check_input(self, x: jax.Array) -> None:
        """Refuse examples of another shape, with a ValueError."""
        axes = len(self.shape)
        if x.shape[x.ndim - axes :] != tuple(self.shape) or x.ndim not in (axes, axes + 1):
            raise ValueError(
                f"{type(self).__name__}(shape={tuple(self.shape)}) takes one example of this shape "
                f"or a batch of them, got shape {x.shape}."
            )


class DenoisingMLP(Denoiser):
    """Dense layers with SiLU, for points and codes.

    The example, flat, its noise level and its label enter the first layer side by side.
    """

    width: int = 256
    """Units in each hidden layer."""
    depth: int = 3
    """Hidden layers."""
    shape: tuple[int, ...] = (2,)
    """Of an example."""
    classes: int = 0
    """Labels that it can be told; 0: none."""
    embedding: int = 64
    """Sines and cosines that stand for the noise level."""

    @nn.nowrap
    def describe(self) -> str:
        size = math.prod(self.shape)
        return f"noise predictor {chain_of(size, *[self.width] * self.depth, size)}{self._told()}"

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, y: jax.Array | None = None) -> jax.Array:
        self.check_input(x)
        flat = x.reshape(*x.shape[: x.ndim - len(self.shape)], -1)
        hidden = jnp.concatenate([flat, self.conditions(t, y)], -1)
        for layer in range(self.depth):
            hidden = nn.silu(nn.Dense(self.width, name=f"hidden_{layer}")(hidden))
        return nn.Dense(flat.shape[-1], name="output")(hidden).reshape(x.shape)


class UNet(Denoiser):
    """A small U-Net with group norm, for images (Ho et al., arXiv:2006.11239, without attention).

    `depth` resolutions, each half the one before, with `width` channels and twice as many below the
    first. One residual block of two 3 x 3 convolutions at each on the way down, one in the middle,
    and one on the way up, which also sees what the way down had there. Noise level and label enter
    each block through dense layers.

    >>> model, x, t = UNet(width=8), jnp.zeros((2, 8, 8, 1)), jnp.zeros(2, int)
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), x, t)[0].shape
    (2, 8, 8, 1)
    """

    width: int = 16
    """Channels at the full resolution; below there are twice as many."""
    depth: int = 2
    """Resolutions; height and width of an image are multiples of 2^(depth - 1)."""
    shape: tuple[int, ...] = (8, 8, 1)
    """Height, width and channels of an image."""
    classes: int = 0
    """Labels that it can be told; 0: none."""
    embedding: int = 64
    """Sines and cosines that stand for the noise level."""

    @nn.nowrap
    def check(self) -> None:
        super().check()
        if len(self.shape) != 3:
            raise ValueError(
                f"UNet: shape is height, width, channels, as (8, 8, 1); got {tuple(self.shape)}."
            )
        part = 2 ** (self.depth - 1)
        if any(side % part for side in self.shape[:2]):
            raise ValueError(
                f"UNet(depth={self.depth}, shape={tuple(self.shape)}): height and width are halved "
                f"{self.depth - 1} times, so they are multiples of {part}. Take a smaller depth, "
                "or crop or pad the images."
            )

    @nn.nowrap
    def describe(self) -> str:
        channels = [self.width, *[2 * self.width] * (self.depth - 1)]
        return f"U-Net {chain_of(*channels)}{self._told()}"

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, y: jax.Array | None = None) -> jax.Array:
        self.check_input(x)
        single = x.ndim == 3
        x = x[None] if single else x  # group norm reduces over all but the first dimension
        told = self.conditions(t, y)
        told = jnp.broadcast_to(told, (len(x), told.shape[-1]))
        told = nn.silu(nn.Dense(4 * self.width, name="conditions")(told))
        widths = [self.width, *[2 * self.width] * (self.depth - 1)]
        x, passed = _convolution(self.width, 3, "input")(x), []
        for stage, width in enumerate(widths):
            if stage:
                x = _convolution(width, 3, f"down_{stage}", strides=2)(x)
            x = self._block(x, told, width, f"encode_{stage}")
            passed.append(x)
        x = self._block(x, told, widths[-1], "middle")
        for stage in reversed(range(self.depth)):
            x = jnp.concatenate([x, passed[stage]], -1)
            x = self._block(x, told, widths[stage], f"decode_{stage}")
            if stage:
                x = _convolution(widths[stage - 1], 3, f"up_{stage}")(_doubled(x))
        x = nn.silu(self._norm("output_norm")(x))
        x = _convolution(self.shape[-1], 3, "output")(x)
        return x[0] if single else x

    def _block(self, x, told, width, name):
        h = _convolution(width, 3, f"{name}_conv_0")(nn.silu(self._norm(f"{name}_norm_0")(x)))
        h = h + nn.Dense(width, name=f"{name}_conditions")(told)[:, None, None]
        h = _convolution(width, 3, f"{name}_conv_1")(nn.silu(self._norm(f"{name}_norm_1")(h)))
        if x.shape != h.shape:
            x = _convolution(width, 1, f"{name}_shortcut")(x)
        return x + h

    def _norm(self, name):
        return nn.GroupNorm(num_groups=groups(self.width), name=name)


def _convolution(features, size, name, strides=1):
    return nn.Conv(features, (size, size), strides, name=name)


def _doubled(x):
    """Images twice as high and wide, every pixel four times."""
    return x.repeat(2, -3).repeat(2, -2)
