"""What a parameter leaf becomes on its way through a loss, and the steps that only move it.

A linear step leaves a `Tracked` value and one more entry of its layout; where parameters and data
come together stands a `Meeting`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import jax_internals
from . import layout as layouts
from .layout import Layout
from .rules import RULES, Factors, dot_general_of_parts

SHIFTS = ("add", "add_any", "sub")
# numbers of a parameter whose gradient may be formed for each example where no rule applies:
# vectors, not matrices
ROWS = 4096
_KNOWN = 2**22  # numbers of a constant that may be part of a layout


@dataclasses.dataclass(frozen=True)
class Tracked:
    """The value a parameter leaf has become by linear steps.

    `is_zero`: a tangent in the parameter's place, which is zero whatever the steps. `shape`: the
    leaf's. `constants`: the values that steps of the layout hold.
    """

    leaf: Any
    layout: Layout
    value: Any
    is_zero: bool = False
    shape: tuple[int, ...] = ()
    constants: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class Fixed:
    """A value that no example has a part in: made of constants and parameters alone.

    `compute` gives the value while tracing where it is made of constants alone, so that it can be
    part of a layout.
    """

    value: Any
    compute: Callable[[], Any] | None = None


@dataclasses.dataclass(frozen=True)
class Mixed:
    """A value made of several parameters, or of one by several ways: it moves by the sum of what
    the parts move it by (`combinations.py`)."""

    parts: tuple[Tracked, ...]
    value: Any


@dataclasses.dataclass(frozen=True)
class Joined:
    """Parameters concatenated along one axis: a fused projection, the gates of a recurrent cell."""

    parts: tuple[Tracked | Mixed | Fixed, ...]
    axis: int
    value: Any


@dataclasses.dataclass(frozen=True)
class Share:
    """A leaf's part in a meeting: `factors(data, cotangent)` make its gradient, through `layout`.

    `formed`: a parameter perturbed itself, whose cotangent is its row. `shape` is the leaf's, and
    `constants` the values that steps of the layout hold.
    """

    leaf: Any
    layout: Layout
    factors: Factors
    formed: bool = False
    shape: tuple[int, ...] = ()
    constants: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class Product:
    """A large parameter times data that are broadcast to its shape.

    A sum over axes would make a matrix product of it; where nothing sums, the leaf is given up: its
    gradients would be rows as large as itself.
    """

    parameter: Tracked | Mixed
    data: Any
    value: Any


@dataclasses.dataclass(frozen=True)
class Meeting:
    """A place where parameters meet data: what each gets, and the shape of the perturbation."""

    shares: tuple[Share, ...]
    output: jax.ShapeDtypeStruct


def constant(value: Any) -> Fixed:
    """A value of the jaxpr itself."""
    return Fixed(value, None if jax_internals.is_traced(value) else lambda: value)


def value_of(x: Any) -> Any:
    """The array an operand stands for, whatever the walk knows of it."""
    return x.value if isinstance(x, Tracked | Mixed | Joined | Product | Fixed) else x


def values_of(operands: Iterable[Any]) -> list[Any]:
    return list(map(value_of, operands))


def is_large(x: Any) -> bool:
    """Whether rows of this parameter are too large to be formed."""
    return exceeds(np.size(x.value))


def exceeds(size: int) -> bool:
    """Whether so many numbers are too many to be formed for each example."""
    return size > ROWS


def alone(x: Any) -> tuple[Tracked, ...]:
    """The parameters a value is made of."""
    if isinstance(x, Mixed):
        return x.parts
    return (x,) if isinstance(x, Tracked) else ()


def known(x: Any) -> np.ndarray | None:
    """The value of a constant as numpy.

    `None` where it is not known while tracing, or too large to be part of a layout.
    """
    if not isinstance(x, Fixed) or x.compute is None or np.size(x.value) > _KNOWN:
        return None
    value = x.compute()
    return None if jax_internals.is_traced(value) else np.asarray(value)


def have_no_data(operands: Sequence[Any]) -> bool:
    """Whether no example has a part in any of these."""
    return all(isinstance(x, Fixed | Tracked | Mixed | Joined) for x in operands)


def real(factors: Factors) -> Factors:
    """Parameters are real, whatever they meet."""
    return lambda data, cotangent: factors(data, cotangent).real()


def move(equation: Any, operands: Sequence[Any], place: int) -> list[Any] | None:
    """The outputs of an equation that moves the parameter at `place` linearly, else `None`."""
    name, x = equation.primitive.name, operands[place]
    values = lambda: jax_internals.evaluate(equation, values_of(operands))
    if isinstance(x, Joined):
        return _move_joined(equation, x, values)
    if isinstance(x, Mixed):
        return _move_mixed(equation, operands, place)
    if name == "split":
        return _split(equation, x, values())
    aval, out = equation.invars[place].aval, equation.outvars[0].aval
    others = [y for i, y in enumerate(operands) if i != place]
    if name in SHIFTS and (place, name) != (1, "sub"):
        # A shift by what no example has a part in leaves the gradient alone.
        if isinstance(others[0], Fixed) and out.shape == aval.shape:
            return [dataclasses.replace(x, value=values()[0])]
        return None
    if name not in layouts.LINEAR or not all(isinstance(y, Fixed) for y in others):
        return None
    if len(equation.outvars) != 1:
        return None
    constants = list(map(known, operands))
    if sum(constant is None for constant in constants) > 1:  # another one than the parameter's
        return None
    steps = layouts.step(equation, constants)
    if steps is None:
        return None
    return [dataclasses.replace(x, layout=(*x.layout, *steps), value=values()[0])]


def _move_mixed(equation, operands, place):
    """All parts of a value moved by the same steps, else `None`."""
    moved = []
    for part in operands[place].parts:
        whole = dataclasses.replace(part, value=operands[place].value)
        outputs = move(equation, [*operands[:place], whole, *operands[place + 1 :]], place)
        if outputs is None:
            return None
        moved.append(outputs)
    return [Mixed(tuple(parts), parts[0].value) for parts in zip(*moved)]


def _move_joined(equation, x, values):
    """Joined parameters cast or transposed, else `None`."""
    name = equation.primitive.name
    if name in layouts.IDENTITIES and len(equation.outvars) == 1:
        (value,) = values()
        return [dataclasses.replace(x, value=value)] if jnp.isrealobj(value) else None
    if name != "transpose":
        return None
    axes = jax_internals.permutation(jax_internals.operation(equation))
    parts = []
    for part in x.parts:
        value = part.value.transpose(axes)
        if isinstance(part, Fixed):
            parts.append(Fixed(value))
        else:
            parts.append(_stepped(part, layouts.transposition(axes), value))
    return [Joined(tuple(parts), axes.index(x.axis), *values())]


def _stepped(x, step, value):
    """A parameter, or all that a value is made of, one step further."""
    moved = tuple(
        dataclasses.replace(part, layout=(*part.layout, step), value=value) for part in alone(x)
    )
    return Mixed(moved, value) if isinstance(x, Mixed) else moved[0]


def _split(equation, x, values):
    """The parts of a parameter."""
    sizes, axis = jax_internals.parts(equation)
    shape, start, outputs = np.shape(x.value), 0, []
    for size, value in zip(sizes, values):
        step = layouts.slicing(start, start + size, axis, shape)
        outputs.append(dataclasses.replace(x, layout=(*x.layout, step), value=value))
        start += size
    return outputs


def join(equation: Any, operands: Sequence[Any]) -> list[Joined] | None:
    """Parameters and constants concatenated or stacked, where one of them is large, or where they
    are matrices that are large together; else `None`."""
    tracked = [x for x in operands if isinstance(x, Tracked | Mixed)]
    together = sum(np.size(x.value) for x in tracked if np.ndim(x.value) > 1)
    if not (any(map(is_large, tracked)) or exceeds(together)) or not have_no_data(operands):
        return None
    if any(isinstance(x, Joined) for x in operands):
        return None
    axis = jax_internals.joined_axis(equation)
    if equation.primitive.name == "stack":
        operands = [_expanded(x, axis) for x in operands]
    value = jnp.concatenate(values_of(operands), axis)
    return [Joined(tuple(operands), axis, value)]


def _expanded(x, axis):
    """A part of a stack, with the new axis of size 1."""
    value = jnp.expand_dims(x.value, axis)
    return (
        Fixed(value) if isinstance(x, Fixed) else _stepped(x, layouts.reshaping(value.shape), value)
    )


def without_parameters(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """The outputs of an equation that no parameter enters."""
    values = jax_internals.evaluate(equation, values_of(operands))
    if not all(isinstance(x, Fixed) for x in operands):
        return values
    if any(x.compute is None for x in operands):
        return [Fixed(x) for x in values]

    @functools.cache
    def compute():
        return jax_internals.evaluate_now(equation, [x.compute() for x in operands])

    return [Fixed(x, functools.partial(lambda i: compute()[i], i)) for i, x in enumerate(values)]


def shares(equation: Any, place: int, x: Tracked | Mixed | Joined) -> tuple[Share, ...]:
    """What the parameters `x` at `place` get from meeting data in this equation.

    Empty where no rule applies.
    """
    if isinstance(x, Joined):
        if equation.primitive.name != "dot_general":
            return ()
        sizes = [np.shape(part.value)[x.axis] for part in x.parts]
        parts = dot_general_of_parts(equation, place, x.axis, sizes)
        return tuple(
            share
            for part, (steps, factors) in zip(x.parts, parts)
            for share in shares_of(part, steps, real(factors))
        )
    rule = RULES.get(equation.primitive.name)
    met = rule(equation, place) if rule is not None else None
    return () if met is None else shares_of(x, met[0], real(met[1]))


def shares_of(x: Any, steps: Layout, factors: Factors, formed: bool = False) -> tuple[Share, ...]:
    """What each parameter of a value gets from a meeting, `steps` further."""
    return tuple(
        Share(part.leaf, (*part.layout, *steps), factors, formed, part.shape, part.constants)
        for part in alone(x)
    )
