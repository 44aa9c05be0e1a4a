"""Flat examples as images or sequences: data sets keep theirs flat, some networks want them folded."""

from __future__ import annotations

import math

import jax


def folded(x: jax.Array, shape: tuple[int, ...] | None) -> jax.Array:
    """`[numbers]` or `[m, numbers]` with the last axis folded into `shape`; as it is where there is no shape.

    Raises:
        ValueError: an example has another number of numbers.
    """
    if shape is None:
        return x
    if x.shape[-1] != math.prod(shape):
        raise ValueError(
            f"shape: {tuple(shape)} holds {math.prod(shape)} numbers and a flat example has {x.shape[-1]}. Leave shape away where "
            "examples are folded already."
        )
    return x.reshape(*x.shape[:-1], *shape)


def images(x: jax.Array, shape: tuple[int, ...] | None, who: str) -> jax.Array:
    """One image `[h, w, c]` or a batch `[m, h, w, c]`, folded where they are flat.

    Raises:
        ValueError: they are flat and nobody said how to fold them.
    """
    x = x if x.ndim > 2 else folded(x, shape)
    if x.ndim not in (3, 4):
        raise ValueError(
            f"{who} takes images [h, w, c] or a batch of them [m, h, w, c], got shape {x.shape}. "
            f"For flat examples say how to fold them: {who}(shape=(28, 28, 1))."
        )
    return x
