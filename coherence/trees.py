"""Trees of arrays: their types, and names for their leaves, which `by=` takes."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from jax.tree_util import GetAttrKey, keystr

PyTree: TypeAlias = Any  # nested containers of arrays
KeyPath: TypeAlias = tuple[Any, ...]  # of a leaf: `jax.tree_util.tree_leaves_with_path`
LeafNames: TypeAlias = Callable[[KeyPath], str]  # leaves of one name are taken together
By: TypeAlias = LeafNames | Literal["layer", "leaf"]
LeafFilter: TypeAlias = Callable[[KeyPath], bool]
Loss: TypeAlias = Callable[[Any, Any], Any]  # `(params, example) -> scalar` for one example


def leaf(path: KeyPath) -> str:
    """The whole key path of a leaf, joined by `/` (`all` for a bare array).

    >>> import jax
    >>> [leaf(path) for path, _ in jax.tree.leaves_with_path({"dense": {"bias": 0.0}})]
    ['dense/bias']
    """
    return keystr(path, simple=True, separator="/") or "all"


def layer(path: KeyPath) -> str:
    """The layer a leaf belongs to: its path without its last key.

    A leading `params` and a trailing `.value` (Flax NNX) do not count. Where nothing would remain,
    the whole path (`all` for a bare array).

    >>> import jax
    >>> params = {"params": {"dense": {"bias": 0.0, "kernel": 0.0}}}
    >>> [layer(path) for path, _ in jax.tree.leaves_with_path(params)]
    ['dense', 'dense']
    """
    keys = tuple(path)
    if keys and keystr(keys[:1], simple=True) == "params":
        keys = keys[1:]
    if keys and isinstance(keys[-1], GetAttrKey) and keys[-1].name == "value":
        keys = keys[:-1]
    return leaf(keys[:-1]) if len(keys) > 1 else leaf(path)


def splits_layers(by: By | None) -> bool:
    """Whether layers that `lax.scan` goes over have names of their own, NAME/0, NAME/1, ...

    They do by "layer" and "leaf". A function of your own names the leaf that holds them all.
    """
    return by in ("layer", "leaf", layer, leaf)


def leaf_names(by: By) -> LeafNames:
    """The function that `by=` stands for: "layer" and "leaf" are this module's own.

    Raises:
        TypeError: another name, or no function.
    """
    if callable(by):
        return by
    if by not in ("layer", "leaf"):
        raise TypeError(
            f'by is "layer", "leaf" or a function from a key path to a name, got {by!r}.'
        )
    return layer if by == "layer" else leaf
