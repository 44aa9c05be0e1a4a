"""Values made of parameters alone: low-rank products, masks, norms of weights.

Such a value moves by the sum of what each of its parameters moves it by, through steps that are
linear in that parameter and may hold values of the others (`layout.Contracted`, `layout.Times`).
Where it meets data, the gradient with respect to the value is a sum of outer products a d^T, and
most such steps act on one of the two sides: of W = u v the gradient of u is a (v d)^T, that of v
(u^T a) d^T. `through` takes them, from the meeting back to the parameter; what is left is a plain
layout, as if the parameter itself had met these data.
"""

import dataclasses
import math
import string
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import jax_internals
from . import layout as layouts
from .layout import Contracted, Layout, Times
from .terms import Convolved, Looked, Outer, Term
from .tracked import Fixed, Meeting, Mixed, Tracked, alone, exceeds, is_large, value_of, values_of

_SUMS = ("add", "add_any", "sub")


def mixed(walk: Any, equation: Any, operands: Sequence[Any]) -> list[Any] | None:
    """The output of an equation of parameters and constants alone; `None` where small, or where
    its derivative is not one of those known."""
    outputs = equation.outvars
    if len(outputs) != 1 or not jnp.issubdtype(outputs[0].aval.dtype, jnp.floating):
        return None
    is_mixed = any(isinstance(x, Mixed) for x in operands)
    large = any(is_large(x) for x in operands if isinstance(x, Tracked))
    name = equation.primitive.name
    # A small parameter that is broadcast is, mostly, a bias: its rows are small.
    grows = name != "broadcast_in_dim" and exceeds(outputs[0].aval.size)
    if not (is_mixed or large or grows):
        return None
    if any(isinstance(x, Tracked) and x.is_zero for x in operands):
        return None
    derivatives = _DERIVATIVES.get(name) or _elementwise(equation)
    if derivatives is None:
        return None
    (value,) = jax_internals.evaluate(equation, values_of(operands))
    parts: list[Tracked] = []
    for place, x in enumerate(operands):
        if isinstance(x, Tracked | Mixed):
            steps, constants = derivatives(walk, equation, operands, place, value)
            for part in alone(x):
                parts.append(
                    dataclasses.replace(
                        part,
                        layout=(*part.layout, *steps),
                        constants=(*part.constants, *constants),
                        value=value,
                    )
                )
        elif not isinstance(x, Fixed):
            return None
    return [Mixed(tuple(parts), value)]


# The derivative of an equation's output along the operand at `place`: (steps, their constants)


def _sum(walk, equation, operands, place, value):
    steps = _broadcast(np.shape(value_of(operands[place])), np.shape(value))
    if equation.primitive.name == "sub" and place == 1:
        steps = (*steps, layouts.Scaling(-1.0))
    return steps, ()


def _product(walk, equation, operands, place, value):
    steps = _broadcast(np.shape(value_of(operands[place])), np.shape(value))
    return (*steps, Times()), (walk.narrow(value_of(operands[1 - place])),)


def _quotient(walk, equation, operands, place, value):
    x, y = values_of(operands)
    steps = _broadcast(np.shape((x, y)[place]), np.shape(value))
    inverse = 1 / walk.narrow(y)
    return (*steps, Times()), (inverse if place == 0 else -value * inverse,)


def _contraction(walk, equation, operands, place, value):
    contracted, batch = jax_internals.contraction(equation)
    return (Contracted(contracted, batch, place),), (value_of(operands[1 - place]),)


def _linear(walk, equation, operands, place, value):
    return (layouts.Step(jax_internals.operation(equation)),), ()


def _elementwise(equation):
    """The slope of a function of each coordinate, by JAX's own derivative."""
    if equation.primitive.name not in _FUNCTIONS:
        return None

    def derivative(walk, equation, operands, place, value):
        values = values_of(operands)
        x = values[place]
        filled = lambda x: [*values[:place], x, *values[place + 1 :]]
        function = lambda x: jax_internals.evaluate(equation, filled(x))[0]
        slope = jax.jvp(function, (x,), (jnp.ones_like(x),))[1]
        return (*_broadcast(np.shape(x), np.shape(value)), Times()), (slope,)

    return derivative


def _broadcast(shape, out):
    if tuple(shape) == tuple(out):
        return ()
    return (layouts.Step(jax_internals.broadcasting(out, range(len(shape)))),)


