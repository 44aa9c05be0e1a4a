"""The walk through what runs other jaxprs: scan, cond, checkpoint, derivatives of their own.

A body is walked by itself, with its operands in the place of the leaves, and its meetings become
the walk's. `walk` is always the `tracing.Walk` that came upon the equation.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import jax_internals, loops
from . import layout as layouts
from .linearity import zero_where
from .terms import Term
from .tracked import (
    Fixed,
    Joined,
    Meeting,
    Mixed,
    Share,
    Tracked,
    alone,
    constant,
    is_large,
    known,
    shares_of,
    value_of,
    values_of,
)


def custom_derivative(walk: Any, equation: Any, operands: Sequence[Any]) -> list[Any] | None:
    """A large parameter followed through the tangent map of a derivative somebody wrote.

    The map is linear in the parameter's tangent, so a zero tangent in the parameter's place
    meets the data that its derivative is made of. `None` where no parameter is large, or the
    derivative (of a `custom_vjp`) is not linear in the cotangent.
    """
    places = [i for i, x in enumerate(operands) if isinstance(x, Tracked) and is_large(x)]
    if not places:
        return None
    name = equation.primitive.name
    rest = {i: walk.plain(x, name) for i, x in enumerate(operands) if i not in places}
    values = [operands[i].value for i in places]

    def function(*values):
        filled = rest | dict(zip(places, values))
        return jax_internals.evaluate(equation, [filled[i] for i in range(len(operands))])

    outs, pull_back = jax.vjp(function, *values)
    backward = jax.make_jaxpr(lambda cts: pull_back(cts))(outs)
    if not all(zero_where(backward.jaxpr, [True] * len(backward.jaxpr.invars))):
        return None  # what it adds to every cotangent would be lost
    try:
        tangents_of = jax.linear_transpose(lambda *cts: pull_back(list(cts)), *outs)
        closed = jax.make_jaxpr(tangents_of)(tuple(values))
    except (NotImplementedError, TypeError, ValueError, AssertionError):
        return None
    data = any(i not in places and not isinstance(x, Fixed) for i, x in enumerate(operands))
    consts = closed.consts if data else map(Fixed, closed.consts)
    zeros = [
        dataclasses.replace(operands[i], value=jax_internals.zeros_like(x), is_zero=True)
        for i, x in zip(places, values)
    ]
    tangents = walk.follow(closed.jaxpr, consts, zeros)
    outputs = []
    for out, tangent in zip(outs, tangents):
        if isinstance(tangent, Tracked):
            is_zero = operands[places[0]].is_zero
            outputs.append(dataclasses.replace(tangent, value=out, is_zero=is_zero))
        else:
            outputs.append(out + walk.plain(tangent, name))
    return outputs


def cond(walk: Any, equation: Any, operands: Sequence[Any]) -> list[Any]:
    """One branch where the choice is known, else each with perturbations of its own.

    The branches that are not taken give theirs zero cotangents.
    """
    index, *rest = operands
    branches = jax_internals.branches(equation)
    if (choice := known(index)) is not None:
        branch = branches[np.clip(choice, 0, len(branches) - 1)]
        jaxpr, consts = jax_internals.open_jaxpr(branch)
        return walk.follow(jaxpr, map(constant, consts), rest)
    rest = [_unjoined(walk, x, "cond") for x in rest]
    bodies = [_Body(walk, branch, rest) for branch in branches]
    start = len(walk.meetings)
    functions = []
    for k, body in enumerate(bodies):
        stop = start + len(body.meetings)
        functions.append(functools.partial(_branch, bodies, k, _own(walk, start, stop)))
        start = stop
    outputs, data = jax.lax.switch(value_of(index), functions, values_of(rest))
    for body, met in zip(bodies, data):
        _note_body(walk, body, met)
    return outputs


def checkpoint(walk: Any, equation: Any, operands: Sequence[Any]) -> list[Any] | None:
    """Outputs of a `jax.checkpoint`, whose inside the backward pass makes again.

    `None` of another equation, or where a parameter only passes through.
    """
    arguments = jax_internals.checkpointing(equation)
    if arguments is None or walk.perturbations is None:
        return None
    rest = [_unjoined(walk, x, "checkpoint") for x in operands]
    (jaxpr,) = jax_internals.inner_jaxprs(equation)
    body = _Body(walk, jaxpr, rest)
    if "return" in body.given_up.values():
        return None

    def run(perturbations, values):
        inner, outputs = body.run(perturbations, values)
        return outputs, inner.operands

    start = len(walk.meetings)
    perturbations = _own(walk, start, start + len(body.meetings))
    run = jax.checkpoint(run, **arguments)
    outputs, data = run(perturbations, values_of(rest))
    _note_body(walk, body, data)
    return outputs


def _own(walk, start, stop):
    """The perturbations of some of the meetings."""
    return None if walk.perturbations is None else list(walk.perturbations[start:stop])


def _unjoined(walk, x, name):
    return walk.plain(x, name) if isinstance(x, Joined) else x


def _note_body(walk, body, data):
    """The meetings of a part of the walk, as those of the leaves themselves."""
    for meeting, met in zip(body.meetings, data):
        each = [
            shares_of(body.operands[share.leaf], share.layout, share.factors, share.formed)
            for share in meeting.shares
        ]
        shares = tuple(itertools.chain.from_iterable(each))
        walk.note(Meeting(shares, meeting.output), met)
    for i, name in body.given_up.items():
        for part in alone(body.operands[i]):
            walk.given_up.setdefault(part.leaf, name)


def scan(walk: Any, equation: Any, operands: Sequence[Any]) -> list[Any]:
    """A loop: parameters shared by its steps and parameters divided among them.

    A shared one (time) has one more sum over positions, a divided one (layers) one more batch
    dimension.
    """
    loop = jax_internals.scan(equation)
    if loop.length == 0:  # there is no step to look at
        stacked = (v.aval for v in equation.outvars[loop.carries :])
        empty = [jnp.zeros(aval.shape, aval.dtype) for aval in stacked]
        return [*(operands[i] for i in loop.carried), *empty]
    rest = list(operands)
    for i, x in enumerate(operands):
        if i in loop.carried or not _can_be_scanned(x, i, loop):
            rest[i] = walk.plain(x, "scan")
        elif i >= loop.carried.stop and isinstance(x, Fixed):
            # A step sees slices of it: what is known of the whole is not known of them.
            rest[i] = Fixed(x.value)
    loop, slices, rest = _sliced(loop, operands, rest)
    step = _Step(walk, loop, rest, slices)
    # Rows formed at every step would be as many as steps; perturbed out here, the backward pass
    # adds them up.
    shares = itertools.chain.from_iterable(meeting.shares for meeting in step.meetings)
    early = {share.leaf for share in shares if share.formed and share.leaf < loop.constants}
    if early:
        for i in sorted(early):
            rest[i] = walk.plain(rest[i], "scan")
        step = _Step(walk, loop, rest, slices)
    start = len(walk.meetings)
    perturbations = _own(walk, start, start + len(step.meetings))

    def body(carry, xs):
        inner, carry, outputs = step.run(xs[0], carry, xs[1])
        varying = {i: x for i, x in enumerate(inner.operands) if step.constant[i] is None}
        return carry, (outputs, varying)

    elements = values_of(rest[loop.carried.stop :])
    init = values_of(rest[i] for i in loop.carried)
    carry, (outputs, data) = jax.lax.scan(
        body, init, (perturbations, elements), loop.length, loop.reverse, loop.unroll
    )
    for i, (meeting, place) in enumerate(zip(step.meetings, step.constant)):
        repeated: list[Share] = []
        for share in meeting.shares:
            x, stacked = rest[share.leaf], share.leaf >= loop.carried.stop
            repeated += _repeated(share, x, stacked=stacked, constant=place is not None)
        shape = (loop.length, *meeting.output.shape)
        output = jax_internals.struct_like(meeting.output, shape)
        met = data[i] if place is None else value_of(rest[place])
        walk.note(Meeting(tuple(repeated), output), met)
    for i, name in step.given_up.items():
        for x in rest[i].parts if isinstance(rest[i], Joined) else [rest[i]]:
            for part in alone(x):
                walk.given_up.setdefault(part.leaf, name)
    return [*carry, *outputs]


class _Part:
    """A jaxpr walked by itself, its parameters numbered by their place among `operands`.

    The first walk is abstract: it finds the meetings.
    """

    def __init__(self, walk, closed, operands):
        self.new_walk = type(walk)
        self.jaxpr, self.consts = jax_internals.open_jaxpr(closed)
        self.operands = operands

    def _find(self, run, *args):
        def find(*args):
            walk, *_ = run(*args)
            self.meetings, self.given_up = walk.meetings, walk.given_up
            return walk.operands

        self.data = jax.eval_shape(find, *args)
        for share in itertools.chain.from_iterable(meeting.shares for meeting in self.meetings):
            if share.constants:  # values of this part, which nothing outside of it can hold
                self.given_up.setdefault(share.leaf, "mul")

    def _walk(self, perturbations, values, replaced=()):
        walk = self.new_walk(perturbations)
        args: list[Any] = []
        for i, (x, value) in enumerate(zip(self.operands, values)):
            if isinstance(x, Tracked | Mixed | Joined):
                is_zero = isinstance(x, Tracked) and x.is_zero
                args.append(Tracked(i, (), value, is_zero, np.shape(value)))
            else:
                args.append(Fixed(value, x.compute) if isinstance(x, Fixed) else value)
        walk.replaced = {id(e): x for e, x in zip(replaced, args[len(self.jaxpr.invars) :])}
        return walk, walk.run(self.jaxpr, self.consts, args)


class _Body(_Part):
    """A branch."""

    def __init__(self, walk, closed, operands):
        super().__init__(walk, closed, operands)
        self._find(functools.partial(self._walk, None), values_of(operands))

    def run(self, perturbations, values):
        """(walk, outputs)."""
        return self._walk(perturbations, values)


class _Step(_Part):
    """A step of a scan; its last operands are the outputs of the equations `slices`.

    `constant` has the place of the operand that is a meeting's data, `None` where each step has
    data of its own.
    """

    def __init__(self, walk, scan, operands, slices):
        super().__init__(walk, scan.jaxpr, operands)
        self.scan, self.slices = scan, slices
        slices = [
            jax.eval_shape(lambda x: x[0], value_of(x)) for x in operands[scan.carried.stop :]
        ]
        init = values_of(operands[i] for i in scan.carried)
        self._find(functools.partial(self._found, init), slices)

    def _found(self, carry, scanned):
        walk, *results = self.run(None, carry, scanned)
        places = {id(value_of(x)): i for i, x in enumerate(self.operands[: self.scan.constants])}
        self.constant = [places.get(id(x)) for x in walk.operands]
        return walk, *results

    def run(self, perturbations, carry, scanned):
        """(walk, carry, outputs)."""
        constants = values_of(self.operands[: self.scan.constants])
        walk, outputs = self._walk(perturbations, [*constants, *carry, *scanned], self.slices)
        return walk, outputs[: self.scan.carries], outputs[self.scan.carries :]


def _branch(bodies, chosen, perturbations, values):
    """Outputs of one branch and the data met in all, which are zero in the others."""
    walk, outputs = bodies[chosen].run(perturbations, values)
    data = [jax.tree.map(jax_internals.zeros_like, body.data) for body in bodies]
    data[chosen] = walk.operands
    return outputs, data


def _sliced(scan, operands, rest):
    """The loop with slices of parameters by the step's number turned into scanned operands.

    The scan with its calls opened, the equations that slice, and `rest` with all steps' slices.
    """
    shared = operands[: scan.constants]
    places = [i for i, x in enumerate(shared) if isinstance(x, Tracked) and is_large(x)]
    if not places or not jax_internals.contains(scan.jaxpr.jaxpr, "dynamic_slice"):
        return scan, [], rest
    scan = scan._replace(jaxpr=jax_internals.with_calls_inlined(scan.jaxpr))
    constants = [known(x) for x in operands]
    equations, slices = [], []
    for equation, place, index in loops.slices(scan, constants, places):
        x = operands[place]
        steps = (
            *layouts.taking(index, np.shape(x.value)),
            layouts.reshaping((len(index), 1, *np.shape(x.value)[1:])),
        )
        value = layouts.forward(steps, x.value)
        equations.append(equation)
        slices.append(dataclasses.replace(x, layout=(*x.layout, *steps), value=value))
    return scan, equations, [*rest, *slices]


def _can_be_scanned(x, place, scan):
    """Joined parameters are followed into a scan where each step gets a part of one of them."""
    return not isinstance(x, Joined) or (place >= scan.carried.stop and x.axis == 0)


def _repeated(share, x, *, stacked, constant):
    """The shares in a meeting that all steps of a scan repeat.

    Cotangents have a leading axis of its length; so have the data, unless they are `constant`.
    """
    factors_of_steps = _factors_of_constant if constant else _factors_of_steps
    shares: list[Share] = []
    start = 0
    for part in x.parts if isinstance(x, Joined) else [x]:
        shape = np.shape(part.value)
        stop = start + shape[0] if isinstance(x, Joined) else None
        factors = functools.partial(factors_of_steps, share, slice(start, stop), stacked)
        steps = share.layout
        if stacked:
            steps = (layouts.Mapped(share.layout),)
            steps = (*steps, *layouts.columns(steps, shape)) if constant else steps
        shares += shares_of(part, steps, factors)
        start = stop or 0
    return shares


def _factors_of_steps(share, steps, stacked, data, cotangent) -> Term:
    data, cotangent = jax.tree.map(lambda x: x[steps], (data, cotangent))
    return jax.vmap(share.factors)(data, cotangent).of_steps(stacked=stacked)


def _factors_of_constant(share, steps, stacked, data, cotangent) -> Term:
    """The factors of a meeting of all steps with the same data.

    Shared weights add cotangents up, stacked ones are columns side by side.
    """
    term = share.factors(data, cotangent[0])
    cotangents = jax.vmap(lambda dy: share.factors(data, dy).cotangents)(cotangent[steps])
    if stacked:  # [S, B, T, N] to [B, T, (S, N)]
        cotangents = jnp.moveaxis(cotangents, 0, -2)
        cotangents = cotangents.reshape(*cotangents.shape[:-2], -1)
    else:
        cotangents = cotangents.sum(0, dtype=term.dtype)
    return dataclasses.replace(term, cotangents=cotangents)
