"""Residual networks."""

from __future__ import annotations

import flax.linen as nn
import jax

from coherence.lab.models.network import Network, at_least, check_shape, images

MOST_GROUPS = 32  # of group norm, as in Wu & He, arXiv:1803.08494


class ResNet(Network):
    """A residual network for small images with group norm (He et al., arXiv:1512.03385).

    Unlike with batch norm, an example has a gradient of its own.
    `depth` are the residual blocks of a stage, two 3 x 3 convolutions each; each of the `stages`
    after the first halves the image and doubles the channels, which start at `width`. `ResNet()` is
    ResNet-18 with its stem for small images, 11 million parameters. Every norm has as many groups:
    the largest divisor of `width`, up to 32, that leaves two channels to a group. Takes one image
    `[h, w, c]` or a batch `[m, h, w, c]`; with `shape=(h, w, c)` also flat examples, which it
    folds.
    """

    width: int = 64
    """Channels of the first stage; each stage that follows has twice those of the one before."""
    depth: int = 2
    """Residual blocks of a stage, two convolutions each."""
    outputs: int = 10
    stages: int = 4
    """Each after the first halves the image."""
    shape: tuple[int, ...] | None = None
    """Height, width and channels to fold flat examples into (None: examples are images already)."""

    @nn.nowrap
    def check(self) -> None:
        at_least(self, width=1, depth=1, stages=1)
        check_shape(self, ("height", "width", "channels"), (28, 28, 1))

    @nn.nowrap
    def describe(self, inputs: int) -> str:
        # Named, as usual, by its convolutions and the last layer.
        return f"ResNet-{2 * self.stages * self.depth + 2} of width {self.width}"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = images(x, self.shape, "ResNet")
        single = x.ndim == 3
        x = x[None] if single else x  # group norm reduces over all but the first dimension
        x = nn.relu(self._norm("stem_norm")(self._convolution(self.width, 3, 1, "stem")(x)))
        for stage in range(self.stages):
            for block in range(self.depth):
                x = self._block(
                    x,
                    self.width * 2**stage,
                    2 if stage and not block else 1,
                    f"stage_{stage}_block_{block}",
                )
        x = nn.Dense(self.outputs, name="output")(x.mean((1, 2)))
        return x[0] if single else x

    def _block(self, x, width, strides, name):
        y = nn.relu(
            self._norm(f"{name}_norm_0")(self._convolution(width, 3, strides, f"{name}_conv_0")(x))
        )
        y = self._norm(f"{name}_norm_1")(self._convolution(width, 3, 1, f"{name}_conv_1")(y))
        if x.shape != y.shape:
            x = self._norm(f"{name}_shortcut_norm")(
                self._convolution(width, 1, strides, f"{name}_shortcut")(x)
            )
        return nn.relu(x + y)

    def _convolution(self, width, size, strides, name):
        return nn.Conv(
            width,
            (size, size),
            strides,
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            name=name,
        )

    def _norm(self, name):
        return nn.GroupNorm(num_groups=groups(self.width), name=name)


def groups(width: int) -> int:
    """The number of groups of every norm.

    The largest divisor of `width`, up to 32, that leaves two channels to a group: a lone channel
    on a 1 x 1 image would be its own mean, and leave nothing.
    """
    most = min(MOST_GROUPS, max(width // 2, 1))
    return max(divisor for divisor in range(1, most + 1) if width % divisor == 0)
