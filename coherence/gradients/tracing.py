"""Walk the jaxpr of one example's loss and find where each parameter meets data.

A parameter is followed through linear steps as a `Tracked` value. Where a primitive with a rule
joins it with data, the walk adds a perturbation to the output: the loss's derivative there is the
cotangent the rule asks for. A small parameter that runs into anything else is perturbed itself: its
rows are then the cotangents. A large one is given up, and recomputed, exactly, elsewhere.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coherence import jax_internals

from . import layout as layouts
from . import loops
from .layout import Layout
from .linearity import zero_where
from .rules import RULES, Factors, dot_general_of_parts, product_of_sum
from .terms import Outer, Term

_SHIFTS = ("add", "add_any", "sub")
# numbers of a parameter whose gradient may be formed for each example where no rule applies:
# vectors, not matrices
ROWS = 4096
_KNOWN = 2**22  # numbers of a constant that may be part of a layout


@dataclasses.dataclass(frozen=True)
class Tracked:
    """The value a parameter leaf has become by linear steps.

    `is_zero`: a tangent in the parameter's place, which is zero whatever the steps.
    """

    leaf: Any
    layout: Layout
    value: Any
    is_zero: bool = False


@dataclasses.dataclass(frozen=True)
class Fixed:
    """A value that no example has a part in.

    Constants, and what is computed from constants and parameters alone.

    `compute` gives the value while tracing where it is made of constants alone, so that it can be
    part of a layout.
    """

    value: Any
    compute: Callable[[], Any] | None = None


@dataclasses.dataclass(frozen=True)
class Joined:
    """Parameters concatenated along one axis: a fused projection, the gates of a recurrent cell."""

    parts: tuple[Tracked | Fixed, ...]
    axis: int
    value: Any


@dataclasses.dataclass(frozen=True)
class Share:
    """A leaf's part in a meeting: `factors(data, cotangent)` make its gradient, through `layout`.

    `formed`: a parameter perturbed itself, whose cotangent is its row.
    """

    leaf: Any
    layout: Layout
    factors: Factors
    formed: bool = False


@dataclasses.dataclass(frozen=True)
class Product:
    """A large parameter times data that are broadcast to its shape.

    A sum over axes would make a matrix product of it.

    `share` is the parameter's part where nothing sums.
    """

    parameter: Tracked
    data: Any
    value: Any
    share: Share


@dataclasses.dataclass(frozen=True)
class Meeting:
    """A place where parameters meet data.

    What each gets from it, and the shape of the perturbation.
    """

    shares: tuple[Share, ...]
    output: jax.ShapeDtypeStruct


def constant(value: Any) -> Fixed:
    return Fixed(value, None if jax_internals.is_traced(value) else lambda: value)


def _value(x: Any) -> Any:
    return x.value if isinstance(x, Tracked | Joined | Product | Fixed) else x


def _is_large(x: Any) -> bool:
    return np.size(x.value) > ROWS


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

    def run(self, jaxpr: Any, consts: Iterable[Any], args: Sequence[Any]) -> list[Any]:
        """Outputs of the jaxpr; `Tracked` arguments are the parameters."""
        outputs = self._jaxpr(jaxpr, map(constant, consts), args)
        return [self._plain(out, "return") for out in outputs]

    def _jaxpr(self, jaxpr, consts, args):
        values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args)))
        read = lambda v: constant(v.val) if isinstance(v, jax_internals.Literal) else values[v]
        for equation in jaxpr.eqns:
            if (output := self.replaced.get(id(equation))) is not None:
                outputs = [output]
            else:
                outputs = self._equation(equation, [read(v) for v in equation.invars])
            values.update(zip(equation.outvars, outputs))
        return [read(v) for v in jaxpr.outvars]

    def _equation(self, equation, operands):
        """The outputs of one equation, `Tracked` where it only moves a parameter."""
        name = equation.primitive.name
        if name != "reduce_sum":
            operands = [self._plain(x, name) if isinstance(x, Product) else x for x in operands]
        places = [i for i, x in enumerate(operands) if isinstance(x, Tracked | Joined | Product)]
        if not places:
            return _without_parameters(equation, operands)
        if (outputs := self._checkpoint(equation, operands)) is not None:
            return outputs
        if (call := jax_internals.inlined(equation)) is not None:
            return self._jaxpr(call[0], map(constant, call[1]), operands)
        is_inexact = (jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in equation.outvars)
        if name == "stop_gradient" or not any(is_inexact):  # nothing to differentiate
            outputs = jax_internals.evaluate(equation, [_value(x) for x in operands])
            return [Fixed(x) for x in outputs] if _have_no_data(operands) else outputs
        if name == "scan":
            return self._scan(equation, operands)
        if name == "cond" and 0 not in places:
            return self._cond(equation, operands)
        if name in jax_internals.CUSTOM_DERIVATIVES:
            outputs = self._custom(equation, operands)
        elif name in ("concatenate", "stack"):
            outputs = _join(equation, operands)
            if outputs is None and not _have_no_data(operands):
                # Behind each other with data: a row is no larger than the output.
                plain = [
                    self._formed(x) if isinstance(x, Tracked) else self._plain(x, name)
                    for x in operands
                ]
                outputs = jax_internals.evaluate(equation, plain)
        elif len(places) == 1:
            outputs = self._move(equation, operands, *places) or self._met(
                equation, operands, *places
            )
        else:
            outputs = None
        if outputs is None:
            plain = [self._plain(x, name) for x in operands]
            outputs = jax_internals.evaluate(equation, plain)
            return [Fixed(x) for x in outputs] if _have_no_data(operands) else outputs
        return outputs

    def _move(self, equation, operands, place):
        """The outputs where the equation moves the parameter linearly without meeting data,
        else `None`."""
        name, x = equation.primitive.name, operands[place]
        values = lambda: jax_internals.evaluate(equation, [_value(y) for y in operands])
        if isinstance(x, Joined):
            return _move_joined(equation, x, values)
        if isinstance(x, Product):
            return self._sum(equation, x, values)
        if name == "split":
            return _split(equation, x, values())
        aval, out = equation.invars[place].aval, equation.outvars[0].aval
        others = [y for i, y in enumerate(operands) if i != place]
        if name in _SHIFTS and (place, name) != (1, "sub"):
            # A shift by what no example has a part in leaves the gradient alone.
            if isinstance(others[0], Fixed) and out.shape == aval.shape:
                return [dataclasses.replace(x, value=values()[0])]
            return None
        if name not in layouts.LINEAR or not all(isinstance(y, Fixed) for y in others):
            return None
        if len(equation.outvars) != 1:
            return None
        known = [None if y is x else _known(y) for y in operands]
        if any(v is None for i, v in enumerate(known) if i != place):
            return None
        steps = layouts.step(equation, known)
        if steps is None:
            return None
        return [dataclasses.replace(x, layout=(*x.layout, *steps), value=values()[0])]

    def _met(self, equation, operands, place):
        """The perturbed output where a rule says what the parameter gets from this equation,
        else `None`."""
        if _have_no_data(operands) and equation.primitive.name in ("mul", "dot_general"):
            return None  # scaled or projected by constants alone: rows would be formed for nothing
        x = operands[place]
        shares = _shares(equation, place, x)
        if not shares:
            return None
        plain = [_value(y) for y in operands]
        if equation.primitive.name == "mul" and _is_large(x):
            data = plain[1 - place]
            if np.ndim(data) == np.ndim(x.value) and np.size(data) < np.size(x.value):
                return [Product(x, data, *jax_internals.evaluate(equation, plain), *shares)]
        if isinstance(x, Tracked) and x.is_zero and equation.primitive.name not in _SHIFTS:
            aval = equation.outvars[0].aval
            axes = frozenset().union(*map(jax_internals.varying_axes, plain))
            out = jax_internals.as_varying(jnp.zeros(aval.shape, aval.dtype), axes)
        else:
            (out,) = jax_internals.evaluate(equation, plain)
        return [self._meet(out, plain[1 - place], shares)]

    def _sum(self, equation, x, values):
        """The sum of a product over axes of its data: a matrix product."""
        rule = product_of_sum(equation, np.shape(x.parameter.value), np.shape(x.data))
        if rule is None:
            return None
        steps, factors = rule
        share = Share(x.parameter.leaf, (*x.parameter.layout, *steps), _real(factors))
        (out,) = values()
        return [self._meet(jnp.zeros_like(out) if x.parameter.is_zero else out, x.data, (share,))]

    def _meet(self, out, data, shares):
        """`out` perturbed, and the meeting noted."""
        if self.perturbations is not None:
            out = out + self.perturbations[len(self.meetings)]
        self._note(Meeting(shares, jax_internals.struct_like(out, out.shape)), data)
        return out

    def _note(self, meeting, data):
        self.meetings.append(meeting)
        self.operands.append(data)

    def _plain(self, x, name):
        """The value of an operand that goes where no rule is.

        Perturbed itself if small, else its leaf is given up.
        """
        if isinstance(x, Joined):
            return jnp.concatenate([self._plain(part, name) for part in x.parts], x.axis)
        if isinstance(x, Product):
            return self._meet(x.value, x.data, (x.share,))
        if not isinstance(x, Tracked):
            return _value(x)
        if _is_large(x):
            self.given_up.setdefault(x.leaf, name)
            return x.value
        return self._formed(x)

    def _formed(self, x):
        """A parameter perturbed itself."""
        size = np.size(x.value)

        def row(_, cotangent):
            ones = jnp.ones((1, 1, 1), cotangent.real.dtype)
            return Outer(ones, cotangent.reshape(1, 1, size))

        steps = (*x.layout, layouts.reshaping((1, 1, size)))
        return self._meet(x.value, None, (Share(x.leaf, steps, _real(row), formed=True),))

    def _custom(self, equation, operands):
        """A large parameter inside a function with a derivative of its own.

        Followed through the tangent map of that derivative.

        The map is linear in the parameter's tangent, so a zero tangent in the parameter's place
        meets the data that its derivative is made of. `None` where no parameter is large, or the
        derivative (of a `custom_vjp`) is not linear in the cotangent.
        """
        places = [i for i, x in enumerate(operands) if isinstance(x, Tracked) and _is_large(x)]
        if not places:
            return None
        name = equation.primitive.name
        rest = [None if i in places else self._plain(x, name) for i, x in enumerate(operands)]
        values = [operands[i].value for i in places]

        def function(*values):
            filled = dict(zip(places, values))
            return jax_internals.evaluate(equation, [filled.get(i, x) for i, x in enumerate(rest)])

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
        consts = [x if data else Fixed(x) for x in closed.consts]
        zeros = [
            dataclasses.replace(operands[i], value=jax_internals.zeros_like(x), is_zero=True)
            for i, x in zip(places, values)
        ]
        tangents = self._jaxpr(closed.jaxpr, consts, zeros)
        return [
            dataclasses.replace(t, value=out, is_zero=operands[places[0]].is_zero)
            if isinstance(t, Tracked)
            else out + self._plain(t, name)
            for out, t in zip(outs, tangents)
        ]

    def _cond(self, equation, operands):
        """One branch where the choice is known, else each with perturbations of its own.

        Those of the others get zero cotangents.
        """
        index, *rest = operands
        branches = jax_internals.branches(equation)
        if isinstance(index, Fixed) and (known := _known(index)) is not None:
            jaxpr, consts = jax_internals.open_jaxpr(branches[np.clip(known, 0, len(branches) - 1)])
            return self._jaxpr(jaxpr, map(constant, consts), rest)
        rest = [self._unjoined(x, "cond") for x in rest]
        bodies = [_Body(branch, rest) for branch in branches]
        start = len(self.meetings)
        functions = []
        for k, body in enumerate(bodies):
            stop = start + len(body.meetings)
            functions.append(functools.partial(_branch, bodies, k, self._own(start, stop)))
            start = stop
        outputs, data = jax.lax.switch(_value(index), functions, [_value(x) for x in rest])
        for body, met in zip(bodies, data):
            self._note_body(body, met)
        return outputs

    def _checkpoint(self, equation, operands):
        """Outputs of a `jax.checkpoint`: the backward pass makes what is inside again.

        Else `None`, or where a parameter only passes through.
        """
        arguments = jax_internals.checkpointing(equation)
        if arguments is None or self.perturbations is None:
            return None
        rest = [self._unjoined(x, "checkpoint") for x in operands]
        (jaxpr,) = jax_internals.inner_jaxprs(equation)
        body = _Body(jaxpr, rest)
        if "return" in body.given_up.values():
            return None

        def run(perturbations, values):
            walk, outputs = body.run(perturbations, values)
            return outputs, walk.operands

        start = len(self.meetings)
        perturbations = self._own(start, start + len(body.meetings))
        run = jax.checkpoint(run, **arguments)
        outputs, data = run(perturbations, [_value(x) for x in rest])
        self._note_body(body, data)
        return outputs

    def _own(self, start, stop):
        """The perturbations of some of the meetings."""
        return None if self.perturbations is None else list(self.perturbations[start:stop])

    def _unjoined(self, x, name):
        return self._plain(x, name) if isinstance(x, Joined) else x

    def _note_body(self, body, data):
        """The meetings of a part of the walk, as those of the leaves themselves."""
        for meeting, met in zip(body.meetings, data):
            shares = tuple(
                dataclasses.replace(
                    share,
                    leaf=body.operands[share.leaf].leaf,
                    layout=(*body.operands[share.leaf].layout, *share.layout),
                )
                for share in meeting.shares
            )
            self._note(Meeting(shares, meeting.output), met)
        for i, name in body.given_up.items():
            self.given_up.setdefault(body.operands[i].leaf, name)

    def _scan(self, equation, operands):
        """A parameter the steps share (time) has one more sum over positions, one they divide
        (layers) one more batch dimension."""
        scan = jax_internals.scan(equation)
        if scan.length == 0:  # there is no step to look at
            stacked = (v.aval for v in equation.outvars[scan.carries :])
            empty = [jnp.zeros(aval.shape, aval.dtype) for aval in stacked]
            return [*(operands[i] for i in scan.carried), *empty]
        rest = [
            self._plain(x, "scan") if i in scan.carried or not _can_be_scanned(x, i, scan) else x
            for i, x in enumerate(operands)
        ]
        # A step sees slices of what is scanned: what is known of the whole is not known of them.
        scanned = range(scan.carried.stop, len(rest))
        rest = [
            Fixed(x.value) if i in scanned and isinstance(x, Fixed) else x
            for i, x in enumerate(rest)
        ]
        scan, slices, rest = _sliced(scan, operands, rest)
        step = _Step(scan, rest, slices)
        # Rows formed at every step would be as many as steps; perturbed out here, the backward pass
        # adds them up.
        early = {
            share.leaf
            for meeting in step.meetings
            for share in meeting.shares
            if share.formed and share.leaf < scan.constants
        }
        if early:
            rest = [self._plain(x, "scan") if i in early else x for i, x in enumerate(rest)]
            step = _Step(scan, rest, slices)
        start = len(self.meetings)
        perturbations = self._own(start, start + len(step.meetings))

        def body(carry, xs):
            walk, carry, outputs = step.run(xs[0], carry, xs[1])
            varying = [None if c is not None else x for c, x in zip(step.constant, walk.operands)]
            return carry, (outputs, varying)

        elements = [_value(x) for x in rest[scan.carried.stop :]]
        init = [_value(rest[i]) for i in scan.carried]
        carry, (outputs, data) = jax.lax.scan(
            body, init, (perturbations, elements), scan.length, scan.reverse, scan.unroll
        )
        for meeting, place, met in zip(step.meetings, step.constant, data):
            if place is not None:
                met = _value(rest[place])
            shares: list[Share] = []
            for share in meeting.shares:
                x, stacked = rest[share.leaf], share.leaf >= scan.carried.stop
                shares += _repeated(share, x, stacked=stacked, constant=place is not None)
            shape = (scan.length, *meeting.output.shape)
            output = jax_internals.struct_like(meeting.output, shape)
            self._note(Meeting(tuple(shares), output), met)
        for i, name in step.given_up.items():
            for part in rest[i].parts if isinstance(rest[i], Joined) else [rest[i]]:
                if isinstance(part, Tracked):
                    self.given_up.setdefault(part.leaf, name)
        return [*carry, *outputs]


class _Part:
    """A jaxpr walked by itself, its parameters numbered by their place among `operands`.

    Its meetings, found abstractly.
    """

    def __init__(self, closed, operands):
        self.jaxpr, self.consts = jax_internals.open_jaxpr(closed)
        self.operands = operands

    def _find(self, run, *args):
        def find(*args):
            walk, *_ = run(*args)
            self.meetings, self.given_up = walk.meetings, walk.given_up
            return walk.operands

        self.data = jax.eval_shape(find, *args)

    def _walk(self, perturbations, values, replaced=()):
        walk = Walk(perturbations)
        args: list[Any] = []
        for i, (x, value) in enumerate(zip(self.operands, values)):
            if isinstance(x, Tracked | Joined):
                args.append(Tracked(i, (), value, isinstance(x, Tracked) and x.is_zero))
            else:
                args.append(Fixed(value, x.compute) if isinstance(x, Fixed) else value)
        walk.replaced = {id(e): x for e, x in zip(replaced, args[len(self.jaxpr.invars) :])}
        return walk, walk.run(self.jaxpr, self.consts, args)


class _Body(_Part):
    """A branch."""

    def __init__(self, closed, operands):
        super().__init__(closed, operands)
        self._find(functools.partial(self._walk, None), [_value(x) for x in operands])

    def run(self, perturbations, values):
        """(walk, outputs)."""
        return self._walk(perturbations, values)


class _Step(_Part):
    """A step of a scan; its last operands are the outputs of the equations `slices`.

    `constant` has the place of the operand that is a meeting's data, `None` where each step has
    data of its own.
    """

    def __init__(self, scan, operands, slices):
        super().__init__(scan.jaxpr, operands)
        self.scan, self.slices = scan, slices
        slices = [jax.eval_shape(lambda x: x[0], _value(x)) for x in operands[scan.carried.stop :]]
        init = [_value(operands[i]) for i in scan.carried]
        self._find(functools.partial(self._found, init), slices)

    def _found(self, carry, scanned):
        walk, *results = self.run(None, carry, scanned)
        places = {id(_value(x)): i for i, x in enumerate(self.operands[: self.scan.constants])}
        self.constant = [None if x is None else places.get(id(x)) for x in walk.operands]
        return walk, *results

    def run(self, perturbations, carry, scanned):
        """(walk, carry, outputs)."""
        constants = [_value(x) for x in self.operands[: self.scan.constants]]
        walk, outputs = self._walk(perturbations, [*constants, *carry, *scanned], self.slices)
        return walk, outputs[: self.scan.carries], outputs[self.scan.carries :]


def _branch(bodies, chosen, perturbations, values):
    """Outputs of one branch and the data met in all, which are zero in the others."""
    walk, outputs = bodies[chosen].run(perturbations, values)
    data = [jax.tree.map(jax_internals.zeros_like, body.data) for body in bodies]
    data[chosen] = walk.operands
    return outputs, data


def _without_parameters(equation, operands):
    values = jax_internals.evaluate(equation, [_value(x) for x in operands])
    if not all(isinstance(x, Fixed) for x in operands):
        return values
    if any(x.compute is None for x in operands):
        return [Fixed(x) for x in values]

    @functools.cache
    def compute():
        return jax_internals.evaluate_now(equation, [x.compute() for x in operands])

    return [Fixed(x, functools.partial(lambda i: compute()[i], i)) for i, x in enumerate(values)]


def _known(x):
    """The value of a constant as numpy, `None` where it is not known while tracing, or too
    large to be part of a layout."""
    if not isinstance(x, Fixed) or x.compute is None or np.size(x.value) > _KNOWN:
        return None
    value = x.compute()
    return None if jax_internals.is_traced(value) else np.asarray(value)


def _have_no_data(operands):
    return all(isinstance(x, Fixed | Tracked | Joined) for x in operands)


def _join(equation, operands):
    """Parameters and constants concatenated or stacked, where one of them is large; else `None`."""
    tracked = [x for x in operands if isinstance(x, Tracked)]
    if not any(map(_is_large, tracked)) or not _have_no_data(operands):
        return None
    if any(isinstance(x, Joined) for x in operands):
        return None
    axis = jax_internals.joined_axis(equation)
    if equation.primitive.name == "stack":
        operands = [_expanded(x, axis) for x in operands]
    (value,) = (
        jax_internals.evaluate(equation, [_value(x) for x in operands])
        if equation.primitive.name == "concatenate"
        else (jnp.concatenate([_value(x) for x in operands], axis),)
    )
    return [Joined(tuple(operands), axis, value)]


def _expanded(x, axis):
    """A part of a stack, with the new axis of size 1."""
    value = jnp.expand_dims(x.value, axis)
    if isinstance(x, Fixed):
        return Fixed(value)
    return dataclasses.replace(x, layout=(*x.layout, layouts.reshaping(value.shape)), value=value)


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
            steps = (*part.layout, layouts.transposition(axes))
            parts.append(dataclasses.replace(part, layout=steps, value=value))
    return [Joined(tuple(parts), axes.index(x.axis), *values())]


def _split(equation, x, values):
    """The parts of a parameter."""
    sizes, axis = jax_internals.parts(equation)
    shape, start, outputs = np.shape(x.value), 0, []
    for size, value in zip(sizes, values):
        step = layouts.slicing(start, start + size, axis, shape)
        outputs.append(dataclasses.replace(x, layout=(*x.layout, step), value=value))
        start += size
    return outputs


def _shares(equation, place, x):
    """What the parameters at `place` get from meeting data in this equation.

    Empty where no rule applies.
    """
    if isinstance(x, Joined):
        if equation.primitive.name != "dot_general":
            return ()
        sizes = [np.shape(part.value)[x.axis] for part in x.parts]
        parts = dot_general_of_parts(equation, place, x.axis, sizes)
        return tuple(
            Share(part.leaf, (*part.layout, *steps), _real(factors))
            for part, (steps, factors) in zip(x.parts, parts)
            if isinstance(part, Tracked)
        )
    rule = RULES.get(equation.primitive.name)
    met = rule(equation, place) if rule is not None else None
    return () if met is None else (Share(x.leaf, (*x.layout, *met[0]), _real(met[1])),)


def _real(factors: Factors) -> Factors:
    """Parameters are real, whatever they meet."""
    return lambda data, cotangent: factors(data, cotangent).real()


def _sliced(scan, operands, rest):
    """The scan with its calls opened, the equations that slice a parameter by the step's
    number, and `rest` with the slices of all steps."""
    constants = enumerate(operands[: scan.constants])
    places = [i for i, x in constants if isinstance(x, Tracked) and _is_large(x)]
    if not places or not jax_internals.contains(scan.jaxpr.jaxpr, "dynamic_slice"):
        return scan, [], rest
    scan = scan._replace(jaxpr=jax_internals.with_calls_inlined(scan.jaxpr))
    known = [_known(x) for x in operands]
    equations, slices = [], []
    for equation, place, index in loops.slices(scan, known, places):
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

    Cotangents have a leading axis of its length.

    So have the data, unless they are `constant`.
    """
    factors_of_steps = _factors_of_constant if constant else _factors_of_steps
    shares, start = [], 0
    for part in x.parts if isinstance(x, Joined) else [x]:
        shape = np.shape(part.value)
        stop = start + shape[0] if isinstance(x, Joined) else None
        factors = functools.partial(factors_of_steps, share, slice(start, stop), stacked)
        steps = share.layout
        if stacked:
            steps = (layouts.Mapped(share.layout),)
            steps = (*steps, *layouts.columns(steps, shape)) if constant else steps
        if isinstance(part, Tracked):
            shares.append(Share(part.leaf, (*part.layout, *steps), factors))
        start = stop or 0
    return shares


def _factors_of_steps(share, steps, stacked, data, cotangent) -> Term:
    data, cotangent = jax.tree.map(lambda x: x[steps], (data, cotangent))
    return jax.vmap(share.factors)(data, cotangent).of_steps(stacked=stacked)


def _factors_of_constant(share, steps, stacked, data, cotangent) -> Term:
    """All steps met the same data.

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
