"""What the walk over a trace knows of a value, and what it notes where parameters meet data."""

import dataclasses
from typing import Any

import jax
import numpy as np

from coherence.jax_internals import is_traced


@dataclasses.dataclass(frozen=True)
class Tracked:
    """The value a parameter leaf has become by layout-only steps."""

    leaf: int
    layout: tuple
    value: Any


@dataclasses.dataclass(frozen=True)
class Joined:
    """Parameters concatenated along one axis: a fused projection, the gates of a recurrent cell."""

    parts: tuple[Tracked, ...]
    axis: int
    value: Any


@dataclasses.dataclass(frozen=True)
class Fixed:
    """A value that no example has a part in: constants, and what is computed from constants and parameters alone.

    `known` where it is made of literals and closed-over constants, so that a scalar can be part of
    a layout.
    """

    value: Any
    known: bool = False


@dataclasses.dataclass(frozen=True)
class Share:
    """A leaf's part in a meeting: `factors(data, cotangent)` make its gradient, through `layout`."""

    leaf: Any
    layout: tuple
    factors: Any
    formed: bool = False  # a small parameter perturbed itself: the cotangent is its row


@dataclasses.dataclass(frozen=True)
class Meeting:
    """A place where parameters meet data: what each gets from it, and the shape of the perturbation."""

    shares: tuple[Share, ...]
    output: jax.ShapeDtypeStruct


def constant(value):
    return Fixed(value, known=True)


def value_of(x):
    return x.value if isinstance(x, Tracked | Joined | Fixed) else x


def is_number(x):
    """Whether a scalar whose value is known while tracing."""
    return isinstance(x, Fixed) and x.known and np.ndim(x.value) == 0 and not is_traced(x.value)
