"""The only place that touches JAX below its public API; `tests/gradients/test_internals.py` says what broke when it breaks.

`jax.extend.core` is public; `Primitive.get_bind_params` is what JAX's own interpreter calls before
`bind`.
"""

from typing import Any, NamedTuple

from jax.extend.core import Literal, jaxprs_in_params

# A jaxpr inlined into its caller means the same; the custom derivative rules do not, and stay
# closed.
INLINED = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
}
CUSTOM = ("custom_jvp_call", "custom_vjp_call")


def evaluate(equation, operands):
    """The equation's outputs, always as a list."""
    primitive = equation.primitive
    out = primitive.bind(*operands, **primitive.get_bind_params(equation.params))
    return list(out) if primitive.multiple_results else [out]


def opened(jaxpr):
    """A closed jaxpr as the open one and its constants."""
    return (jaxpr.jaxpr, jaxpr.consts) if hasattr(jaxpr, "jaxpr") else (jaxpr, ())


def inner(equation):
    """The jaxpr a call-like equation runs and its constants, or `None`."""
    name = INLINED.get(equation.primitive.name)
    return opened(equation.params[name]) if name in equation.params else None


def contains(jaxpr, name):
    """Whether a primitive occurs in a jaxpr or in one it runs."""
    return any(
        e.primitive.name == name
        or any(contains(inner, name) for inner in jaxprs_in_params(e.params))
        for e in jaxpr.eqns
    )


class Scan(NamedTuple):
    """A scan's equation: operands are constants, the initial carry, then what is scanned."""

    jaxpr: Any
    constants: int
    carries: int
    length: int
    reverse: bool
    unroll: Any

    @property
    def carried(self):
        """Places of the carry among the operands."""
        return range(self.constants, self.constants + self.carries)


def scan(equation):
    """What a scan does. Its operands are counted in `num_consts` and `num_carry` up to JAX 0.11, in a tree, `ft_in`, after."""
    p = equation.params
    if "num_consts" in p:
        constants, carries = p["num_consts"], p["num_carry"]
    else:
        constants, carries, _ = (len(list(part)) for part in p["ft_in"].unpack())
    return Scan(p["jaxpr"], constants, carries, p["length"], p["reverse"], p["unroll"])


__all__ = ["CUSTOM", "Literal", "Scan", "contains", "evaluate", "inner", "opened", "scan"]
