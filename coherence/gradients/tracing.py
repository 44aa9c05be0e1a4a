"""Walk the jaxpr of one example's loss and find where each parameter meets data.

A parameter is followed through layout-only steps as a `Tracked` value. Where a primitive with a rule joins it with data, the
walk adds a perturbation to the output: the loss's derivative there is the cotangent the rule asks for. Everything else a
parameter runs into gives that leaf up: it is recomputed, exactly, elsewhere.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _jax, layout
from .rules import RULES


@dataclasses.dataclass(frozen=True)
class Tracked:
    """The value a parameter leaf has become by layout-only steps."""

    leaf: int
    layout: tuple
    value: Any


@dataclasses.dataclass(frozen=True)
class Meeting:
    """A place where a parameter meets data: how to make its factors, and the shape of the perturbation."""

    leaf: int
    layout: tuple
    factors: Any
    output: jax.ShapeDtypeStruct


class Walk:
    """One evaluation of the loss of one example.

    Args:
        perturbations: one array a meeting, added to its output; `None` on the first, abstract walk, which finds the meetings.
        given_up: filled with `{leaf: primitive name}` of the leaves without a rule.

    After it `meetings` and `operands` (the data each one met) have one entry a meeting, in the order of the walk.
    """

    def __init__(self, perturbations=None):
        self.perturbations = perturbations
        self.meetings: list[Meeting] = []
        self.operands: list[Any] = []
        self.given_up: dict[int, str] = {}

    def loss(self, jaxpr, consts, parameters, rest):
        """Outputs of the jaxpr whose first inputs are the parameter leaves."""
        tracked = [Tracked(i, (), p) for i, p in enumerate(parameters)]
        return [self._give_up(out, "return") for out in self._jaxpr(jaxpr, consts, [*tracked, *rest])]

    def _jaxpr(self, jaxpr, consts, args):
        values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args)))
        for equation in jaxpr.eqns:
            operands = [v.val if isinstance(v, _jax.Literal) else values[v] for v in equation.invars]
            values.update(zip(equation.outvars, self._equation(equation, operands)))
        return [v.val if isinstance(v, _jax.Literal) else values[v] for v in jaxpr.outvars]

    def _equation(self, equation, operands):
        places = [i for i, x in enumerate(operands) if isinstance(x, Tracked)]
        if not places:
            return _jax.evaluate(equation, operands)
        if (called := _jax.inner(equation)) is not None:
            return self._jaxpr(*called, operands)
        name = equation.primitive.name
        plain = [x.value if isinstance(x, Tracked) else x for x in operands]
        outputs = [v.aval for v in equation.outvars]
        if name == "stop_gradient" or not any(jnp.issubdtype(o.dtype, jnp.inexact) for o in outputs):
            return _jax.evaluate(equation, plain)  # nothing to differentiate
        if len(places) == 1:
            (place,) = places
            if (moved := self._move(equation, operands, place)) is not None:
                return [Tracked(operands[place].leaf, moved, *_jax.evaluate(equation, plain))]
            rule = RULES.get(name)
            if rule is not None and (met := rule(equation, place)) is not None:
                return [self._meet(equation, operands[place], operands[1 - place], plain, *met)]
        for i in places:
            self._give_up(operands[i], name)
        return _jax.evaluate(equation, plain)

    def _move(self, equation, operands, place):
        """The layout after this equation where it moves the parameter linearly without meeting data, else `None`."""
        others = [v for i, v in enumerate(equation.invars) if i != place]
        if not all(isinstance(v, _jax.Literal) and np.ndim(v.val) == 0 for v in others) or len(equation.outvars) != 1:
            return None
        name, tracked = equation.primitive.name, operands[place]
        if name == "add" or (name == "sub" and place == 0):
            return tracked.layout  # a constant shift leaves the gradient alone
        literals = tuple(
            None if i == place else (np.asarray(v.val).item(), str(np.asarray(v.val).dtype)) for i, v in enumerate(equation.invars)
        )
        aval = equation.invars[place].aval
        step = layout.step(equation.primitive, equation.params, literals, equation.outvars[0].aval.shape, aval.size)
        return None if step is None else (*tracked.layout, step)

    def _meet(self, equation, tracked, data, plain, steps, factors):
        (out,) = _jax.evaluate(equation, plain)
        if self.perturbations is not None:
            out = out + self.perturbations[len(self.meetings)]
        self.meetings.append(Meeting(tracked.leaf, (*tracked.layout, *steps), factors, jax.ShapeDtypeStruct(out.shape, out.dtype)))
        self.operands.append(data)
        return out

    def _give_up(self, x, name):
        if not isinstance(x, Tracked):
            return x
        self.given_up.setdefault(x.leaf, name)
        return x.value
