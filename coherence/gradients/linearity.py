"""Whether a backward pass somebody wrote is linear in the cotangent.

What it makes of zero must be zero.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import jax_internals

# Zero where all operands are.
_SUMS = frozenset(
    {
        "add",
        "add_any",
        "broadcast_in_dim",
        "concatenate",
        "convert_element_type",
        "copy",
        "cumsum",
        "expand_dims",
        "integer_pow",
        "neg",
        "optimization_barrier",
        "pad",
        "psum",
        "psum_invariant",
        "pvary",
        "real",
        "reduce_precision",
        "reduce_sum",
        "reshape",
        "rev",
        "sharding_constraint",
        "slice",
        "split",
        "squeeze",
        "stack",
        "sub",
        "transpose",
    }
)
_PRODUCTS = frozenset({"mul", "dot_general", "conv_general_dilated"})  # where any is
_FIRST = frozenset({"div", "dynamic_slice", "gather"})  # where the first is


def zero_where(jaxpr: Any, inputs: Sequence[bool]) -> list[bool]:
    """Which outputs are certainly zero where these inputs are.

    `False` also where it cannot be seen.
    """
    zeros = dict(zip(jaxpr.invars, inputs))

    def is_zero(v):
        return not np.any(v.val) if isinstance(v, jax_internals.Literal) else zeros.get(v, False)

    for equation in jaxpr.eqns:
        flags = _equation(equation, list(map(is_zero, equation.invars)))
        zeros.update(zip(equation.outvars, flags))
    return list(map(is_zero, jaxpr.outvars))


def _equation(equation, flags):
    name, n = equation.primitive.name, len(equation.outvars)
    if (call := jax_internals.inlined(equation)) is not None:
        return zero_where(call[0], flags)
    if name in _PRODUCTS:
        return [any(flags)]
    if name in _FIRST:
        return [flags[0]]
    if name in _SUMS:
        return [bool(flags) and all(flags)] * n
    if name == "select_n":
        return [all(flags[1:])]
    if name in ("scatter-add", "dynamic_update_slice"):
        return [flags[0] and flags[2 if name == "scatter-add" else 1]]
    if name == "cond":
        branches = [jax_internals.open_jaxpr(b)[0] for b in jax_internals.branches(equation)]
        zeros = [zero_where(branch, flags[1:]) for branch in branches]
        return list(map(all, zip(*zeros)))
    if name == "scan":
        return _scan(jax_internals.scan(equation), list(flags))
    return [False] * n


def _scan(scan, flags):
    """The carry is zero if each step leaves it zero."""
    jaxpr, _ = jax_internals.open_jaxpr(scan.jaxpr)
    while True:
        outputs = zero_where(jaxpr, flags)
        carry = [flags[i] and outputs[i - scan.constants] for i in scan.carried]
        if carry == [flags[i] for i in scan.carried]:
            return [*carry, *outputs[scan.carries :]]
        flags[scan.constants : scan.carried.stop] = carry


__all__ = ["zero_where"]
