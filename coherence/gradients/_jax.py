"""The only place that touches JAX below its public API; `tests/gradients/test_internals.py` says what broke when it breaks.

`jax.extend.core` is public; `Primitive.get_bind_params` is what JAX's own interpreter calls before `bind`.
"""

from jax.extend.core import Literal, primitives

# A jaxpr inlined into its caller means the same; the custom derivative rules do not, and stay closed.
INLINED = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "checkpoint": "jaxpr", "remat": "jaxpr", "remat2": "jaxpr"}


def evaluate(equation, operands):
    """The equation's outputs, always as a list."""
    primitive = equation.primitive
    out = primitive.bind(*operands, **primitive.get_bind_params(equation.params))
    return list(out) if primitive.multiple_results else [out]


def inner(equation):
    """The jaxpr a call-like equation runs and its constants, or `None`."""
    name = INLINED.get(equation.primitive.name)
    if name is None or name not in equation.params:
        return None
    jaxpr = equation.params[name]
    return (jaxpr.jaxpr, jaxpr.consts) if hasattr(jaxpr, "jaxpr") else (jaxpr, ())


__all__ = ["Literal", "evaluate", "inner", "primitives"]
