"""Batch norm seen from one example: where a loss asks for statistics of a batch that is not there.

Under a per-example loss a training-mode batch norm normalizes one example by itself. Nothing
complains: after a dense layer x - mean(x) is exactly 0 and so is every gradient before it; after a
convolution it silently becomes an instance norm.
"""

import dataclasses
from typing import Any

from . import jax_internals

_WAYS_OUT = (
    "The per-example gradient of such a network is not defined. Ways out: (1) frozen statistics: "
    "use_running_average=True, in Equinox eqx.nn.inference_mode(model) "
    "(the gradients are then those of the evaluated network); (2) another norm: GroupNorm or "
    "LayerNorm; (3) the gradients of whole "
    "mini-batches, inverted by alpha_from_minibatches."
)
_OVERRIDE = " If no statistic of a batch is meant, pass allow_batch_statistics=True."

# What a tensor stays itself through, up to a factor and an arrangement.
_CARRYING = {
    "reshape",
    "broadcast_in_dim",
    "transpose",
    "squeeze",
    "expand_dims",
    "slice",
    "concatenate",
    "stack",
    "copy",
}
_CARRYING |= {
    "convert_element_type",
    "reduce_precision",
    "optimization_barrier",
    "stop_gradient",
    "mul",
    "select_n",
}


@dataclasses.dataclass(frozen=True)
class _Value:
    """What is known of a tensor.

    `itself` and `means` hold (origin, sign): the tensor is that origin, or its mean over a leading
    axis of size 1, up to a factor. `data` is whether the example is in it: standardized 1 x 1
    kernels are centred over size-1 axes too, and harmless.
    """

    itself: frozenset[tuple[Any, int]] = frozenset()
    means: frozenset[tuple[Any, int]] = frozenset()
    data: bool = False


def find(closed: Any, parameters: int) -> list[str]:
    """What the loss of one example does that needs a batch.

    A list of sentences, empty for most losses.

    Two things are looked for in whatever the loss value depends on, also inside `jit`,
    `custom_jvp`, `remat`, `scan` and `cond`: a reduction over a named axis, and a mean over a
    leading axis of size 1 that is subtracted from what it is the mean of while some axis (the
    features) is kept. Not seen: a batch axis that is not the first (time-major sequences).

    Args:
        closed: the jaxpr of the loss of one example, the loss its first output.
        parameters: how many of its inputs, the first ones, are parameters and not data.
    """
    walk = _Walk()
    inputs = [_Value(data=i >= parameters) for i in range(len(closed.jaxpr.invars))]
    walk.jaxpr(closed.jaxpr, inputs, frozenset(), closed.jaxpr.outvars[:1])
    return list(dict.fromkeys(walk.seen))


def refuse(closed: Any, parameters: int) -> None:
    """Raises a ValueError that names the ways out where `find` finds something."""
    if seen := find(closed, parameters):
        raise ValueError(
            f"loss of one example needs statistics of a batch: {'; '.join(seen)}. "
            f"{_WAYS_OUT}{_OVERRIDE}"
        )


def unbound(error: NameError) -> ValueError | None:
    """The ValueError for a NameError of a named axis that nothing binds, or `None` for any
    other NameError."""
    if (name := jax_internals.unbound_axis(error)) is None:
        return None
    return ValueError(
        "loss of one example needs statistics of a batch: it reduces over the named axis "
        f"{name}. {_WAYS_OUT}"
    )


