"""Walk the jaxpr of one example's loss and find where each parameter meets data.

A parameter is followed through layout-only steps as a `Tracked` value. Where a primitive with a rule joins it with data, the
walk adds a perturbation to the output: the loss's derivative there is the cotangent the rule asks for. A small parameter that
runs into anything else is perturbed itself: its rows are then the cotangents. A large one is given up, and recomputed, exactly,
elsewhere.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _jax, layout
from .rules import RULES
from .rules.dot_general import dot_general_of_parts
from .terms import Outer, Term


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


ROWS = 4096  # numbers of a parameter whose gradient may be formed for each example where no rule applies: vectors, not matrices


class Walk:
    """One evaluation of the loss of one example.

    Args:
        perturbations: one array a meeting, added where it says; `None` on the first, abstract walk, which finds the meetings.

    After it `meetings` and `operands` (the data each one met) have one entry a meeting, in the order of the walk, and `given_up`
    is `{leaf: primitive name}` of the leaves without a rule.
    """

    def __init__(self, perturbations=None):
        self.perturbations = perturbations
        self.meetings: list[Meeting] = []
        self.operands: list[Any] = []
        self.given_up: dict[Any, str] = {}

    def run(self, jaxpr, consts, args):
        """Outputs of the jaxpr; `Tracked` arguments are the parameters."""
        return [self._plain(out, "return") for out in self._jaxpr(jaxpr, consts, args)]

    def _jaxpr(self, jaxpr, consts, args):
        values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args)))
        for equation in jaxpr.eqns:
            operands = [v.val if isinstance(v, _jax.Literal) else values[v] for v in equation.invars]
            values.update(zip(equation.outvars, self._equation(equation, operands)))
        return [v.val if isinstance(v, _jax.Literal) else values[v] for v in jaxpr.outvars]

    def _equation(self, equation, operands):
        places = [i for i, x in enumerate(operands) if isinstance(x, Tracked | Joined)]
        if not places:
            return _jax.evaluate(equation, operands)
        if (called := _jax.inner(equation)) is not None:
            return self._jaxpr(*called, operands)
        name = equation.primitive.name
        if name == "stop_gradient" or not any(jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in equation.outvars):
            return _jax.evaluate(equation, [_value(x) for x in operands])  # nothing to differentiate
        if name == "scan":
            return self._scan(equation, operands)
        if name == "cond" and 0 not in places:
            return self._cond(equation, operands)
        if name == "concatenate" and all(isinstance(x, Tracked) and np.size(x.value) > ROWS for x in operands):
            return [Joined(tuple(operands), equation.params["dimension"], *_jax.evaluate(equation, [x.value for x in operands]))]
        if len(places) == 1:
            (place,) = places
            x = operands[place]
            plain = [_value(y) for y in operands]
            if isinstance(x, Tracked) and (moved := self._move(equation, operands, place)) is not None:
                return [Tracked(x.leaf, moved, *_jax.evaluate(equation, plain))]
            if shares := _shares(equation, place, x):
                (out,) = _jax.evaluate(equation, plain)
                return [self._meet(out, operands[1 - place], shares)]
        return _jax.evaluate(equation, [self._plain(x, name) for x in operands])

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

    def _meet(self, out, data, shares):
        """`out` perturbed, and the meeting noted."""
        if self.perturbations is not None:
            out = out + self.perturbations[len(self.meetings)]
        self._note(Meeting(shares, jax.ShapeDtypeStruct(out.shape, out.dtype)), data)
        return out

    def _note(self, meeting, data):
        self.meetings.append(meeting)
        self.operands.append(data)

    def _plain(self, x, name):
        """The value of an operand that goes where no rule is: perturbed itself if small, else its leaf is given up."""
        if isinstance(x, Joined):
            return jnp.concatenate([self._plain(part, name) for part in x.parts], x.axis)
        if not isinstance(x, Tracked):
            return x
        size = np.size(x.value)
        if size > ROWS:
            self.given_up.setdefault(x.leaf, name)
            return x.value
        row = lambda _, cotangent: (jnp.ones((1, 1, 1), cotangent.dtype), cotangent.reshape(1, 1, size))
        return self._meet(x.value, None, (Share(x.leaf, (*x.layout, layout.reshaping((1, 1, size))), row, formed=True),))

    def _cond(self, equation, operands):
        """Every branch is walked, as under `vmap`, and the outputs selected: meetings of the others get zero cotangents."""
        index, *rest = operands
        outputs = [[self._plain(out, "cond") for out in self._jaxpr(*_jax.opened(branch), rest)] for branch in equation.params["branches"]]
        return [jax.lax.select_n(index, *outs) for outs in zip(*outputs)]

    def _scan(self, equation, operands):
        """A parameter the steps share (time) has one more sum over positions, one they divide (layers) one more batch dimension."""
        scan = _jax.scan(equation)
        rest = [self._plain(x, "scan") if i in scan.carried or isinstance(x, Joined) else x for i, x in enumerate(operands)]
        found = _meetings_of_a_step(scan, rest)
        # Rows formed at every step would be as many as steps; perturbed out here, the backward pass adds them up.
        early = {share.leaf for meeting in found.meetings for share in meeting.shares if share.formed and share.leaf < scan.constants}
        if early:
            rest = [self._plain(x, "scan") if i in early else x for i, x in enumerate(rest)]
            found = _meetings_of_a_step(scan, rest)
        start = len(self.meetings)
        perturbations = None if self.perturbations is None else list(self.perturbations[start : start + len(found.meetings)])

        def step(carry, xs):
            walk, carry, outputs = _step_of_scan(scan, rest, xs[0], carry, xs[1])
            return carry, (outputs, walk.operands)

        scanned = [_value(x) for x in rest[scan.carried.stop :]]
        init = [rest[i] for i in scan.carried]
        carry, (outputs, met) = jax.lax.scan(step, init, (perturbations, scanned), scan.length, scan.reverse, scan.unroll)
        for meeting, data in zip(found.meetings, met):
            shares = tuple(_repeated(share, rest[share.leaf], stacked=share.leaf >= scan.carried.stop) for share in meeting.shares)
            output = jax.ShapeDtypeStruct((scan.length, *meeting.output.shape), meeting.output.dtype)
            self._note(Meeting(shares, output), data)
        for i, name in found.given_up.items():
            self.given_up.setdefault(rest[i].leaf, name)
        return [*carry, *outputs]


def _meetings_of_a_step(scan, rest):
    """An abstract walk of one step of a scan."""
    walks: list[Walk] = []
    slices = [jax.eval_shape(lambda x: x[0], _value(x)) for x in rest[scan.carried.stop :]]
    jax.eval_shape(lambda c, s: walks.append(_step_of_scan(scan, rest, None, c, s)[0]), [rest[i] for i in scan.carried], slices)
    return walks[0]


def _step_of_scan(scan, rest, perturbations, carry, scanned):
    """(walk, carry, outputs) of one step; its parameters are numbered by their place among the scan's operands, `rest`."""
    walk = Walk(perturbations)
    values = [*map(_value, rest[: scan.constants]), *carry, *scanned]
    args = [Tracked(i, (), value) if isinstance(rest[i], Tracked) else value for i, value in enumerate(values)]
    outputs = walk.run(*_jax.opened(scan.jaxpr), args)
    return walk, outputs[: scan.carries], outputs[scan.carries :]


def _shares(equation, place, x):
    """What the parameters at `place` get from meeting data in this equation; empty where no rule applies."""
    if isinstance(x, Joined):
        if equation.primitive.name != "dot_general":
            return ()
        sizes = [np.shape(part.value)[x.axis] for part in x.parts]
        parts = dot_general_of_parts(equation, place, x.axis, sizes)
        return tuple(Share(part.leaf, (*part.layout, *steps), factors) for part, (steps, factors) in zip(x.parts, parts))
    rule = RULES.get(equation.primitive.name)
    met = rule(equation, place) if rule is not None else None
    return () if met is None else (Share(x.leaf, (*x.layout, *met[0]), met[1]),)


def _repeated(share, tracked, *, stacked):
    """A leaf's share in a meeting that all steps of a scan repeat; data and cotangents have a leading axis of its length."""

    def factors(data, cotangent):
        met = jax.vmap(share.factors)(data, cotangent)
        return (met if isinstance(met, Term) else Outer(*met)).of_steps(stacked=stacked)

    steps = (layout.Mapped(share.layout),) if stacked else share.layout
    return Share(tracked.leaf, (*tracked.layout, *steps), factors)


def _value(x):
    return x.value if isinstance(x, Tracked | Joined) else x
