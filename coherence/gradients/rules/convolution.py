"""Convolutions: any strides, padding, dilations (so transposed ones too), feature groups (so depthwise) and dimension order."""

import math

from coherence.gradients.layout import reshaping, transposition
from coherence.gradients.terms import Convolved, Window
from coherence.jax_internals import convolution


def conv_general_dilated(equation, place):
    """G[b, (o, c), n] = sum_t x[t s + o, b, c] dy[b, t, n]: o places of the window, b feature groups, t positions of the output."""
    geometry = convolution(equation)
    if place != 1 or geometry.batch_groups != 1:
        return None
    groups = geometry.feature_groups
    out, channels, *spatial = geometry.rhs_spec  # where the kernel has its dimensions
    kernel = equation.invars[1].aval.shape
    size = tuple(kernel[i] for i in spatial)
    k, n = math.prod(size) * kernel[channels], kernel[out] // groups
    window = Window(
        size,
        geometry.strides,
        geometry.padding,
        geometry.lhs_dilation,
        geometry.rhs_dilation,
    )

    def factors(x, dy):
        images = x.transpose(_channels_last(geometry.lhs_spec))
        cotangents = (
            dy.transpose(_channels_last(geometry.out_spec)).reshape(-1, groups, n).swapaxes(0, 1)
        )
        return Convolved(images, cotangents, window=window)

    return (
        transposition((*spatial, channels, out)),
        reshaping((k, groups, n)),
        transposition((1, 0, 2)),
    ), factors


def _channels_last(spec):
    """`spec` says where batch, channels and the spatial dimensions are."""
    return (spec[0], *spec[2:], spec[1])
