"""Biases and scales: a parameter is added to data or multiplies it, broadcast along dimensions where its size is 1.

Broadcast dimensions are positions to sum over, and K = 1: G[0, 0, n] = sum_t 1 * d[t, n].
"""

import math

import jax.numpy as jnp

from coherence.gradients.layout import reshaping


def _diagonal(equation, place, slope):
    shape, out = equation.invars[place].aval.shape, equation.outvars[0].aval.shape
    if len(shape) != len(out):
        return None
    summed = tuple(i for i, (size, whole) in enumerate(zip(shape, out)) if size != whole)
    kept = tuple(i for i in range(len(out)) if i not in summed)
    n = math.prod(shape)

    def factors(x, dy):
        cotangents = (slope(x) * dy).transpose(*summed, *kept).reshape(1, -1, n)
        return jnp.ones((1, cotangents.shape[1], 1), dy.dtype), cotangents

    return (reshaping((1, 1, n)),), factors


def add(equation, place):
    """y = x + b: db = dy."""
    return _diagonal(equation, place, lambda x: 1)


def sub(equation, place):
    """y = x - b or b - x: db = -dy or dy."""
    return _diagonal(equation, place, lambda x: (1, -1)[place])


def mul(equation, place):
    """y = x s: ds = x dy."""
    return _diagonal(equation, place, lambda x: x)
