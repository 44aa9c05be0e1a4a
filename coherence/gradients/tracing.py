"""Walk the jaxpr of one example's loss and find where each parameter meets data.

A parameter is followed through layout-only steps as a `Tracked` value. Where a primitive with a
rule joins it with data, the walk adds a perturbation to the output: the loss's derivative there is
the cotangent the rule asks for. A small parameter that runs into anything else is perturbed itself:
its rows are then the cotangents. A large one is given up, and recomputed, exactly, elsewhere.
"""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coherence import jax_internals

from . import layout
from .meetings import Fixed, Joined, Meeting, Share, Tracked, constant, is_number, value_of
from .rules import RULES
from .rules.dot_general import dot_general_of_parts
from .terms import Outer, Term

_SHIFTS = ("add", "add_any", "sub")
ROWS = 4096  # numbers of a parameter whose gradient may be formed for each example where no rule applies: vectors, not matrices


class Walk:
    """One evaluation of the loss of one example.

    Args:
        perturbations: one array a meeting, added where it says; `None` on the first, abstract walk,
            which finds the meetings.

    After it `meetings` and `operands` (the data each one met) have one entry a meeting, in the
    order of the walk, and `given_up` is `{leaf: primitive name}` of the leaves without a rule.
    """

    def __init__(self, perturbations=None):
        self.perturbations = perturbations
        self.meetings: list[Meeting] = []
        self.operands: list[Any] = []
        self.given_up: dict[Any, str] = {}

    def run(self, jaxpr, consts, args):
        """Outputs of the jaxpr; `Tracked` arguments are the parameters."""
        return [
            self._plain(out, "return") for out in self._jaxpr(jaxpr, map(constant, consts), args)
        ]

    def _jaxpr(self, jaxpr, consts, args):
        values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args)))
        read = lambda v: constant(v.val) if isinstance(v, jax_internals.Literal) else values[v]
        for equation in jaxpr.eqns:
            values.update(
                zip(equation.outvars, self._equation(equation, [read(v) for v in equation.invars]))
            )
        return [read(v) for v in jaxpr.outvars]

    def _equation(self, equation, operands):
        without_data = all(isinstance(x, Fixed | Tracked) for x in operands)
        folded = _is_foldable(equation, operands)
        mark = (constant if folded else Fixed) if without_data else lambda x: x
        places = [i for i, x in enumerate(operands) if isinstance(x, Tracked | Joined)]
        if not places:
            with jax.ensure_compile_time_eval() if folded else contextlib.nullcontext():
                return [
                    mark(out) for out in jax_internals.evaluate(equation, map(value_of, operands))
                ]
        if (called := jax_internals.inlined(equation)) is not None:
            return self._jaxpr(called[0], map(constant, called[1]), operands)
        name = equation.primitive.name
        if name == "stop_gradient" or not any(
            jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in equation.outvars
        ):
            return [
                mark(out) for out in jax_internals.evaluate(equation, map(value_of, operands))
            ]  # nothing to differentiate
        if name == "scan":
            return self._scan(equation, operands)
        if name == "cond" and 0 not in places:
            return self._cond(equation, operands)
        if (
            name in jax_internals.CUSTOM_DERIVATIVES
            and (outs := self._custom(equation, operands)) is not None
        ):
            return outs
        if name == "concatenate" and all(
            isinstance(x, Tracked) and np.size(x.value) > ROWS for x in operands
        ):
            return [
                Joined(
                    tuple(operands),
                    jax_internals.joined_axis(equation),
                    *jax_internals.evaluate(equation, [x.value for x in operands]),
                )
            ]
        if len(places) == 1:
            (place,) = places
            x = operands[place]
            plain = [value_of(y) for y in operands]
            if (
                isinstance(x, Tracked)
                and (moved := self._move(equation, operands, place)) is not None
            ):
                return [Tracked(x.leaf, moved, *jax_internals.evaluate(equation, plain))]
            if not _only_scaled(equation, without_data) and (shares := _shares(equation, place, x)):
                (out,) = jax_internals.evaluate(equation, plain)
                return [self._meet(out, plain[1 - place], shares)]
        return [
            mark(out)
            for out in jax_internals.evaluate(equation, [self._plain(x, name) for x in operands])
        ]

    def _move(self, equation, operands, place):
        """The layout after this equation where it moves the parameter linearly without meeting data, else `None`."""
        name, tracked = equation.primitive.name, operands[place]
        aval, out = equation.invars[place].aval, equation.outvars[0].aval
        others = [x for i, x in enumerate(operands) if i != place]
        if name in _SHIFTS and (place, name) != (
            1,
            "sub",
        ):  # a shift by what no example has a part in leaves the gradient alone
            return (
                tracked.layout if isinstance(others[0], Fixed) and out.shape == aval.shape else None
            )
        if not all(map(is_number, others)) or len(equation.outvars) != 1:
            return None
        literals = tuple(
            None
            if i == place
            else (np.asarray(value_of(x)).item(), str(jnp.result_type(value_of(x))))
            for i, x in enumerate(operands)
        )
        step = layout.step(jax_internals.operation(equation), literals, out.shape, aval.size)
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
            return value_of(x)
        size = np.size(x.value)
        if size > ROWS:
            self.given_up.setdefault(x.leaf, name)
            return x.value
        row = lambda _, cotangent: (
            jnp.ones((1, 1, 1), cotangent.dtype),
            cotangent.reshape(1, 1, size),
        )
        return self._meet(
            x.value,
            None,
            (Share(x.leaf, (*x.layout, layout.reshaping((1, 1, size))), row, formed=True),),
        )

    def _custom(self, equation, operands):
        """A large parameter inside a function with a derivative of its own: followed through the tangent map of that derivative.

        The map is linear in the parameter's tangent, so a zero tangent in the parameter's place
        meets the data that its derivative is made of. `None` where no parameter is large, or the
        derivative (of a `custom_vjp`) is not linear in the cotangent.
        """
        places = [
            i for i, x in enumerate(operands) if isinstance(x, Tracked) and np.size(x.value) > ROWS
        ]
        if not places:
            return None
        rest = [
            None if i in places else self._plain(x, equation.primitive.name)
            for i, x in enumerate(operands)
        ]
        values = [operands[i].value for i in places]

        def function(*values):
            filled = dict(zip(places, values))
            return jax_internals.evaluate(equation, [filled.get(i, x) for i, x in enumerate(rest)])

        outs, pull_back = jax.vjp(function, *values)
        try:
            closed = jax.make_jaxpr(
                jax.linear_transpose(lambda *cotangents: pull_back(list(cotangents)), *outs)
            )(tuple(values))
        except (NotImplementedError, TypeError, ValueError, AssertionError):
            return None
        data = any(i not in places and not isinstance(x, Fixed) for i, x in enumerate(operands))
        consts = [x if data else Fixed(x) for x in jax.lax.stop_gradient(closed.consts)]
        zeros = [
            Tracked(operands[i].leaf, operands[i].layout, jnp.zeros_like(x))
            for i, x in zip(places, values)
        ]
        tangents = self._jaxpr(closed.jaxpr, consts, zeros)
        return [
            Tracked(t.leaf, t.layout, out)
            if isinstance(t, Tracked)
            else out + self._plain(t, equation.primitive.name)
            for out, t in zip(outs, tangents)
        ]

    def _cond(self, equation, operands):
        """Every branch is walked, as under `vmap`, and the outputs selected: meetings of the others get zero cotangents."""
        index, *rest = operands
        outputs = [
            [
                self._plain(out, "cond")
                for out in self._jaxpr(*jax_internals.open_jaxpr(branch), rest)
            ]
            for branch in jax_internals.branches(equation)
        ]
        return [jax.lax.select_n(value_of(index), *outs) for outs in zip(*outputs)]

    def _scan(self, equation, operands):
        """A parameter the steps share (time) has one more sum over positions, one they divide (layers) one more batch dimension."""
        scan = jax_internals.scan(equation)
        rest = [
            x if isinstance(x, Tracked) and i not in scan.carried else self._plain(x, "scan")
            for i, x in enumerate(operands)
        ]
        found = _meetings_of_a_step(scan, rest)
        # Rows formed at every step would be as many as steps; perturbed out here, the backward pass
        # adds them up.
        early = {
            share.leaf
            for meeting in found.meetings
            for share in meeting.shares
            if share.formed and share.leaf < scan.constants
        }
        if early:
            rest = [self._plain(x, "scan") if i in early else x for i, x in enumerate(rest)]
            found = _meetings_of_a_step(scan, rest)
        start = len(self.meetings)
        perturbations = (
            None
            if self.perturbations is None
            else list(self.perturbations[start : start + len(found.meetings)])
        )

        def step(carry, xs):
            walk, carry, outputs = _step_of_scan(scan, rest, xs[0], carry, xs[1])
            return carry, (outputs, walk.operands)

        scanned = [value_of(x) for x in rest[scan.carried.stop :]]
        init = [rest[i] for i in scan.carried]
        carry, (outputs, met) = jax.lax.scan(
            step, init, (perturbations, scanned), scan.length, scan.reverse, scan.unroll
        )
        for meeting, data in zip(found.meetings, met):
            shares = tuple(
                _repeated(share, rest[share.leaf], stacked=share.leaf >= scan.carried.stop)
                for share in meeting.shares
            )
            output = jax.ShapeDtypeStruct(
                (scan.length, *meeting.output.shape), meeting.output.dtype
            )
            self._note(Meeting(shares, output), data)
        for i, name in found.given_up.items():
            self.given_up.setdefault(rest[i].leaf, name)
        return [*carry, *outputs]


