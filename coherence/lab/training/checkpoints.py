"""A pytree of training state as named arrays, and back, to the last bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coherence.trees import leaf as leaf_name


def to_arrays(tree: Any) -> dict[str, np.ndarray]:
    """`{key path: numpy array}`.

    Typed keys are their data, dtypes that numpy does not know (bfloat16) are bytes.
    """
    arrays = {}
    for path, leaf in jax.tree.leaves_with_path(tree):
        if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        arrays[leaf_name(path)] = (
            array
            if array.dtype.kind in "biuf"
            else array.view(np.uint8 if array.ndim else np.void).copy()
        )
    return arrays


def from_arrays(like: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The tree of `like` with the values of `arrays`.

    Raises:
        ValueError: the arrays are of another tree.
    """
    paths, treedef = jax.tree.flatten_with_path(like)
    names = [leaf_name(path) for path, _ in paths]
    if set(names) != set(arrays):
        odd = sorted(set(names) ^ set(arrays))
        raise ValueError(
            f"the checkpoint is of another training state: {', '.join(odd[:5])} is in one and not "
            "in the other."
        )
    leaves = [_restore(leaf, arrays[name], name) for name, (_, leaf) in zip(names, paths)]
    return jax.tree.unflatten(treedef, leaves)


def _restore(leaf, array, name):
    if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
    dtype = np.dtype(jnp.result_type(leaf))
    if array.dtype != dtype:
        array = array.view(dtype)
    if array.shape != jnp.shape(leaf):
        raise ValueError(
            f"the checkpoint is of another training state: {name} is {array.shape}, not "
            f"{jnp.shape(leaf)}."
        )
    return jnp.asarray(array)
