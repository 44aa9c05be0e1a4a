"""One rule a primitive: what a parameter's gradient is made of where it meets data.

A rule is asked about one equation of the trace of one example: `rule(equation, place)` with `place`
the parameter's position among the operands. It answers `None` where it does not apply, else a pair:
the layout from that operand to the canonical gradient [B, K, N], and `factors(data, cotangent)` for
one example, a term (`coherence.gradients.terms`) without the axis of examples.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.lax import GatherScatterMode

from . import jax_internals
from .layout import Layout, reshaping, transposition
from .terms import Convolved, Looked, Outer, Term, Window

Factors: TypeAlias = Callable[[Any, jax.Array], Term]
Rule: TypeAlias = Callable[[Any, int], tuple[Layout, Factors] | None]


# Dense layers, einsums, projections: y = x . w over any contracting and batch dimensions


def dot_general(equation: Any, place: int) -> tuple[Layout, Factors]:
    """G[b, k, n] = sum_t x[b, t, k] dy[b, t, n].

    Dimensions b are batch, k contracted, t the data's own, n the parameter's own dimensions.
    """
    return _Product(equation, place).part(equation.invars[place].aval.shape)


def dot_general_of_parts(
    equation: Any, place: int, axis: int, sizes: Sequence[int]
) -> list[tuple[Layout, Factors]]:
    """The same for each of the parameters concatenated along `axis`.

    It sees its slice of the data, or of the cotangent, or both.
    """
    product = _Product(equation, place)
    shape, start, answers = list(equation.invars[place].aval.shape), 0, []
    for size in sizes:
        shape[axis] = size
        answers.append(product.part(tuple(shape), product.slices(axis, start, size)))
        start += size
    return answers


class _Product:
    """Which dimensions of parameter, data and output belong together."""

    def __init__(self, equation: Any, place: int):
        contracting, batching = jax_internals.contraction(equation)
        self.place, self.data = place, equation.invars[1 - place].aval.shape
        self.w_batch, self.w_contract = batching[place], contracting[place]
        self.x_batch, self.x_contract = batching[1 - place], contracting[1 - place]
        dimensions = range(equation.invars[place].aval.ndim)
        self.w_free = tuple(i for i in dimensions if i not in (*self.w_batch, *self.w_contract))
        self.x_free = tuple(
            i for i in range(len(self.data)) if i not in (*self.x_batch, *self.x_contract)
        )

    def part(self, shape, slices=lambda x, dy: (x, dy)):
        """(layout, factors) for a parameter of `shape` that sees `slices` of data and cotangent."""
        size = lambda axes: math.prod(shape[i] for i in axes)
        b, k, n = size(self.w_batch), size(self.w_contract), size(self.w_free)
        t = math.prod(self.data[i] for i in self.x_free)

        def factors(x, dy):
            x, dy = slices(x, dy)
            inputs = x.transpose(*self.x_batch, *self.x_free, *self.x_contract).reshape(b, t, k)
            if self.place == 1:  # the output's dimensions are batch, lhs free, rhs free
                return Outer(inputs, dy.reshape(b, t, n))
            return Outer(inputs, dy.reshape(b, n, t).swapaxes(1, 2))

        return (
            transposition((*self.w_batch, *self.w_contract, *self.w_free)),
            reshaping((b, k, n)),
        ), factors

    def slices(self, axis, start, size):
        """Data and cotangent as seen by a stretch of the parameter's `axis`."""
        cut = lambda y, at: jax.lax.slice_in_dim(y, start, start + size, axis=at)
        if axis in self.w_contract:
            return lambda x, dy: (cut(x, self.x_contract[self.w_contract.index(axis)]), dy)
        if axis in self.w_batch:
            i = self.w_batch.index(axis)
            return lambda x, dy: (cut(x, self.x_batch[i]), cut(dy, i))
        own = (
            len(self.w_batch)
            + self.w_free.index(axis)
            + (len(self.x_free) if self.place == 1 else 0)
        )
        return lambda x, dy: (x, cut(dy, own))


def product_of_sum(
    equation: Any, shape: Sequence[int], data: Sequence[int]
) -> tuple[Layout, Factors] | None:
    """y = (x w).sum(axes), a matrix product spelled out.

    The data x have size 1 where w has dimensions of its own.
    """
    contract = jax_internals.summed_axes(equation)
    dimensions = range(len(shape))
    free = tuple(i for i in dimensions if data[i] != shape[i])
    if set(contract) & set(free):
        return None
    batch = tuple(i for i in dimensions if i not in (*contract, *free))
    b, k, n = (math.prod(shape[i] for i in axes) for axes in (batch, contract, free))
    left = [i for i in dimensions if i not in contract]

    def factors(x, dy):
        inputs = x.transpose(*batch, *contract, *free).reshape(b, 1, k)
        cotangents = dy.transpose(*(left.index(i) for i in (*batch, *free)))
        return Outer(inputs, cotangents.reshape(b, 1, n))

    return (transposition((*batch, *contract, *free)), reshaping((b, k, n))), factors


# Convolutions: any strides, padding, dilations (so transposed ones too), feature groups (so
# depthwise) and dimension order


