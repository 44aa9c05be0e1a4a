"""Layouts: the linear steps by which a parameter becomes the operand that meets data, and back.

A layout is a tuple of steps, hashable and comparable, so that it can be static in a pytree. Applied
forward it turns a parameter into the operand; transposed it turns a gradient of the operand into a
gradient of the parameter. Steps know no dtype: casts between floats are no step, and a gradient is
pulled back in the dtype it is given in.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from . import jax_internals
from .jax_internals import Operation

# Rearrangements, and embeddings when transposed: a gradient keeps its norm on its way back.
_REARRANGEMENTS = frozenset(
    {
        "transpose",
        "reshape",
        "squeeze",
        "expand_dims",
        "rev",
        "slice",
        "dynamic_slice",
    }
)
# What leaves a real parameter as it is but for its precision or its place in a machine.
IDENTITIES = frozenset(
    {
        "convert_element_type",
        "copy",
        "optimization_barrier",
        "pvary",
        "reduce_precision",
        "sharding_constraint",
    }
)
_SCALINGS = frozenset({"neg", "mul", "div"})
LINEAR = IDENTITIES | _REARRANGEMENTS | _SCALINGS | {"broadcast_in_dim", "gather"}


class Constant:
    """An array that can be compared and hashed."""

    def __init__(self, value: Any):
        self.value = np.asarray(value)
        digest = hashlib.blake2b(np.ascontiguousarray(self.value).tobytes()).digest()
        self._key = self.value.shape, str(self.value.dtype), digest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Constant({self.value.dtype}{list(self.value.shape)})"


class Step(NamedTuple):
    """A rearrangement; `operands` are its constants, `None` marks the tensor's own place."""

    operation: Operation
    operands: tuple[Constant | None, ...] = (None,)

    @property
    def name(self) -> str:
        return self.operation.name

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.operation(*(x if c is None else c.value for c in self.operands))

    @property
    def is_rearrangement(self) -> bool:
        """Whether each coordinate of the operand is a coordinate of its own of the tensor."""
        if self.name != "gather":
            return self.name in _REARRANGEMENTS
        indices = self.operands[1]
        assert indices is not None
        rows = indices.value.reshape(-1, indices.value.shape[-1])
        return len(np.unique(rows, axis=0)) == len(rows)


class Scaling(NamedTuple):
    """A product with a constant: a number, or an array of the tensor's shape."""

    factor: float | Constant

    def __call__(self, x: jax.Array) -> jax.Array:
        factor = self.factor.value if isinstance(self.factor, Constant) else self.factor
        return x * jnp.asarray(factor, x.dtype)


class Mapped(NamedTuple):
    """A layout of each slice of a stacked parameter, one a step of a scan, the slices joined
    along the first dimension."""

    layout: tuple[Any, ...]

    def __call__(self, x: jax.Array) -> jax.Array:
        y = jax.vmap(lambda slice: forward(self.layout, slice))(x)
        return y.reshape(-1, *y.shape[2:])


class Times(NamedTuple):
    """A product with a value that other parameters, or constants not known while tracing, have a
    part in. It broadcasts to the tensor; it is handed over where the layout is used."""

    def __call__(self, x: jax.Array, held: jax.Array) -> jax.Array:
        return x * jnp.asarray(held, x.dtype)


class Contracted(NamedTuple):
    """A `dot_general` with such a value; the tensor is its operand at `place`."""

    contracting: tuple[tuple[int, ...], tuple[int, ...]]
    batch: tuple[tuple[int, ...], tuple[int, ...]]
    place: int

    def __call__(self, x: jax.Array, held: jax.Array) -> jax.Array:
        held = jnp.asarray(held, x.dtype)
        pair = (held, x) if self.place else (x, held)
        return jax.lax.dot_general(*pair, (self.contracting, self.batch))


Layout: TypeAlias = tuple[Step | Scaling | Mapped | Times | Contracted, ...]


def step(equation: Any, operands: Sequence[Any]) -> Layout | None:
    """The steps an equation takes a tensor by, where it is linear in the tensor, else `None`.

    `operands` are the equation's: `None` in the tensor's own place, else known numbers or arrays.
    """
    name, place = equation.primitive.name, [x is None for x in operands].index(True)
    tensor, out = equation.invars[place].aval, equation.outvars[0].aval
    others = [x for x in operands if x is not None]
    if name in IDENTITIES:
        return () if not others and jnp.issubdtype(out.dtype, jnp.inexact) else None
    if name in _SCALINGS:
        return _scaling(name, place, others, out.shape == tensor.shape)
    if name == "broadcast_in_dim":
        if math.prod(out.shape) == tensor.size:
            return (reshaping(out.shape),)
    elif name == "gather":
        if place or not jax_internals.is_inside(equation, others[0]):
            return None
    elif name not in _REARRANGEMENTS:
        return None
    constants = tuple(None if x is None else Constant(x) for x in operands)
    return (Step(jax_internals.operation(equation), constants),)