class _Walk:
    def __init__(self):
        self.seen = []

    def jaxpr(self, jaxpr, inputs, bound, outputs):
        """Values of the outputs.

        `bound` are the axis names that equations inside the loss bind themselves.
        """
        values = dict(zip(jaxpr.invars, map(_named, inputs)))

        def read(v):
            known = not isinstance(v, jax_internals.Literal) and v in values
            return values[v] if known else _Value()

        for equation in _live(jaxpr, outputs):
            results = self.equation(equation, list(map(read, equation.invars)), bound)
            values.update(zip(equation.outvars, map(_named, results)))
        return list(map(read, jaxpr.outvars))

    def equation(self, equation, operands, bound):
        name = equation.primitive.name
        data = any(x.data for x in operands)
        fresh = [_Value(data=data) for _ in equation.outvars]
        self.collective(equation, bound)
        if inner := list(jax_internals.inner_jaxprs(equation)):
            results = [self.inner(equation, jaxpr, operands, bound) for jaxpr in inner]
            is_call = len(inner) == 1 and _shapes(inner[0]) == _shapes(equation)
            return results[0] if is_call and name != "scan" else fresh
        if (name in _CARRYING or name == "neg") and len(fresh) == 1:
            return [_join(operands, data, -1 if name == "neg" else 1)]
        if name == "div":
            return [_join(operands[:1], data)]
        if name == "reduce_sum" and data and _is_over_a_batch_of_one(equation):
            return [_Value(means=operands[0].itself, data=True)]
        if name in ("add", "add_any", "sub"):
            left, right = operands
            right = _join([right], right.data, -1 if name == "sub" else 1)
            if _cancel(left.itself, right.means) or _cancel(right.itself, left.means):
                self.seen.append(
                    "a mean over a batch of one example is subtracted from that "
                    f"example{_where(equation)}"
                )
            return [_Value(means=left.means | right.means, data=data)]
        return fresh

    def inner(self, equation, jaxpr, operands, bound):
        """A jaxpr the equation runs.

        What does not map one to one (slices of a scan, loop state) starts anew.
        """
        bound = bound | frozenset(jax_internals.mesh_axis_names(equation))
        anything = any(x.data for x in operands)
        unknown = _Value(data=anything)
        count = len(jaxpr.invars)
        args = (
            [] if equation.primitive.name == "while" else operands[max(len(operands) - count, 0) :]
        )
        args += [unknown] * (count - len(args))
        if equation.primitive.name == "scan":
            args = [_Value(data=x.data) for x in args]
            for i in jax_internals.scan(equation).carried:
                args[i] = unknown
        return self.jaxpr(jaxpr, args, bound, jaxpr.outvars)

    def collective(self, equation, bound):
        outside = [axis for axis in jax_internals.reduced_axis_names(equation) if axis not in bound]
        if outside:
            self.seen.append(
                f"{equation.primitive.name} over the named axis "
                f"{', '.join(outside)}{_where(equation)}"
            )


def _shapes(equation):
    return [v.aval.shape for v in equation.outvars]


def _named(value):
    """A tensor that is no other one is its own origin.

    (Variables will not do: two calls of a jitted function share them.)
    """
    return value if value.itself else _Value(frozenset({(object(), 1)}), value.means, value.data)


def _join(values, data, sign=1):
    turned = lambda pairs: frozenset((origin, sign * s) for origin, s in pairs)
    itself = frozenset().union(*(turned(x.itself) for x in values))
    return _Value(itself, frozenset().union(*(turned(x.means) for x in values)), data)


def _cancel(itself, means):
    return any((origin, -sign) in means for origin, sign in itself)


def _is_over_a_batch_of_one(equation):
    shape, axes = equation.invars[0].aval.shape, jax_internals.summed_axes(equation)
    return 0 in axes and shape[0] == 1 and len(axes) < len(shape)


def _live(jaxpr, outputs):
    """The equations that the outputs depend on, in order: statistics only reported are no harm."""
    variables = lambda operands: {v for v in operands if not isinstance(v, jax_internals.Literal)}
    needed, live = variables(outputs), []
    for equation in reversed(jaxpr.eqns):
        if not needed.isdisjoint(equation.outvars):
            live.append(equation)
            needed |= variables(equation.invars)
    return reversed(live)


def _where(equation):
    """The scope the equation was traced in, where the framework names its layers (Flax does).

    As ` (Net/BatchNorm_0)`.
    """
    scope = jax_internals.layer_scope(equation)
    return f" ({scope})" if scope else ""