_FUNCTIONS = frozenset(
    {
        "abs",
        "cos",
        "exp",
        "exp2",
        "integer_pow",
        "log",
        "log1p",
        "logistic",
        "max",
        "min",
        "pow",
        "select_n",
        "rsqrt",
        "sin",
        "sqrt",
        "square",
        "tanh",
    }
)
_DERIVATIVES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_SUMS, _sum),
    "mul": _product,
    "div": _quotient,
    "dot_general": _contraction,
    "broadcast_in_dim": _linear,
    "reduce_sum": _linear,
}


# From the meeting back to the parameter


class Sides(NamedTuple):
    """Which parts of a value's dimensions are batch, K and N of the canonical gradient.

    A part is a letter of `sizes`; `axes` has the parts of each dimension of the value.
    """

    axes: tuple[tuple[str, ...], ...]
    batch: tuple[str, ...]
    k: tuple[str, ...]
    n: tuple[str, ...]
    sizes: dict[str, int]
    scale: float

    def parts(self, dimensions):
        return [part for i in dimensions for part in self.axes[i]]


def taken_through(meeting: Meeting, data: Any) -> tuple[Meeting, Any]:
    """The meeting with plain layouts where that can be, and its data with the values for it."""
    shares, values = [], []
    for i, share in enumerate(meeting.shares):
        term = jax.eval_shape(share.factors, data, meeting.output)
        layout, left, take = through(share.layout, share.shape, share.constants, term)
        shares.append(
            dataclasses.replace(
                share,
                layout=layout,
                factors=_factors(i, share.factors, take),
                constants=share.constants[:left],
            )
        )
        values.append((*[None] * left, *share.constants[left:]))
    return Meeting(tuple(shares), meeting.output), (data, tuple(values))


def _factors(i, factors, take):
    return lambda met, cotangent: take(factors(met[0], cotangent), met[1][i])


def through(layout: Layout, shape: Sequence[int], constants: Sequence[Any], term: Term) -> Any:
    """`(layout, how many constants are left, take)`: steps that hold values taken from the end.

    `take(term, constants)` gives one example's term for the layout that is left.

    Args:
        shape: the parameter's.
        constants: values, or `ShapeDtypeStruct`s, of the layout's steps that hold one.
        term: one example's, of `ShapeDtypeStruct`s: what is asked of it depends on its kind.
    """
    takes: list[Callable[[Term, Any], Term]] = []
    left = len(constants)
    while left:
        place = max(i for i, step in enumerate(layout) if isinstance(step, Contracted | Times))
        before, step, after = layout[:place], layout[place], layout[place + 1 :]
        held = constants[left - 1]
        entry = _shape(before, shape, constants[: left - 1])
        inner = (
            _shape(before[:-1], shape, constants[: left - 1]) if _ends_broadcast(before) else None
        )
        out = _shape((step,), entry, (held,))
        sides = _sides(after, out)
        if sides is None:
            break
        if isinstance(step, Contracted):
            answer = _contracted(before, step, sides, entry, np.shape(held), term)
        elif inner is not None:
            answer = _spread(before, sides, inner, np.shape(held), term)
        else:
            answer = _times(before, after, sides, np.shape(held), term)
        if answer is None:
            break
        layout, take = answer
        takes.append((lambda i, take: lambda term, held: take(term, held[i]))(left - 1, take))
        term = jax.eval_shape(take, term, held)
        left -= 1

    def take_all(term, constants):
        for take in takes:
            term = take(term, constants)
        return term

    return layout, left, take_all


def _shape(layout, shape, constants):
    struct = jax.ShapeDtypeStruct(tuple(shape), np.float32)
    return jax.eval_shape(lambda x, c: layouts.forward(layout, x, c), struct, list(constants)).shape