def _meetings_of_a_step(scan, rest):
    """An abstract walk of one step of a scan."""
    walks: list[Walk] = []
    slices = [jax.eval_shape(lambda x: x[0], value_of(x)) for x in rest[scan.carried.stop :]]
    jax.eval_shape(
        lambda c, s: walks.append(_step_of_scan(scan, rest, None, c, s)[0]),
        [rest[i] for i in scan.carried],
        slices,
    )
    return walks[0]


def _step_of_scan(scan, rest, perturbations, carry, scanned):
    """(walk, carry, outputs) of one step; its parameters are numbered by their place among the scan's operands, `rest`."""
    walk = Walk(perturbations)
    values = [*map(value_of, rest[: scan.constants]), *carry, *scanned]
    args = [
        Tracked(i, (), value) if isinstance(rest[i], Tracked) else value
        for i, value in enumerate(values)
    ]
    outputs = walk.run(*jax_internals.open_jaxpr(scan.jaxpr), args)
    return walk, outputs[: scan.carries], outputs[scan.carries :]


def _shares(equation, place, x):
    """What the parameters at `place` get from meeting data in this equation; empty where no rule applies."""
    if isinstance(x, Joined):
        if equation.primitive.name != "dot_general":
            return ()
        sizes = [np.shape(part.value)[x.axis] for part in x.parts]
        parts = dot_general_of_parts(equation, place, x.axis, sizes)
        return tuple(
            Share(part.leaf, (*part.layout, *steps), factors)
            for part, (steps, factors) in zip(x.parts, parts)
        )
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


def _is_foldable(equation, operands):
    """Scalars made of known scalars, such as sqrt(1 / fan_in), are computed while tracing: layouts hold numbers."""
    return (
        bool(operands)
        and all(map(is_number, operands))
        and all(v.aval.shape == () for v in equation.outvars)
    )


def _only_scaled(equation, without_data):
    """A parameter that constants alone scale or project has met no data: its rows would be formed for nothing."""
    return without_data and equation.primitive.name in ("mul", "dot_general")