def _scaling(name: str, place: int, others: list[Any], keeps_shape: bool) -> Layout | None:
    if (name == "div" and place == 1) or not keeps_shape:
        return None
    if not others:
        return (Scaling(-1.0),)
    (other,) = others
    if np.iscomplexobj(other):
        return None
    factor = np.asarray(other, np.float64)
    factor = 1 / factor if name == "div" else factor
    if factor.ndim == 0:
        return (Scaling(float(factor)),)
    return (Scaling(Constant(factor.astype(np.promote_types(other.dtype, np.float32)))),)


def transposition(axes: Sequence[int]) -> Step:
    return Step(jax_internals.transposition(axes))


def reshaping(shape: Sequence[int]) -> Step:
    return Step(jax_internals.reshaping(shape))


def slicing(start: int, stop: int, axis: int, shape: Sequence[int]) -> Step:
    """The part of a tensor of `shape` from `start` to `stop` along one axis."""
    starts, stops = [0] * len(shape), list(shape)
    starts[axis], stops[axis] = start, stop
    return Step(jax_internals.slicing(starts, stops))


def columns(layout: Layout, shape: Sequence[int]) -> Layout:
    """From the operand of a stacked parameter of `shape`, [(S, B), K, N], to [B, K, (S, N)]."""
    struct = jax.ShapeDtypeStruct(tuple(shape), np.float32)
    groups, k, n = jax.eval_shape(lambda x: forward(layout, x), struct).shape
    steps = shape[0]
    return (
        reshaping((steps, groups // steps, k, n)),
        transposition((1, 2, 0, 3)),
        reshaping((groups // steps, k, steps * n)),
    )


def taking(index: np.ndarray, shape: Sequence[int]) -> Layout:
    """Slices of a tensor of `shape` along its first axis, in this order."""
    if np.array_equal(index, np.arange(shape[0])):
        return ()
    operation = jax_internals.taking(len(shape), shape[1:])
    return (Step(operation, (None, Constant(index.astype(np.int32)[:, None]))),)


def forward(layout: Layout, x: jax.Array, held: Sequence[Any] = ()) -> jax.Array:
    """The operand that the parameter `x` becomes; `held` are the values that steps hold."""
    values = iter(held)
    for step in layout:
        x = step(x, next(values)) if isinstance(step, Times | Contracted) else step(x)
    return x


def pull_back(
    layout: Layout, parameter: Any, gradient: jax.Array, held: Sequence[Any] = ()
) -> jax.Array:
    """The parameter's gradient from its operand's, in the dtype of `gradient`.

    Args:
        parameter: an array or `ShapeDtypeStruct`, of which only the shape is read.
    """
    if not layout:
        return gradient
    struct = jax_internals.struct_like(gradient, parameter.shape)
    (result,) = jax.linear_transpose(lambda x: forward(layout, x, held), struct)(gradient)
    return result


def scale(layout: Layout) -> float | None:
    """The factor by which `pull_back` stretches every gradient's norm, `None` where that
    depends on the gradient."""
    factor = 1.0
    for step in layout:
        if isinstance(step, Mapped):
            inner = scale(step.layout)
            if inner is None:
                return None
            factor *= inner
        elif isinstance(step, Scaling):
            if isinstance(step.factor, Constant):
                return None
            factor *= abs(step.factor)
        elif not isinstance(step, Step) or not step.is_rearrangement:
            return None
    return factor


def is_rearrangement(layout: Layout) -> bool:
    """Whether every coordinate of the parameter's gradient is one of the operand's, or zero for
    all examples."""
    for step in layout:
        if isinstance(step, Mapped):
            if not is_rearrangement(step.layout):
                return False
        elif not isinstance(step, Step) or not step.is_rearrangement:
            return False
    return True


def is_transposed(layout: Layout, shape: Sequence[int]) -> bool | None:
    """Whether the operand lists a matrix column by column (True) or row by row (False).

    Dimensions of size 1 do not count. `None` where it does neither, or is no rearrangement of a
    matrix.
    """
    if len(shape) != 2 or 1 in shape or not is_rearrangement(layout):
        return None
    x: Any = jax.ShapeDtypeStruct(shape, np.float32)
    axes = [0, 1]  # of each dimension of x larger than 1, which axis it was
    for step in layout:
        if not isinstance(step, Step) or step.name in ("rev", "gather"):
            return None
        moved = jax.eval_shape(lambda x, step=step: step(x), x)
        if step.name == "transpose":
            sizes = [i for i, n in enumerate(x.shape) if n > 1]
            permutation = jax_internals.permutation(step.operation)
            axes = [axes[sizes.index(i)] for i in permutation if i in sizes]
        elif [n for n in moved.shape if n > 1] != [n for n in x.shape if n > 1]:
            return None
        x = moved
    return axes == [1, 0]