def _sides(layout, shape):
    """The `Sides` of a value of `shape` after rearrangements alone, else `None`."""
    letters = iter(string.ascii_letters)
    sizes: dict[str, int] = {}

    def fresh(size):
        letter = next(letters)
        sizes[letter] = size
        return letter

    axes = [[fresh(size)] if size > 1 else [] for size in shape]
    dims, scale = [list(parts) for parts in axes], 1.0

    def split(part, size):
        """One part as two, the first of `size`."""
        two = [fresh(size), fresh(sizes[part] // size)]
        for parts in axes:
            if part in parts:
                i = parts.index(part)
                parts[i : i + 1] = two
        return two

    def regroup(dims, shape):
        flat = [part for parts in dims for part in parts]
        result = []
        for size in shape:
            parts: list[str] = []
            while math.prod(sizes[p] for p in parts) < size:
                missing = size // math.prod(sizes[p] for p in parts)
                part = flat.pop(0)
                if sizes[part] > missing:
                    if sizes[part] % missing:
                        return None
                    part, rest = split(part, missing)
                    flat.insert(0, rest)
                parts.append(part)
            if math.prod(sizes[p] for p in parts) != size:
                return None
            result.append(parts)
        return result

    def follow(layout, dims, shape):
        nonlocal scale
        for step in layout:
            if isinstance(step, layouts.Mapped):
                inner = follow(step.layout, dims[1:], shape[1:])
                if inner is None:
                    return None
                (first, *rest), (length, *lengths) = inner
                dims, shape = [[*dims[0], *first], *rest], (shape[0] * length, *lengths)
                continue
            if isinstance(step, layouts.Scaling) and not isinstance(step.factor, layouts.Constant):
                scale *= step.factor
                continue
            if not isinstance(step, layouts.Step) or any(c is not None for c in step.operands):
                return None
            new = _shape((step,), shape, ())
            if step.name == "transpose":
                dims = [dims[i] for i in jax_internals.permutation(step.operation)]
            elif math.prod(new) == math.prod(shape) and step.name in (
                "reshape",
                "squeeze",
                "expand_dims",
            ):
                dims = regroup(dims, new)
                if dims is None:
                    return None
            else:
                return None
            shape = new
        return dims, shape

    followed = follow(layout, dims, tuple(shape))
    if followed is None or len(followed[0]) != 3:
        return None
    batch, k, n = map(tuple, followed[0])
    return Sides(tuple(map(tuple, axes)), batch, k, n, sizes, scale)


def _contracted(before, step, sides, entry, held, term):
    """The other operand's own dimensions summed over, on the side where they are."""
    place = step.place
    own_contract, other_contract = step.contracting[place], step.contracting[1 - place]
    own_batch, other_batch = step.batch[place], step.batch[1 - place]
    own_free = [i for i in range(len(entry)) if i not in (*own_contract, *own_batch)]
    other_free = [i for i in range(len(held)) if i not in (*other_contract, *other_batch)]
    b = len(own_batch)
    left, right = (own_free, other_free) if place == 0 else (other_free, own_free)
    ranges = range(b), range(b, b + len(left)), range(b + len(left), b + len(left) + len(right))
    out_batch, out_own, out_other = ranges[0], ranges[1 + place], ranges[2 - place]
    summed, shared = set(sides.parts(out_other)), set(sides.parts(out_batch))
    side = _side(summed, shared, sides)
    if side is None:
        return None
    # Parts of the parameter's dimensions: those contracted away are new ones.
    used = [*sides.sizes]
    rest = (letter for letter in string.ascii_letters if letter not in used)
    contracted = [next(rest) if entry[i] > 1 else "" for i in own_contract]
    sizes = sides.sizes | {c: entry[i] for c, i in zip(contracted, own_contract) if c}
    parts_of: dict[int, list[str]] = {i: [c] if c else [] for i, c in zip(own_contract, contracted)}
    parts_of |= {i: list(sides.axes[o]) for i, o in zip(own_batch, out_batch)}
    parts_of |= {i: list(sides.axes[o]) for i, o in zip(own_free, out_own)}
    held_parts: dict[int, list[str]] = {
        i: parts_of[o] for i, o in zip(other_contract, own_contract)
    }
    held_parts |= {i: list(sides.axes[o]) for i, o in zip(other_batch, out_batch)}
    held_parts |= {i: list(sides.axes[o]) for i, o in zip(other_free, out_other)}
    old = sides.n if side == "n" else sides.k
    new = (*(p for p in old if p not in summed), *(c for c in contracted if c))
    take = _acting(term, side, sides, old, new, [held_parts[i] for i in range(len(held))], sizes)
    if take is None:
        return None
    k, n = (sides.k, new) if side == "n" else (new, sides.n)
    own = [parts_of[i] for i in range(len(entry))]
    return (*before, *_rearranged(own, (sides.batch, k, n), sizes)), take


def _times(before, after, sides, held, term):
    """A product by coordinates, on the side that the constant depends on."""
    held_parts = _parts_of(held, sides)
    side = _side({part for parts in held_parts for part in parts}, set(), sides)
    if side is None:
        return None
    old = sides.n if side == "n" else sides.k
    take = _acting(term, side, sides, old, old, held_parts, sides.sizes)
    return None if take is None else ((*before, *after), take)


def _ends_broadcast(layout):
    return (
        bool(layout)
        and isinstance(layout[-1], layouts.Step)
        and layout[-1].name == "broadcast_in_dim"
    )


def _parts_of(held, sides):
    """The parts of each dimension of a constant that broadcasts to the value."""
    missing = len(sides.axes) - len(held)
    return [list(sides.axes[i + missing]) if size > 1 else [] for i, size in enumerate(held)]


def _spread(before, sides, entry, held, term):
    """A parameter broadcast before the product: its row, from both sides at once."""
    if not isinstance(term, Outer):
        return None
    axes = jax_internals.broadcast_axes(before[-1].operation)
    own = [p for size, axis in zip(entry, axes) if size > 1 for p in sides.axes[axis]]
    constant = "".join(p for parts in _parts_of(held, sides) for p in parts)
    batch, k, n = ("".join(parts) for parts in (sides.batch, sides.k, sides.n))
    t = next(letter for letter in string.ascii_letters if letter not in sides.sizes)
    shape = lambda parts: tuple(sides.sizes[p] for p in parts)
    first_k = bool(set(sides.k) - set(own))  # sum over K before the other side comes in

    def take(term, held):
        dtype = term.dtype
        a = term.inputs.astype(dtype).reshape(*shape(batch), -1, *shape(k))
        d = term.cotangents.astype(dtype).reshape(*shape(batch), -1, *shape(n))
        c = jnp.asarray(held, dtype).reshape(shape(constant))
        first, second = ((a, f"{batch}{t}{k}"), (d, f"{batch}{t}{n}"))
        if not first_k:
            first, second = second, first
        keep = [p for p in dict.fromkeys(first[1] + constant) if p in second[1] or p in own]
        middle = "".join(keep)
        h = jnp.einsum(f"{first[1]},{constant}->{middle}", first[0], c)
        row = jnp.einsum(f"{middle},{second[1]}->{''.join(own)}", h, second[0]) * sides.scale
        return Outer(jnp.ones((1, 1, 1), row.dtype), row.reshape(1, 1, -1))

    return (*before[:-1], layouts.reshaping((1, 1, math.prod(shape(own))))), take


def _side(summed, shared, sides):
    """The side on which a constant acts that depends on these parts."""
    depends = summed | shared
    if not depends & set(sides.k):
        return "n"
    if not depends & set(sides.n):
        return "k"
    return None


def _acting(term, side, sides, old, new, held_parts, sizes):
    """`take(term, constant)`: a product of the constant and one side, from parts `old` to `new`."""
    shape = lambda parts: tuple(sizes[p] for p in parts)
    constant = "".join(p for parts in held_parts for p in parts)
    batch = "".join(sides.batch)
    t = next(letter for letter in string.ascii_letters if letter not in sizes)

    def product(x, held):
        """[B, T, old] to [B, T, new]."""
        x = x.reshape(*shape(sides.batch), -1, *shape(old))
        c = jnp.asarray(held, x.dtype).reshape(shape(constant)) * sides.scale
        spec = f"{batch}{t}{''.join(old)},{constant}->{batch}{t}{''.join(new)}"
        y = jnp.einsum(spec, x, c)
        positions = y.shape[len(sides.batch)]
        return y.reshape(math.prod(shape(sides.batch)), positions, math.prod(shape(new)))

    if side == "n":
        return lambda term, held: dataclasses.replace(
            term, cotangents=product(term.cotangents, held)
        )
    if isinstance(term, Outer):
        return lambda term, held: dataclasses.replace(term, inputs=product(term.inputs, held))
    if batch or set(old) - set(constant) or set(old) & set(new):
        return None

    def matrix(held):
        """The constant as [K, new]."""
        c = jnp.asarray(held).reshape(shape(constant)) * sides.scale
        whole = jnp.einsum(f"{constant}->{''.join(old)}{''.join(new)}", c)
        return whole.reshape(math.prod(shape(old)), -1)

    if isinstance(term, Looked):
        return lambda term, held: Outer(
            jnp.take(matrix(held), term.inputs, axis=0), term.cotangents
        )
    assert isinstance(term, Convolved)

    def convolved(term, held):
        c = matrix(held)
        kernel = c.reshape(*term.window.shape, -1, c.shape[1])
        seen = term.window.convolve(term.inputs, kernel.astype(term.inputs.dtype), 1)
        return Outer(seen.reshape(1, -1, c.shape[1]), term.cotangents)

    return convolved


def _rearranged(axes, dims, sizes):
    """The steps from a parameter with these parts to [B, K, N]."""
    flat = [part for parts in axes for part in parts]
    order = [flat.index(part) for parts in dims for part in parts]
    return (
        layouts.reshaping([sizes[p] for p in flat]),
        layouts.transposition(order),
        layouts.reshaping([math.prod(sizes[p] for p in parts) for parts in dims]),
    )


__all__ = ["mixed", "taken_through", "through"]
