"""Every use of JAX below its public API, one function each.

Nothing else in the package reads an equation's parameters, binds a primitive or looks at a tracer.
`tests/gradients/test_jax_internals.py` has a claim for each function, which says what broke when a
JAX release moves it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.core import get_axis_env  # the names that a vmap takes are said nowhere else
from jax.extend.core import Literal, jaxprs_in_params

# A call with one of these names means the same inlined into its caller. The custom derivative rules
# do not, and stay closed.
_INLINED = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
}
CUSTOM_DERIVATIVES = ("custom_jvp_call", "custom_vjp_call")

# Where collectives keep the names of their axes. An axis's index or a change of type reduces
# nothing.
_AXIS_PARAMETERS = ("axes", "axis_name")
_RETYPING = frozenset({"pvary", "pcast", "pbroadcast"})
_NO_REDUCTIONS = _RETYPING | {"axis_index"}


def is_traced(value: Any) -> bool:
    """Whether a value is known only by its shape and dtype, as inside `jit`."""
    return isinstance(value, jax.core.Tracer)


def is_container(tree: Any) -> bool:
    """Whether a pytree node with children, rather than a leaf."""
    return jax.tree_util.default_registry.flatten_one_level(tree) is not None


def automatic_axes() -> tuple[str, ...]:
    """Names of the current mesh's axes where the compiler may divide arrays over all of them."""
    return tuple(automatic_sizes())


def automatic_sizes() -> dict[str, int]:
    """The same with their sizes.

    Those among which a `vmap` around this divides what it maps (`spmd_axis_name`) are taken.
    """
    if not is_in_automatic_mesh():
        return {}
    taken = get_axis_env().spmd_axis_names
    sizes = jax.sharding.get_abstract_mesh().shape
    return {name: size for name, size in sizes.items() if name not in taken}


def is_in_automatic_mesh() -> bool:
    """Whether in a mesh over whose axes the compiler may divide arrays (`jax.set_mesh`)."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and mesh.are_all_axes_auto


def varying_axes(value: Any) -> frozenset[str]:
    """The mesh axes over which a value differs from device to device.

    Empty outside of `shard_map`.
    """
    typed = value if isinstance(value, jax.ShapeDtypeStruct) else jax.typeof(value)
    kind = getattr(typed, "manual_axis_type", None)
    return frozenset() if kind is None else frozenset(kind.varying)


def as_varying(value: jax.Array, axes: Iterable[str]) -> jax.Array:
    """The value typed as differing over these axes, too.

    An addition to it then has a gradient of its own on each device.
    """
    missing = tuple(sorted(set(axes) - varying_axes(value)))
    return jax.lax.pcast(value, missing, to="varying") if missing else value


def zeros_like(value: Any) -> jax.Array:
    """Zeros of a value's (or a `ShapeDtypeStruct`'s) shape and dtype that vary over the same
    axes."""
    return as_varying(jnp.zeros(value.shape, value.dtype), varying_axes(value))


def struct_like(value: Any, shape: Sequence[int]) -> jax.ShapeDtypeStruct:
    """Another shape, of the value's dtype, that varies over the same axes."""
    if not varying_axes(value):
        return jax.ShapeDtypeStruct(tuple(shape), value.dtype)
    number = lambda x: jnp.sum(x, dtype=x.dtype)
    return jax.eval_shape(lambda x: jax.lax.broadcast(number(x), tuple(shape)), value)


def unbound_axis(error: NameError) -> str | None:
    """The named axis that nothing binds, `None` where the error is about something else."""
    _, message, rest = str(error).partition("unbound axis name:")
    return rest.partition(".")[0].strip() if message else None


# Equations


def evaluate(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """The equation's outputs, always as a list."""
    return bind(equation.primitive, operands, equation.params)


def bind(primitive: Any, operands: Sequence[Any], parameters: dict[str, Any]) -> list[Any]:
    """What a primitive makes of its operands, as JAX's own interpreter asks it.

    `jax.numpy` would make operands vary over the same axes; a primitive expects that they do.
    """
    if primitive.name in CUSTOM_DERIVATIVES:  # whose code may index what it is given
        operands = [jnp.asarray(x) if isinstance(x, np.ndarray) else x for x in operands]
    axes = frozenset().union(*map(varying_axes, operands))
    if primitive.name == "pvary":  # refuses operands that vary already
        return [as_varying(x, parameters["axes"]) for x in operands]
    if axes and primitive.name not in _RETYPING:
        operands = [as_varying(x, axes) for x in operands]
    out = primitive.bind(*operands, **primitive.get_bind_params(parameters))
    return list(out) if primitive.multiple_results else [out]


def is_retyping(equation: Any) -> bool:
    """Whether an equation only says over which mesh axes its operands vary."""
    return equation.primitive.name in _RETYPING


def evaluate_now(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """The outputs of an equation of known operands, known too, whatever is traced around it."""
    if is_retyping(equation):
        return list(operands)
    with jax.ensure_compile_time_eval():
        return evaluate(equation, operands)


def evaluate_jaxpr(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """The outputs of a jaxpr."""
    return jax.core.eval_jaxpr(jaxpr, consts, *args)


def open_jaxpr(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """A jaxpr and its constants."""
    return (jaxpr.jaxpr, jaxpr.consts) if hasattr(jaxpr, "jaxpr") else (jaxpr, ())


def inlined(equation: Any) -> tuple[Any, Sequence[Any]] | None:
    """The jaxpr a plain call runs and its constants, `None` for all else."""
    name = _INLINED.get(equation.primitive.name)
    return open_jaxpr(equation.params[name]) if name in equation.params else None


def with_calls_inlined(closed: Any) -> Any:
    """The closed jaxpr without calls of jitted functions: their equations stand in their places."""

    def run(jaxpr, consts, args):
        values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args)))
        read = lambda v: v.val if isinstance(v, Literal) else values[v]
        for equation in jaxpr.eqns:
            operands = list(map(read, equation.invars))
            call = None if checkpointing(equation) is not None else inlined(equation)
            outputs = run(*call, operands) if call is not None else evaluate(equation, operands)
            values.update(zip(equation.outvars, outputs))
        return list(map(read, jaxpr.outvars))

    jaxpr, consts = open_jaxpr(closed)
    return jax.make_jaxpr(lambda *args: run(jaxpr, consts, args))(*(v.aval for v in jaxpr.invars))


def checkpointing(equation: Any) -> dict[str, Any] | None:
    """The arguments of the `jax.checkpoint` an equation runs, `None` for all else."""
    if equation.primitive.name not in ("checkpoint", "remat", "remat2"):
        return None
    return {name: equation.params[name] for name in ("prevent_cse", "policy")}


def inner_jaxprs(equation: Any) -> Iterator[Any]:
    """The jaxprs an equation runs, whatever it is."""
    return jaxprs_in_params(equation.params)


def contains(jaxpr: Any, name: str) -> bool:
    """Whether a primitive occurs in a jaxpr or in one it runs."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == name:
            return True
        if any(contains(inner, name) for inner in inner_jaxprs(equation)):
            return True
    return False


def float_dtypes(jaxpr: Any) -> set[Any]:
    """The dtypes of all floats a jaxpr computes."""
    dtypes: set[Any] = set()
    for equation in jaxpr.eqns:
        dtypes |= {v.aval.dtype for v in equation.outvars if hasattr(v.aval, "dtype")}
        dtypes = dtypes.union(*map(float_dtypes, inner_jaxprs(equation)))
    return {dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)}


def layer_scope(equation: Any) -> str:
    """The scope an equation was traced in, where the framework names its layers (Flax does)."""
    return str(getattr(getattr(equation, "source_info", None), "name_stack", ""))


def reduced_axis_names(equation: Any) -> list[str]:
    """The named axes a collective reduces over; empty for other equations."""
    if equation.primitive.name in _NO_REDUCTIONS:
        return []
    names: list[str] = []
    for parameter in _AXIS_PARAMETERS:
        axes = equation.params.get(parameter, ())
        axes = axes if isinstance(axes, tuple | list | frozenset | set) else (axes,)
        names += [axis for axis in axes if isinstance(axis, str)]
    return names


def mesh_axis_names(equation: Any) -> tuple[str, ...]:
    """The named axes an equation (`shard_map`) binds for what it runs."""
    return tuple(getattr(equation.params.get("mesh"), "axis_names", ()))


class Operation(NamedTuple):
    """A primitive and its parameters, without operands.

    Hashable, so that it can be static in a pytree.
    """

    primitive: Any
    parameters: tuple[tuple[str, Any], ...]

    @property
    def name(self) -> str:
        return self.primitive.name

    def __call__(self, *operands: Any) -> jax.Array:
        return bind(self.primitive, operands, dict(self.parameters))[0]


def operation(equation: Any) -> Operation:
    """What an equation does, for other operands."""
    return Operation(equation.primitive, tuple(sorted(equation.params.items())))


def transposition(axes: Sequence[int]) -> Operation:
    return Operation(jax.lax.transpose_p, (("permutation", tuple(axes)),))


def reshaping(shape: Sequence[int]) -> Operation:
    parameters = (("dimensions", None), ("new_sizes", tuple(shape)), ("sharding", None))
    return Operation(jax.lax.reshape_p, parameters)


def slicing(starts: Sequence[int], stops: Sequence[int]) -> Operation:
    parameters = (
        ("limit_indices", tuple(stops)),
        ("start_indices", tuple(starts)),
        ("strides", None),
    )
    return Operation(jax.lax.slice_p, parameters)


def taking(rank: int, sizes: Sequence[int]) -> Operation:
    """Slices of `sizes` along the first of `rank` axes, at the indices [n, 1] that are its
    second operand."""
    numbers = jax.lax.GatherDimensionNumbers(
        offset_dims=tuple(range(1, rank)), collapsed_slice_dims=(0,), start_index_map=(0,)
    )
    parameters = {
        "dimension_numbers": numbers,
        "slice_sizes": (1, *sizes),
        "unique_indices": False,
        "indices_are_sorted": False,
        "mode": jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS,
        "fill_value": None,
    }
    return Operation(jax.lax.gather_p, tuple(sorted(parameters.items())))


def broadcasting(shape: Sequence[int], axes: Sequence[int]) -> Operation:
    """A tensor whose dimensions become the `axes` of one of `shape`."""
    parameters = (
        ("broadcast_dimensions", tuple(axes)),
        ("shape", tuple(shape)),
        ("sharding", None),
    )
    return Operation(jax.lax.broadcast_in_dim_p, parameters)


def broadcast_axes(broadcast: Operation) -> tuple[int, ...]:
    """Which axis of the output each dimension of a `broadcast_in_dim` becomes."""
    return dict(broadcast.parameters)["broadcast_dimensions"]


def permutation(transpose: Operation) -> tuple[int, ...]:
    """The axes of a transposition."""
    return dict(transpose.parameters)["permutation"]


class Scan(NamedTuple):
    """A scan: its operands are constants, the initial carry, then what is scanned."""

    jaxpr: Any
    constants: int
    carries: int
    length: int
    reverse: bool
    unroll: Any

    @property
    def carried(self) -> range:
        """Places of the carry among the operands."""
        return range(self.constants, self.constants + self.carries)


def scan(equation: Any) -> Scan:
    """What a scan does.

    JAX up to 0.11 counts operands in `num_consts` and `num_carry`, later `ft_in` does.
    """
    p = equation.params
    if "num_consts" in p:
        constants, carries = p["num_consts"], p["num_carry"]
    else:
        constants, carries, _ = (len(list(part)) for part in p["ft_in"].unpack())
    return Scan(p["jaxpr"], constants, carries, p["length"], p["reverse"], p["unroll"])


def branches(equation: Any) -> Sequence[Any]:
    """The closed jaxprs a `cond` chooses from; its first operand is the index."""
    return equation.params["branches"]


def joined_axis(equation: Any) -> int:
    """The axis of a `concatenate` or a `stack`."""
    p = equation.params
    return p["dimension"] if "dimension" in p else p["axis"]


def parts(equation: Any) -> tuple[tuple[int, ...], int]:
    """The sizes of the parts of a `split`, and its axis."""
    return tuple(map(int, equation.params["sizes"])), equation.params["axis"]


def summed_axes(equation: Any) -> tuple[int, ...]:
    """The axes of a `reduce_sum`."""
    return equation.params["axes"]


class Contraction(NamedTuple):
    """A `dot_general`: axes of the left and of the right operand."""

    contracting: tuple[tuple[int, ...], tuple[int, ...]]
    batch: tuple[tuple[int, ...], tuple[int, ...]]


def contraction(equation: Any) -> Contraction:
    """Which axes a `dot_general` contracts, and which both operands and the output share."""
    return Contraction(*equation.params["dimension_numbers"])


class Convolution(NamedTuple):
    """A `conv_general_dilated`, in the words of `jax.lax`.

    The specifications say where each dimension is.
    """

    lhs_spec: tuple[int, ...]
    rhs_spec: tuple[int, ...]
    out_spec: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    feature_groups: int
    batch_groups: int


def convolution(equation: Any) -> Convolution:
    """The geometry of a `conv_general_dilated`."""
    p = equation.params
    numbers = p["dimension_numbers"]
    return Convolution(
        numbers.lhs_spec,
        numbers.rhs_spec,
        numbers.out_spec,
        tuple(p["window_strides"]),
        tuple(map(tuple, p["padding"])),
        tuple(p["lhs_dilation"]),
        tuple(p["rhs_dilation"]),
        p["feature_group_count"],
        p["batch_group_count"],
    )


class Gather(NamedTuple):
    """A `gather`: dimension numbers, the size of a slice, what becomes of indices outside."""

    numbers: jax.lax.GatherDimensionNumbers
    slice_sizes: tuple[int, ...]
    mode: jax.lax.GatherScatterMode


def gather(equation: Any) -> Gather:
    """What a `gather` looks up."""
    p = equation.params
    return Gather(p["dimension_numbers"], p["slice_sizes"], p["mode"])


def is_inside(equation: Any, indices: Any) -> bool:
    """Whether all slices that a `gather` at known indices looks up lie within its operand."""
    numbers, sizes, _ = gather(equation)
    if numbers.operand_batching_dims:
        return False
    starts = np.asarray(indices, np.int64).reshape(-1, len(numbers.start_index_map))
    shape = equation.invars[0].aval.shape
    last = [shape[axis] - sizes[axis] for axis in numbers.start_index_map]
    return bool(((starts >= 0) & (starts <= last)).all())


def slice_sizes(equation: Any) -> tuple[int, ...]:
    """The size of what a `dynamic_slice` cuts out."""
    return equation.params["slice_sizes"]


__all__ = [
    "CUSTOM_DERIVATIVES",
    "Contraction",
    "Convolution",
    "Gather",
    "Literal",
    "Operation",
    "Scan",
    "as_varying",
    "automatic_axes",
    "bind",
    "branches",
    "broadcast_axes",
    "broadcasting",
    "checkpointing",
    "contains",
    "contraction",
    "convolution",
    "evaluate",
    "evaluate_jaxpr",
    "evaluate_now",
    "float_dtypes",
    "gather",
    "inlined",
    "inner_jaxprs",
    "is_container",
    "is_in_automatic_mesh",
    "is_inside",
    "is_retyping",
    "is_traced",
    "joined_axis",
    "layer_scope",
    "mesh_axis_names",
    "open_jaxpr",
    "operation",
    "parts",
    "permutation",
    "reduced_axis_names",
    "reshaping",
    "scan",
    "slice_sizes",
    "slicing",
    "struct_like",
    "summed_axes",
    "taking",
    "transposition",
    "unbound_axis",
    "varying_axes",
    "with_calls_inlined",
    "zeros_like",
]
