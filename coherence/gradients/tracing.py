"""Walk the jaxpr of one example's loss and find where each parameter meets data.

A parameter is followed through linear steps as a `Tracked` value. Where a primitive with a rule
joins it with data, the walk adds a perturbation to the output: the loss's derivative there is the
cotangent the rule asks for. A small parameter that runs into anything else is perturbed itself: its
rows are then the cotangents. A large one is given up, and recomputed, exactly, elsewhere.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import combinations, control_flow, jax_internals, tracked
from . import layout as layouts
from .rules import product_of_sum
from .terms import Outer
from .tracked import (
    SHIFTS,
    Fixed,
    Joined,
    Meeting,
    Mixed,
    Product,
    Tracked,
    alone,
    constant,
    have_no_data,
    is_large,
    value_of,
    values_of,
)


class Walk:
    """One evaluation of the loss of one example.

    Args:
        perturbations: one array a meeting, added where it says; `None` on the first, abstract walk,
            which finds the meetings.

    After it `meetings` and `operands` (the data each one met) have one entry a meeting, in the
    order of the walk, and `given_up` is `{leaf: primitive name}` of the leaves without a rule.
    """

    def __init__(self, perturbations: Sequence[jax.Array] | None = None):
        self.perturbations = perturbations
        self.meetings: list[Meeting] = []
        self.operands: list[Any] = []
        self.given_up: dict[Any, str] = {}
        self.replaced: dict[int, Any] = {}  # by the equation's identity: its output
        # By the identity of a broadcast value: itself, and as it was, with dimensions of size 1.
        self._broadcast: dict[int, tuple[Any, Any]] = {}

    def run(self, jaxpr: Any, consts: Iterable[Any], args: Sequence[Any]) -> list[Any]:
        """Outputs of the jaxpr; `Tracked` arguments are the parameters."""
        outputs = self.follow(jaxpr, map(constant, consts), args)
        return [self.plain(out, "return") for out in outputs]

    def follow(self, jaxpr: Any, consts: Iterable[Any], args: Iterable[Any]) -> list[Any]:
        """Outputs of a jaxpr, `Tracked` where it only moves parameters."""
        values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args)))
        read = lambda v: constant(v.val) if isinstance(v, jax_internals.Literal) else values[v]
        for equation in jaxpr.eqns:
            if (output := self.replaced.get(id(equation))) is not None:
                outputs = [output]
            else:
                outputs = self._equation(equation, list(map(read, equation.invars)))
            values.update(zip(equation.outvars, outputs))
        return list(map(read, jaxpr.outvars))

    def _equation(self, equation, operands):
        """The outputs of one equation, `Tracked` where it only moves a parameter."""
        name = equation.primitive.name
        if name != "reduce_sum":
            operands = [self.plain(x, name) if isinstance(x, Product) else x for x in operands]
        places = [
            i for i, x in enumerate(operands) if isinstance(x, Tracked | Mixed | Joined | Product)
        ]
        if name == "broadcast_in_dim" and have_no_data(operands):
            outputs = self._moved_or_mixed(equation, operands, places)
            self._remember_broadcast(equation, operands[0], outputs)
            if outputs is not None:
                return outputs
        if not places:
            return tracked.without_parameters(equation, operands)
        if (outputs := control_flow.checkpoint(self, equation, operands)) is not None:
            return outputs
        if (call := jax_internals.inlined(equation)) is not None:
            return self.follow(call[0], map(constant, call[1]), operands)
        is_inexact = (jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in equation.outvars)
        if name == "stop_gradient" or not any(is_inexact):  # nothing to differentiate
            outputs = jax_internals.evaluate(equation, values_of(operands))
            return [Fixed(x) for x in outputs] if have_no_data(operands) else outputs
        if name == "scan":
            return control_flow.scan(self, equation, operands)
        if name == "cond" and 0 not in places:
            return control_flow.cond(self, equation, operands)
        if name in jax_internals.CUSTOM_DERIVATIVES:
            outputs = control_flow.custom_derivative(self, equation, operands)
        elif name in ("concatenate", "stack"):
            outputs = tracked.join(equation, operands) or self._joined_with_data(equation, operands)
        elif len(places) == 1:
            outputs = self._followed(equation, operands, *places)
        else:
            outputs = None
        if outputs is None and have_no_data(operands):
            outputs = combinations.mixed(self, equation, operands)
        if outputs is None:
            plain = [self.plain(x, name) for x in operands]
            outputs = jax_internals.evaluate(equation, plain)
            return [Fixed(x) for x in outputs] if have_no_data(operands) else outputs
        return outputs

    def _joined_with_data(self, equation, operands):
        """Parameters and data behind each other, where a row is no larger than the output."""
        if have_no_data(operands):
            return None
        name = equation.primitive.name
        plain = [
            self._formed(x) if isinstance(x, Tracked) else self.plain(x, name) for x in operands
        ]
        return jax_internals.evaluate(equation, plain)

    def _followed(self, equation, operands, place):
        """The outputs of an equation with a single parameter: moved, summed or met; else `None`."""
        if isinstance(operands[place], Product):
            return self._sum(equation, operands[place])
        moved = tracked.move(equation, operands, place)
        return self._met(equation, operands, place) if moved is None else moved

    def _met(self, equation, operands, place):
        """The perturbed output, where a rule says what the parameter gets here, else `None`."""
        if have_no_data(operands) and equation.primitive.name in ("mul", "dot_general"):
            return None  # scaled or projected by constants alone: rows would be formed for nothing
        x = operands[place]
        shares = tracked.shares(equation, place, x)
        if not shares:
            return None
        plain = values_of(operands)
        if equation.primitive.name == "mul" and is_large(x):
            data = plain[1 - place]
            if np.ndim(data) == np.ndim(x.value) and np.size(data) < np.size(x.value):
                return [Product(x, data, *jax_internals.evaluate(equation, plain))]
        if _is_zero(x) and equation.primitive.name not in SHIFTS:
            aval = equation.outvars[0].aval
            axes = frozenset().union(*map(jax_internals.varying_axes, plain))
            out = jax_internals.as_varying(jnp.zeros(aval.shape, aval.dtype), axes)
        else:
            (out,) = jax_internals.evaluate(equation, plain)
        return [self._meet(out, plain[1 - place], shares)]

    def _sum(self, equation, x):
        """The sum of a product over axes of its data: a matrix product."""
        rule = product_of_sum(equation, np.shape(x.parameter.value), np.shape(x.data))
        if rule is None:
            return None
        steps, factors = rule
        shares = tracked.shares_of(x.parameter, steps, tracked.real(factors))
        (out,) = jax_internals.evaluate(equation, [x.value])
        out = jnp.zeros_like(out) if _is_zero(x.parameter) else out
        return [self._meet(out, x.data, shares)]

    def _meet(self, out, data, shares):
        """`out` perturbed, and the meeting noted."""
        if self.perturbations is not None:
            out = out + self.perturbations[len(self.meetings)]
        self.note(Meeting(shares, jax_internals.struct_like(out, out.shape)), data)
        return out

    def note(self, meeting: Meeting, data: Any) -> None:
        """One more meeting, and the data met."""
        if any(share.constants for share in meeting.shares):
            meeting, data = combinations.taken_through(meeting, data)
        self.meetings.append(meeting)
        self.operands.append(data)

    def narrow(self, value: Any) -> Any:
        """The value with size 1 in the dimensions that it was broadcast to."""
        return self._broadcast.get(id(value), (value, value))[1]

    def plain(self, x: Any, name: str) -> Any:
        """The value of an operand that goes where no rule is.

        Perturbed itself if small, else its leaf is given up.
        """
        if isinstance(x, Joined):
            return jnp.concatenate([self.plain(part, name) for part in x.parts], x.axis)
        if isinstance(x, Product):
            return self._give_up(x.parameter, "mul", x.value)
        if not isinstance(x, Tracked | Mixed):
            return value_of(x)
        return self._give_up(x, name, x.value) if is_large(x) else self._formed(x)

    def _give_up(self, x, name, value):
        for part in alone(x):
            self.given_up.setdefault(part.leaf, name)
        return value

    def _formed(self, x):
        """A parameter perturbed itself."""
        size = np.size(x.value)

        def row(_, cotangent):
            ones = jnp.ones((1, 1, 1), cotangent.real.dtype)
            return Outer(ones, cotangent.reshape(1, 1, size))

        steps = (layouts.reshaping((1, 1, size)),)
        return self._meet(
            x.value, None, tracked.shares_of(x, steps, tracked.real(row), formed=True)
        )

    def _moved_or_mixed(self, equation, operands, places):
        if not places:
            return tracked.without_parameters(equation, operands)
        return tracked.move(equation, operands, 0) or combinations.mixed(self, equation, operands)

    def _remember_broadcast(self, equation, operand, outputs):
        value = value_of(operand)
        if outputs is None or np.size(value) == equation.outvars[0].aval.size:
            return
        shape = [1] * equation.outvars[0].aval.ndim
        for axis, size in zip(
            jax_internals.broadcast_axes(jax_internals.operation(equation)), np.shape(value)
        ):
            shape[axis] = size
        out = value_of(outputs[0])
        self._broadcast[id(out)] = out, jnp.reshape(value, shape)


def _is_zero(x):
    """Whether a tangent in a parameter's place, which is zero."""
    return isinstance(x, Tracked) and x.is_zero
