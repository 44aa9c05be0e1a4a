"""What may be passed in, checked on static shapes before anything is traced."""

from typing import Any

import jax
import jax.numpy as jnp

from coherence import jax_internals
from coherence.trees import KeyPath, PyTree
from coherence.trees import leaf as leaf_name


def check_params(params: PyTree) -> None:
    for path, leaf in jax.tree.leaves_with_path(params):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"leaf {leaf_name(path)} is {dtype}: gradients need floats. "
                "With Flax NNX, split with a filter: nnx.split(model, nnx.Param, ...)."
            )


def check_batch(batch: PyTree, mask: jax.Array | None) -> int:
    sizes = {}
    for path, leaf in jax.tree.leaves_with_path(batch):
        if not hasattr(leaf, "shape") or leaf.ndim == 0:
            raise TypeError(
                f"batch leaf {leaf_name(path)} has no example axis, got {leaf!r}. Every leaf needs a leading axis of m examples."
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
            f"mask must be bool [{m}], one entry an example, got {jnp.result_type(mask)} {list(jnp.shape(mask))}."
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
    """The parameters, under `shard_map` typed as differing between devices where the data do: else gradients are summed over devices."""
    axes: frozenset[str] = frozenset()
    axes = axes.union(*map(jax_internals.varying_axes, jax.tree.leaves(data)))
    return jax.tree.map(lambda x: jax_internals.as_varying(x, axes), params)


def check_loss_output(out: Any, has_aux: bool) -> None:
    if has_aux and not (isinstance(out, tuple) and len(out) == 2):
        raise ValueError(
            f"with has_aux=True the loss must return (scalar, aux) for one example, got {jax.tree.structure(out)}."
        )
    value = out[0] if has_aux else out
    shape = getattr(value, "shape", None)
    if shape is None:
        raise ValueError(
            f"loss must return a scalar for one example, got a {type(value).__name__}. If it returns (scalar, aux), pass has_aux=True."
        )
    if shape != ():
        raise ValueError(
            f"loss must return a scalar for one example, got shape {shape}. "
            "Did you pass a loss of the whole batch? Write it for one example; coherence adds the batch."
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"loss must return a float for one example, got {value.dtype}: there is nothing to differentiate."
        )
