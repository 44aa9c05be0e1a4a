"""A pytree of training state as named arrays, and back, to the last bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def to_arrays(tree: Any) -> dict[str, np.ndarray]:
    """`{key path: numpy array}`.

    Typed keys are their data; of dtypes that numpy does not know (bfloat16) the last axis is bytes.
    Where arrays are divided among processes, all of these must ask, and get the whole ones.
    """
    return {key_path_name(path): _array(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def _array(leaf):
    if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    leaf = jnp.asarray(leaf)
    if not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        from jax.experimental.multihost_utils import process_allgather

        leaf = process_allgather(leaf, tiled=True)
    array = np.asarray(leaf)
    return array if array.dtype.kind in "biuf" else array.reshape(*array.shape, 1).view(np.uint8)


def from_arrays(like: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The tree of `like` with the values of `arrays`.

    Raises:
        ValueError: the arrays are of another tree.
    """
    paths, treedef = jax.tree.flatten_with_path(like)
    names = [key_path_name(path) for path, _ in paths]
    if set(names) != set(arrays):
        odd = sorted(set(names) ^ set(arrays))
        raise ValueError(
            f"the checkpoint is of another training state: {', '.join(odd[:5])} is in one and not "
            "in the other."
        )
    leaves = [_restore(leaf, arrays[name], name) for name, (_, leaf) in zip(names, paths)]
    return jax.tree.unflatten(treedef, leaves)


def digest(tree: Any) -> str:
    """SHA-256 of a tree's arrays: their names, types, shapes and values."""
    total = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        # A data set on the host is read where it is.
        is_plain = isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biuf"
        array = leaf if is_plain else _array(leaf)
        total.update(f"{key_path_name(path)} {array.dtype} {array.shape} ".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def _restore(leaf, array, name):
    if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
    dtype, saved = np.dtype(jnp.result_type(leaf)), array
    if (
        dtype.kind not in "biuf"
        and saved.dtype == np.uint8
        and saved.shape[-1:] == (dtype.itemsize,)
    ):
        array = saved.view(dtype)[..., 0]
    if (array.shape, array.dtype) != (jnp.shape(leaf), dtype):
        raise ValueError(
            f"the checkpoint is of another training state: {name} is {saved.dtype} "
            f"{list(saved.shape)}, not "
            f"{dtype} {list(jnp.shape(leaf))}."
        )
    # A number of Python's, which takes the type of what it meets.
    is_python_number = getattr(leaf, "weak_type", False) and not array.ndim
    return jnp.asarray(array.item() if is_python_number else array)


def key_path_name(path: Any) -> str:
    """The keys of a path with slashes between them; those within a key are escaped."""
    keys = [jax.tree_util.keystr((key,), simple=True) for key in path]
    return "/".join(key.replace("%", "%25").replace("/", "%2F") for key in keys) or "all"
