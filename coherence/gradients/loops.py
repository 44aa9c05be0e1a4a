"""Loops that read `w[i]` at step i, by `fori_loop` or `scan`.

The indices depend on no example. Computed beforehand, they make of the loop one over the slices, as
if the layers had been stacked and scanned.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import jax_internals


class Slices(NamedTuple):
    """An equation that takes a row of a parameter, and which row it is at each step.

    `place` is the parameter's among the scan's constants.
    """

    equation: Any
    place: int
    rows: np.ndarray


def slices(scan: jax_internals.Scan, known: Sequence[Any], places: Sequence[int]) -> list[Slices]:
    """The slices of the parameters at `places` whose indices can be computed beforehand.

    Args:
        known: of each operand of the scan its value, `None` where it is not known while tracing.
    """
    jaxpr, consts = jax_internals.open_jaxpr(scan.jaxpr)
    takes = [equation for equation in jaxpr.eqns if _takes_a_row(equation, jaxpr, places)]
    if not takes:
        return []
    flags = _known_variables(scan, jaxpr, [x is not None for x in known])
    takes = [take for take in takes if _are_known(take.invars[1:], flags)]
    if not takes:
        return []
    with jax.ensure_compile_time_eval():
        starts = _starts(scan, jaxpr, consts, known, flags, takes)
    slices = []
    for equation, (first, *others) in zip(takes, map(np.asarray, starts)):
        if not any(map(np.any, others)):
            place = jaxpr.invars.index(equation.invars[0])
            size = equation.invars[0].aval.shape[0]
            slices.append(Slices(equation, place, np.clip(first, 0, size - 1)))
    return slices


def _takes_a_row(equation, jaxpr, places):
    if equation.primitive.name != "dynamic_slice":
        return False
    parameter, sizes = equation.invars[0], jax_internals.slice_sizes(equation)
    is_parameter = any(parameter is jaxpr.invars[i] for i in places)
    return is_parameter and sizes[0] == 1 and tuple(sizes[1:]) == parameter.aval.shape[1:]


def _is_known(v, known):
    return isinstance(v, jax_internals.Literal) or v in known


def _are_known(variables, known):
    return all(_is_known(v, known) for v in variables)


def _known_variables(scan, jaxpr, inputs):
    """The variables of a step that only depend on known operands.

    The carry counts if each step makes it of such.
    """
    inputs = list(inputs)
    while True:
        known = {v for v, flag in zip(jaxpr.invars, inputs) if flag} | {*jaxpr.constvars}
        for equation in jaxpr.eqns:
            if _are_known(equation.invars, known):
                known.update(equation.outvars)
        carry = [
            inputs[i] and _is_known(jaxpr.outvars[i - scan.constants], known) for i in scan.carried
        ]
        if carry == [inputs[i] for i in scan.carried]:
            return known
        inputs[scan.constants : scan.carried.stop] = carry


def _starts(scan, jaxpr, consts, operands, known, takes):
    """Of each slice its start along each axis, at every step: the known part of the loop, run."""
    carried = [i for i in scan.carried if jaxpr.invars[i] in known]
    scanned = [i for i in range(scan.carried.stop, len(operands)) if jaxpr.invars[i] in known]

    def step(carry, xs):
        values = dict(zip(jaxpr.constvars, consts))
        values |= {v: x for v, x in zip(jaxpr.invars, operands) if v in known}
        values |= {jaxpr.invars[i]: x for i, x in zip((*carried, *scanned), (*carry, *xs))}
        read = lambda v: v.val if isinstance(v, jax_internals.Literal) else values[v]
        for equation in jaxpr.eqns:
            if _are_known(equation.invars, known):
                operands_known = list(map(read, equation.invars))
                if jax_internals.is_retyping(equation):
                    outputs = operands_known
                else:
                    outputs = jax_internals.evaluate(equation, operands_known)
                values.update(zip(equation.outvars, outputs))
        carry = [read(jaxpr.outvars[i - scan.constants]) for i in carried]
        return carry, [list(map(read, equation.invars[1:])) for equation in takes]

    init = [jnp.asarray(operands[i]) for i in carried]
    xs = [jnp.asarray(operands[i]) for i in scanned]
    _, starts = jax.lax.scan(step, init, xs, scan.length, scan.reverse)
    return starts


__all__ = ["Slices", "slices"]
