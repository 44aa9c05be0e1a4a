"""Biases and scales: a parameter of the output's shape (its broadcasting is layout) is added to data or multiplies it.

The gradient of one example is as large as the cotangent, so K = 1: G[0, 0, n] = 1 * d[n].
"""

import math

import jax.numpy as jnp

from ..layout import reshaping


def _diagonal(equation, place, slope):
    shape = equation.outvars[0].aval.shape
    if equation.invars[place].aval.shape != shape:
        return None
    n = math.prod(shape)

    def factors(x, dy):
        return jnp.ones((1, 1, 1), dy.dtype), (slope(x) * dy).reshape(1, 1, n)

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
