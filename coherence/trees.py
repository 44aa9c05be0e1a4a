"""Names for the leaves of a parameter tree: what `by=` takes."""

from jax.tree_util import GetAttrKey, keystr


def leaf(path):
    """The whole key path of a leaf, joined by `/` (`all` for a bare array).

    >>> import jax
    >>> [leaf(path) for path, _ in jax.tree.leaves_with_path({"dense": {"bias": 0.0}})]
    ['dense/bias']
    """
    return keystr(path, simple=True, separator="/") or "all"


def layer(path):
    """The layer a leaf belongs to: its path less a leading `params`, a trailing `.value` (Flax NNX) and the last key.

    Where nothing would remain, the whole path (`all` for a bare array).

    >>> import jax
    >>> [layer(path) for path, _ in jax.tree.leaves_with_path({"params": {"dense": {"bias": 0.0, "kernel": 0.0}}})]
    ['dense', 'dense']
    """
    keys = list(path)
    if keys and keystr(keys[:1], simple=True) == "params":
        keys = keys[1:]
    if keys and isinstance(keys[-1], GetAttrKey) and keys[-1].name == "value":
        keys = keys[:-1]
    return leaf(keys[:-1]) if len(keys) > 1 else leaf(path)
