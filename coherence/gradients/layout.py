"""How a parameter reaches the place where it meets data: a chain of linear steps, and the way back for gradients.

A layout is a tuple of steps, hashable and comparable, so that it can be static in a pytree. Applied
forward it turns a parameter into the operand of a meeting; transposed it turns a gradient of that
operand into a gradient of the parameter.
"""

import math
from typing import NamedTuple

import jax
import numpy as np

from coherence import jax_internals
from coherence.jax_internals import Operation

# Pure rearrangements, and embeddings when transposed: they keep the norm of a gradient on its way
# back.
_ISOMETRIES = frozenset(
    {
        "transpose",
        "reshape",
        "squeeze",
        "expand_dims",
        "rev",
        "slice",
        "dynamic_slice",
        "convert_element_type",
        "copy",
    }
)
_SCALINGS = {"neg": lambda: -1.0, "mul": lambda c: c, "div": lambda c: 1.0 / c}
STEPS = _ISOMETRIES | _SCALINGS.keys() | {"broadcast_in_dim"}


class Step(NamedTuple):
    """One primitive of one tensor; `literals` are its other operands, `None` marks the tensor's own place."""

    operation: Operation
    literals: tuple = (None,)

    def __call__(self, x):
        return self.operation(*(x if c is None else np.asarray(*c) for c in self.literals))

    @property
    def name(self):
        return self.operation.name


class Mapped(NamedTuple):
    """A layout of each slice of a stacked parameter, one a step of a scan, the slices joined along the first dimension."""

    layout: tuple

    def __call__(self, x):
        y = jax.vmap(lambda one: forward(self.layout, one))(x)
        return y.reshape(-1, *y.shape[2:])


def step(operation, literals, shape, size):
    """A `Step` from a tensor of `size` to one of `shape` where the primitive is linear in the tensor, else `None`."""
    name, place = operation.name, literals.index(None)
    if name not in STEPS or (name == "div" and place == 1):
        return None
    if name == "broadcast_in_dim" and math.prod(shape) == size:
        return reshaping(shape)
    return Step(operation, literals)


def transposition(axes):
    return Step(jax_internals.transposition(axes))


def reshaping(shape):
    return Step(jax_internals.reshaping(shape))


def forward(layout, x):
    """The operand that the parameter `x` becomes."""
    for one in layout:
        x = one(x)
    return x


def pull_back(layout, parameter, gradient):
    """The parameter's gradient from its operand's; `parameter` gives shape and dtype (a `ShapeDtypeStruct` will do)."""
    if not layout:
        return gradient
    operand = jax.eval_shape(lambda x: forward(layout, x), parameter)
    (result,) = jax.linear_transpose(lambda x: forward(layout, x), parameter)(
        gradient.astype(operand.dtype)
    )
    return result


def scale(layout):
    """The factor by which `pull_back` stretches every gradient's norm, `None` where that depends on the gradient."""
    factor = 1.0
    for one in layout:
        if isinstance(one, Mapped):
            inner = scale(one.layout)
            if inner is None:
                return None
            factor *= inner
            continue
        constants = [float(np.asarray(*c)) for c in one.literals if c is not None]
        if one.name in _SCALINGS:
            factor *= abs(_SCALINGS[one.name](*constants))
        elif one.name == "broadcast_in_dim":
            return None
    return factor


def is_rearrangement(layout):
    """True where every coordinate of the parameter's gradient is one coordinate of the operand's, or zero for all examples."""
    return all(
        is_rearrangement(one.layout) if isinstance(one, Mapped) else one.name in _ISOMETRIES
        for one in layout
    )


def is_transposed(layout, shape):
    """Whether the operand lists the entries of a matrix row by row (False) or column by column (True), up to dimensions of size 1.

    `None` where it does neither, or is no rearrangement of a matrix.
    """
    if len(shape) != 2 or 1 in shape or not is_rearrangement(layout):
        return None
    x, axes = (
        jax.ShapeDtypeStruct(shape, np.float32),
        [0, 1],
    )  # of each dimension of x larger than 1, which axis it was
    for one in layout:
        if isinstance(one, Mapped) or one.name == "rev":
            return None
        moved = jax.eval_shape(lambda x, one=one: one(x), x)
        if one.name == "transpose":
            sizes = [i for i, n in enumerate(x.shape) if n > 1]
            axes = [
                axes[sizes.index(i)] for i in jax_internals.permutation(one.operation) if i in sizes
            ]
        elif [n for n in moved.shape if n > 1] != [n for n in x.shape if n > 1]:
            return None
        x = moved
    return axes == [1, 0]
