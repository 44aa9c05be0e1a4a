"""What networks share: a base class, checks of sizes, folding of examples, initial weights.

>>> {init(jax.random.key(0), (4, 3), jnp.float32).shape for init in (he_init, paper_init)}
{(4, 3)}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class Network(nn.Module):
    """A network with so many `outputs` for an example. Not for use by itself.

    >>> from coherence.lab.models import MLP
    >>> issubclass(MLP, Network)
    True
    """

    def __post_init__(self) -> None:
        self.check()
        super().__post_init__()

    @nn.nowrap
    def check(self) -> None:
        """Refuse impossible sizes, with a ValueError."""

    @nn.nowrap
    def describe(self, inputs: int) -> str:
        """The network in a few words, for examples of so many numbers: `MLP 784-256-10`."""
        raise NotImplementedError


def at_least(network: Any, **smallest: int) -> None:
    """Refuse fields below their smallest value; `at_least(network, width=1, depth=0)`."""
    sizes = {name: getattr(network, name) for name in smallest}
    if any(sizes[name] < least for name, least in smallest.items()):
        limits = ", ".join(f"{name} is at least {least}" for name, least in smallest.items())
        given = ", ".join(f"{name}={size}" for name, size in sizes.items())
        raise ValueError(f"{type(network).__name__}: {limits}; got {given}.")


def check_shape(network: Any, names: Sequence[str], example: tuple[int, ...]) -> None:
    """Refuse a `shape` with another number of axes than there are `names`."""
    shape = network.shape
    if shape is not None and len(shape) != len(names):
        raise ValueError(
            f"{type(network).__name__}: shape is {', '.join(names)}, as {example}; "
            f"got {tuple(shape)}."
        )


def chain_of(*sizes: int) -> str:
    """`784-256-10`."""
    return "-".join(map(str, sizes))


def folded(x: jax.Array, shape: tuple[int, ...] | None) -> jax.Array:
    """`[numbers]` or `[m, numbers]` with the last axis folded into `shape`, if there is one.

    Raises:
        ValueError: an example has another number of numbers.
    """
    if shape is None:
        return x
    if x.shape[-1] != math.prod(shape):
        raise ValueError(
            f"shape: {tuple(shape)} holds {math.prod(shape)} numbers and a flat example has "
            f"{x.shape[-1]}. Leave shape away where examples are folded already."
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


def flat(x: jax.Array) -> jax.Array:
    """Images `[h, w, c]` or `[m, h, w, c]` flattened; what is flat already as it is."""
    return x.reshape(*x.shape[:-3], -1) if x.ndim >= 3 else x


paper_init = nn.initializers.variance_scaling(2.0, "fan_avg", "normal")
r"""Normal with standard deviation :math:`2 / \sqrt{n_{in} + n_{out}}`.

That is the square root of 2 times Glorot's.
From the authors' code for Coherent Gradients (arXiv:2002.10657); the paper's text says Xavier.
Biases start at 0.
"""

he_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
r"""Normal with variance :math:`2 / n_{in}`: what is usually called the standard parametrization."""


def uniform_init(fan_in: int) -> Callable:
    r"""Uniform within :math:`\pm 1 / \sqrt{n_{in}}`, for weights and biases: PyTorch's default.

    n_in of a dense layer is its number of inputs, of a convolution input channels times places of
    the window. PyTorch keeps a transposed convolution's kernel with inputs and outputs exchanged
    and takes n_in from there: *output* channels times places. So the last one, from 32 channels to
    1, starts within 1 / 3, six times wider than the signal it sums up would ask for.

    >>> bound = abs(uniform_init(100)(jax.random.key(0), (100, 3))).max()
    >>> bool(bound <= 0.1)
    True
    """
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )
