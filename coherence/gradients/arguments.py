"""What may be passed in, checked on static shapes before anything is traced."""

from typing import Any

import jax
import jax.numpy as jnp

from coherence.trees import KeyPath, PyTree
from coherence.trees import leaf as leaf_name

from . import jax_internals

_NNX_STATE = (
    "it changes the state of an NNX module, which the loss of one example must not. Without "
    "dropout and with "
    "frozen statistics: model.eval() before nnx.split. Dropout: give every example a key in the "
    "batch, and in the "
    "loss nnx.reseed(model, default=key, dropout=key) after nnx.merge(graphdef, params, rest, "
    "copy=True). "
    "Batch norm in training mode has no per-example gradients: GroupNorm or LayerNorm, or "
    "alpha_from_minibatches."
)
_LINEN_STATE = (
    "it changes variables of a Flax module, which are not passed as mutable. Batch norm in "
    "training mode has no "
    "per-example gradients: use_running_average=True, another norm (GroupNorm, LayerNorm), or "
    "alpha_from_minibatches."
)
_EQUINOX_STATE = (
    "it reads an Equinox State twice. With frozen statistics: eqx.nn.inference_mode(model). Else "
    "make a copy inside "
    "the loss: leaves, treedef = jax.tree.flatten(state) outside, jax.tree.unflatten(treedef, "
    "leaves) inside. "
    "Batch norm in training mode has no per-example gradients: another norm, or "
    "alpha_from_minibatches."
)
_RANDOMNESS = (
    "it draws random numbers without a key. Put one key per example into the batch, and pass it "
    "on: "
    "model.apply(..., rngs={'dropout': key}) in Flax Linen, model(x, key=key) in Equinox; or "
    "switch dropout off."
)
# Where a framework's own error does not say what to do under a per-example loss: a part of its name
# or message, and the way out.
_FRAMEWORKS = {
    "TraceContextError": _NNX_STATE,
    "ModifyScopeVariableError": _LINEN_STATE,
    "InvalidRngError": _RANDOMNESS,
    "Dropout requires a key": _RANDOMNESS,
    "Attempted to use old state": _EQUINOX_STATE,
}


def explained(error: Exception) -> ValueError | None:
    """A framework's error while the loss of one example was traced, with that framework's way
    out; `None` for others."""
    name = type(error).__name__
    for sign, way_out in _FRAMEWORKS.items():
        if sign == name or sign in str(error):
            return ValueError(f"loss of one example cannot be traced: {way_out} ({name})")
    return None


def check_params(params: PyTree) -> None:
    for path, leaf in jax.tree.leaves_with_path(params):
        try:
            kind = str(jnp.result_type(leaf))
            is_float = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        except TypeError:
            kind, is_float = f"a {type(leaf).__name__}", False
        if not is_float:
            raise TypeError(
                f"leaf {leaf_name(path)} is {kind}: gradients need floats. "
                "With Flax NNX, split with a filter: nnx.split(model, nnx.Param, ...); with "
                "Equinox, "
                "eqx.partition(model, eqx.is_inexact_array)."
            )


def check_batch(batch: PyTree, mask: jax.Array | None) -> int:
    sizes = {}
    for path, leaf in jax.tree.leaves_with_path(batch):
        if not hasattr(leaf, "shape") or leaf.ndim == 0:
            raise TypeError(
                f"batch leaf {leaf_name(path)} has no example axis, got {leaf!r}. Every leaf "
                "needs a leading axis of m examples."
            )
        check_sharding(path, leaf)
        sizes[leaf_name(path)] = leaf.shape[0]
    if not sizes:
        raise ValueError("batch holds no array: there is nothing to take examples from.")
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"batch leaves disagree about the number of examples (their first axis): {sizes}."
        )
    m = next(iter(sizes.values()))
    if m == 0:
        raise ValueError("batch is empty (0 examples): coherence needs at least one.")
    if mask is not None and (jnp.shape(mask) != (m,) or jnp.result_type(mask) != jnp.bool_):
        raise ValueError(
            f"mask must be bool [{m}], one entry an example, got {jnp.result_type(mask)} "
            f"{list(jnp.shape(mask))}."
        )
    return m


def check_sharding(path: KeyPath, leaf: Any) -> None:
    """Refuse an array whose sharding is part of its type.

    Raises:
        ValueError: it is sharded over a mesh with explicit axes.
    """
    if any(axis is not None for axis in jax.typeof(leaf).sharding.spec):
        raise ValueError(
            f"batch leaf {leaf_name(path)} is sharded over a mesh with explicit axes "
            f"({jax.typeof(leaf)}): every reduction over the examples would need its output's "
            "sharding spelled out. Leave it to the compiler: jax.make_mesh(shape, names, "
            "axis_types=(jax.sharding.AxisType.Auto,) * len(names))."
        )


def varying_with(params: PyTree, data: PyTree) -> PyTree:
    """The parameters, under `shard_map` typed as differing between devices where the data do.

    Else gradients are summed over devices.
    """
    axes: frozenset[str] = frozenset()
    axes = axes.union(*map(jax_internals.varying_axes, jax.tree.leaves(data)))
    return jax.tree.map(lambda x: jax_internals.as_varying(x, axes), params)


def check_loss_output(out: Any, has_aux: bool) -> None:
    if has_aux and not (isinstance(out, tuple) and len(out) == 2):
        raise ValueError(
            "with has_aux=True the loss must return (scalar, aux) for one example, got "
            f"{jax.tree.structure(out)}."
        )
    value = out[0] if has_aux else out
    shape = getattr(value, "shape", None)
    if shape is None:
        raise ValueError(
            f"loss must return a scalar for one example, got a {type(value).__name__}. If it "
            "returns (scalar, aux), pass has_aux=True."
        )
    if shape != ():
        raise ValueError(
            f"loss must return a scalar for one example, got shape {shape}. "
            "Did you pass a loss of the whole batch? Write it for one example; coherence adds "
            "the batch."
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"loss must return a float for one example, got {value.dtype}: there is nothing to "
            "differentiate."
        )
