"""Residual networks."""

from __future__ import annotations

import flax.linen as nn
import jax


class ResNet(nn.Module):
    """A residual network for small images (He et al., arXiv:1512.03385) with group norm: an example has a gradient of its own.

    `blocks` are the residual blocks of each stage, two 3 x 3 convolutions each; a stage after the first halves the image and
    doubles the channels, which start at `width`. `ResNet()` is ResNet-18 with its stem for small images, 11 million parameters.
    Takes one image `[h, w, c]` or a batch `[m, h, w, c]`.
    """

    width: int = 64
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    outputs: int = 10
    groups: int = 32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if x.ndim not in (3, 4):
            raise ValueError(f"ResNet takes images [h, w, c] or a batch of them [m, h, w, c], got shape {x.shape}.")
        single = x.ndim == 3
        x = x[None] if single else x  # group norm reduces over all but the first dimension
        x = nn.relu(self._norm("stem_norm")(self._convolution(self.width, 3, 1, "stem")(x)))
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                x = self._block(x, self.width * 2**stage, 2 if stage and not block else 1, f"stage_{stage}_block_{block}")
        x = nn.Dense(self.outputs, name="output")(x.mean((1, 2)))
        return x[0] if single else x

    def _block(self, x, width, strides, name):
        y = nn.relu(self._norm(f"{name}_norm_0")(self._convolution(width, 3, strides, f"{name}_conv_0")(x)))
        y = self._norm(f"{name}_norm_1")(self._convolution(width, 3, 1, f"{name}_conv_1")(y))
        if x.shape != y.shape:
            x = self._norm(f"{name}_shortcut_norm")(self._convolution(width, 1, strides, f"{name}_shortcut")(x))
        return nn.relu(x + y)

    def _convolution(self, width, size, strides, name):
        return nn.Conv(width, (size, size), strides, use_bias=False, kernel_init=nn.initializers.he_normal(), name=name)

    def _norm(self, name):
        return nn.GroupNorm(num_groups=self.groups, name=name)
