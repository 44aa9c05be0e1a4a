"""Convolutions and then large dense layers, with and without shared weights."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from coherence.lab.models.network import Network, at_least, chain_of, check_shape, images

CONVOLUTIONS = ((5, 2, 1), (3, 2, 2), (3, 1, 2))  # window, stride, times the width


class AlexNet(Network):
    """Three convolutions, then two large dense layers and the logits, ReLU between them.

    What Krizhevsky, Sutskever & Hinton (NIPS 2012) have in common with it: most parameters are in
    the dense layers. Windows are 5, 3 and 3 wide; the first two convolutions halve the image by
    their strides, in place of pooling. With `shared=False` they are locally connected: every place
    of the image has a kernel and a bias of its own, and nothing else differs. Takes one image
    `[h, w, c]` or a batch `[m, h, w, c]`; with `shape=(h, w, c)` also flat examples, which it
    folds.

    >>> from coherence.lab.models import AlexNet
    >>> model, images = AlexNet(width=2, dense=8), jnp.zeros((3, 8, 8, 1))
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), images)[0].shape
    (3, 10)
    """

    width: int = 8
    """Channels of the first convolution; the others have twice as many."""
    dense: int = 256
    """Units of each of the two dense layers."""
    outputs: int = 10
    shared: bool = True
    """Whether all places of the image share a kernel."""
    shape: tuple[int, ...] | None = None
    """Height, width and channels to fold flat examples into (None: examples are images already)."""

    @nn.nowrap
    def check(self) -> None:
        at_least(self, width=1, dense=1)
        check_shape(self, ("height", "width", "channels"), (32, 32, 3))

    @nn.nowrap
    def describe(self, inputs: int) -> str:
        channels = chain_of(*(times * self.width for *_, times in CONVOLUTIONS))
        kind = "AlexNet" if self.shared else "AlexNet, locally connected"
        return f"{kind} {channels}-{self.dense}-{self.dense}"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = images(x, self.shape, "AlexNet")
        init = nn.initializers.he_normal()
        for layer, (window, stride, times) in enumerate(CONVOLUTIONS):
            sizes, name = (window, window), f"conv_{layer}"
            if self.shared:
                x = nn.Conv(times * self.width, sizes, strides=stride, kernel_init=init, name=name)(
                    x
                )
            else:
                x = LocallyConnected(times * self.width, sizes, stride, name=name)(x)
            x = nn.relu(x)
        x = x.reshape(*x.shape[:-3], -1)
        for layer in range(2):
            x = nn.relu(nn.Dense(self.dense, kernel_init=init, name=f"dense_{layer}")(x))
        return nn.Dense(self.outputs, name="output")(x)


class LocallyConnected(nn.Module):
    """A convolution with a kernel and a bias of its own at every place; padding as of `SAME`."""

    channels: int
    window: Sequence[int]
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        seen = windows(x, self.window, self.stride)
        places, inputs = seen.shape[-3:-1], seen.shape[-1]
        init = nn.initializers.he_normal(batch_axis=(0, 1))
        kernel = self.param("kernel", init, (*places, inputs, self.channels))
        bias = self.param("bias", nn.initializers.zeros, (*places, self.channels))
        return jnp.einsum("...hwi,hwio->...hwo", seen, kernel) + bias


def windows(x: jax.Array, window: Sequence[int], stride: int) -> jax.Array:
    """What a convolution sees at each place: `[..., h, w, c]` to `[..., h2, w2, i * j * c]`."""
    sizes = [-(-size // stride) for size in x.shape[-3:-1]]
    missing = [
        max((size - 1) * stride + wide - given, 0)
        for size, wide, given in zip(sizes, window, x.shape[-3:-1])
    ]
    around = [(0, 0)] * (x.ndim - 3) + [(n // 2, n - n // 2) for n in missing] + [(0, 0)]
    padded = jnp.pad(x, around)
    high, wide = ((size - 1) * stride + 1 for size in sizes)
    parts = [
        padded[..., i : i + high : stride, j : j + wide : stride, :]
        for i in range(window[0])
        for j in range(window[1])
    ]
    return jnp.concatenate(parts, -1)