def convolution(equation: Any, place: int) -> tuple[Layout, Factors] | None:
    """G[b, (o, c), n] = sum_t x[t s + o, b, c] dy[b, t, n].

    Of the window o are places, b are feature groups, t positions of the output.
    """
    geometry = jax_internals.convolution(equation)
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
        dy = dy.transpose(_channels_last(geometry.out_spec))
        return Convolved(images, dy.reshape(-1, groups, n).swapaxes(0, 1), window=window)

    return (
        transposition((*spatial, channels, out)),
        reshaping((k, groups, n)),
        transposition((1, 0, 2)),
    ), factors


def _channels_last(spec: tuple[int, ...]) -> tuple[int, ...]:
    """`spec` says where batch, channels and the spatial dimensions are."""
    return (spec[0], *spec[2:], spec[1])


# Embeddings: rows of a table, however the indexing is spelled


def gather(equation: Any, place: int) -> tuple[Layout, Factors] | None:
    """G[v] = sum over look-ups t of row v of dy[t].

    Several indexed dimensions count as one, the others are the row.
    """
    numbers, slice_sizes, mode = jax_internals.gather(equation)
    table = equation.invars[0].aval
    looked = tuple(numbers.start_index_map)
    whole = all(
        size == (1 if i in looked else table.shape[i]) for i, size in enumerate(slice_sizes)
    )
    if (
        place
        or numbers.operand_batching_dims
        or not whole
        or sorted(looked) != list(numbers.collapsed_slice_dims)
    ):
        return None
    rest = tuple(i for i in range(table.ndim) if i not in looked)
    sizes = [table.shape[i] for i in looked]
    size, n = math.prod(sizes), math.prod(table.shape[i] for i in rest)
    out = tuple(i for i in range(equation.outvars[0].aval.ndim) if i not in numbers.offset_dims)

    def factors(index, dy):
        index = _wide(index.reshape(-1, len(looked)))
        cotangents = dy.transpose(*out, *numbers.offset_dims).reshape(1, -1, n)
        inside = jnp.clip(index, 0, jnp.asarray(sizes, index.dtype)[None] - 1)
        if mode != GatherScatterMode.CLIP:  # JAX drops their gradients
            is_inside = (index == inside).all(1)
            cotangents = jnp.where(is_inside[None, :, None], cotangents, 0)
        ids = jnp.zeros(index.shape[0], jnp.int32)
        for axis, length in enumerate(sizes):
            ids = ids * length + inside[:, axis].astype(jnp.int32)
        return Looked(ids[None], cotangents, size=size)

    return (transposition((*looked, *rest)), reshaping((1, size, n))), factors


def dynamic_slice(equation: Any, place: int) -> tuple[Layout, Factors] | None:
    """One row, `table[i]` with a single index: G[v] = dy where v = i.

    Indices out of range are clipped.
    """
    table, sizes = equation.invars[0].aval, jax_internals.slice_sizes(equation)
    if place or table.ndim == 0 or sizes[0] != 1 or tuple(sizes[1:]) != table.shape[1:]:
        return None
    size, n = table.shape[0], math.prod(table.shape[1:])

    def factors(index, dy):
        ids = jnp.clip(_wide(index), 0, size - 1).astype(jnp.int32)
        return Looked(ids.reshape(1, 1), dy.reshape(1, 1, n), size=size)

    return (reshaping((1, size, n)),), factors


def _wide(index: jax.Array) -> jax.Array:
    """Indices in a type that holds the size of any table: a byte does not hold 256."""
    return index if index.dtype.itemsize >= 4 else index.astype(jnp.int32)


# Biases and scales: a parameter is added to data or multiplies it. Dimensions in which it has size
# 1 are broadcast: positions to sum over, with K = 1: G[0, 0, n] = sum_t 1 * d[t, n]


def _diagonal(
    equation: Any, place: int, slope: Callable[[jax.Array], Any]
) -> tuple[Layout, Factors] | None:
    shape, out = equation.invars[place].aval.shape, equation.outvars[0].aval.shape
    if len(shape) != len(out):
        return None
    summed = tuple(i for i, (size, whole) in enumerate(zip(shape, out)) if size != whole)
    own = tuple(i for i in range(len(out)) if i not in summed)
    n = math.prod(shape)

    def factors(x, dy):
        cotangents = (slope(x) * dy).transpose(*summed, *own).reshape(1, -1, n)
        return Outer(jnp.ones((1, cotangents.shape[1], 1), dy.real.dtype), cotangents)

    return (reshaping((1, 1, n)),), factors


def add(equation: Any, place: int) -> tuple[Layout, Factors] | None:
    """y = x + b: db = dy."""
    return _diagonal(equation, place, lambda x: 1)


def sub(equation: Any, place: int) -> tuple[Layout, Factors] | None:
    """y = x - b or b - x: db = -dy or dy."""
    return _diagonal(equation, place, lambda x: (1, -1)[place])


def mul(equation: Any, place: int) -> tuple[Layout, Factors] | None:
    """y = x s: ds = x dy."""
    return _diagonal(equation, place, lambda x: x)


RULES: dict[str, Rule] = {
    "dot_general": dot_general,
    "conv_general_dilated": convolution,
    "gather": gather,
    "dynamic_slice": dynamic_slice,
    "add": add,
    "add_any": add,
    "sub": sub,
    "mul": mul,
}
