"""A data set of any size as batches of one group each, and a few of its examples; on the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from coherence.gradients.arguments import check_sharding
from coherence.gradients.jax_internals import is_container
from coherence.trees import PyTree

from .pooling import count_groups, numbered

Groups: TypeAlias = ArrayLike | Callable[[PyTree], ArrayLike] | None


class Batch(NamedTuple):
    """Examples of one group; `mask` bool [m] marks those that count, `None` all of them."""

    group: int
    examples: PyTree
    mask: np.ndarray | None


def batches(
    data: PyTree, batch_size: int, groups: Groups = None, num_groups: int | None = None
) -> tuple[int, Iterator[Batch]]:
    """How many groups there are, and batches of one group each.

    Every batch has the same shape, so that one compiled program serves all.

    Args:
        data: a pytree of arrays with a shared leading axis, or an iterable of such batches of any
            sizes, which is read once; empty ones are passed over.
        groups: bool or int [m]; for an iterable a function from a batch to its groups. Entries
            outside of 0..num_groups-1 are left out.

    Raises:
        ValueError: no examples, leaves that disagree about their number, a `batch_size` below 1, or
            unfit `groups`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1 example, got {batch_size}.")
    if not is_iterable(data):
        m = count_examples(data)
        numbers, count = group_array(groups, num_groups, m)
        return count, _cut(data, min(batch_size, m), numbers, count)
    if groups is not None and not callable(groups):
        raise ValueError(
            "data is an iterable of batches: groups must be a function from a batch to the groups "
            "of its examples."
        )
    count = num_groups or (1 if groups is None else 2)
    return count, _regrouped(data, batch_size, groups, num_groups)


def is_iterable(data: Any) -> bool:
    """Whether the data come batch by batch, from what is no array and no container of arrays."""
    return not is_container(data) and hasattr(data, "__iter__") and not hasattr(data, "shape")


def _cut(data: PyTree, batch_size: int, numbers: np.ndarray, count: int) -> Iterator[Batch]:
    """Batches of arrays at hand, by indices."""
    for group in range(count):
        members = np.flatnonzero(numbers == group)
        for start in range(0, len(members), batch_size):
            yield _padded(group, take(data, members[start : start + batch_size]), batch_size)


def _regrouped(
    data: Iterable[PyTree],
    batch_size: int,
    groups: Callable[[PyTree], ArrayLike] | None,
    num_groups: int | None,
) -> Iterator[Batch]:
    """Batches of what comes once: examples wait until there is a batch of their group."""
    waiting: dict[int, PyTree] = {}
    for batch in data:
        m = count_examples(batch, empty=True)
        numbers, count = group_array(None if groups is None else groups(batch), num_groups, m)
        for group in np.unique(numbers[(numbers >= 0) & (numbers < count)]).tolist():
            examples = on_host(take(batch, np.flatnonzero(numbers == group)))
            examples = joined(waiting.pop(group), examples) if group in waiting else examples
            full = count_examples(examples) // batch_size * batch_size
            for start in range(0, full, batch_size):
                yield Batch(group, _stretch(examples, start, start + batch_size), None)
            if full < count_examples(examples):
                waiting[group] = _stretch(examples, full, None)
    for group in sorted(waiting):
        yield _padded(group, waiting[group], batch_size)


class Kept(NamedTuple):
    """Examples in an order: what they are sorted by, their numbers among all, themselves."""

    keys: np.ndarray
    numbers: np.ndarray
    examples: PyTree


class Few:
    """A few of many examples to look at twice: those of the longest gradients, and random others.

    The long ones decide how uncertain a mean is, and a random sample misses them. Weights say how
    many examples each stands for.
    """

    def __init__(self, size: int, seed: int = 0):
        self.size = size // 2  # of either kind
        self.rng = np.random.default_rng([seed, 0xFE])  # as of a probe, a stream of its own
        self.seen = 0
        self.longest: Kept | None = None
        self.random: Kept | None = None

    def add(
        self, examples: PyTree, squared_norms: np.ndarray, mask: np.ndarray | None = None
    ) -> None:
        counted = np.ones(len(squared_norms), bool) if mask is None else mask
        index = np.flatnonzero(counted)
        numbers = self.seen + np.arange(len(index))
        self.seen += len(index)
        shortest_last = -np.asarray(squared_norms, np.float64)[index]
        self.longest = self._first(self.longest, shortest_last, numbers, examples, index)
        random = self.rng.random(len(index))
        self.random = self._first(self.random, random, numbers, examples, index)

    def examples_and_weights(self) -> tuple[PyTree, np.ndarray]:
        """The examples, host arrays, and their weights [n], which add up to the number of all."""
        assert self.longest, "no example was added"
        assert self.random, "no example was added"
        _, numbers, examples = self.longest
        others = np.flatnonzero(~np.isin(self.random.numbers, numbers))
        weights = np.ones(len(numbers))
        if len(others):
            examples = joined(examples, take(self.random.examples, others))
            share = (self.seen - len(numbers)) / len(others)
            weights = np.concatenate([weights, np.full(len(others), share)])
        return examples, weights

    def _first(
        self,
        before: Kept | None,
        keys: np.ndarray,
        numbers: np.ndarray,
        examples: PyTree,
        index: np.ndarray,
    ) -> Kept:
        """Of before and now, the `size` examples with the smallest keys."""
        first = np.argsort(keys, kind="stable")[: self.size]
        if before is not None and len(before.keys) == self.size:
            first = first[keys[first] < before.keys[-1]]
            if not len(first):
                return before
        new = Kept(keys[first], numbers[first], on_host(take(examples, index[first])))
        if before is None:
            return new
        keys = np.concatenate([before.keys, new.keys])
        order = np.argsort(keys, kind="stable")[: self.size]
        numbers = np.concatenate([before.numbers, new.numbers])[order]
        both = joined(before.examples, new.examples)
        return Kept(keys[order], numbers, on_host(take(both, order)))


@jax.jit
def _gathered(data: PyTree, index: np.ndarray) -> PyTree:
    return jax.tree.map(lambda x: x[index], data)


def take(data: PyTree, index: np.ndarray) -> PyTree:
    """Examples by index, on the device, or on the host without a copy of the rest."""
    if any(isinstance(x, jax.Array) for x in jax.tree.leaves(data)):
        return _gathered(data, index)
    return jax.tree.map(lambda x: x[index], data)


def _stretch(data: PyTree, start: int, stop: int | None) -> PyTree:
    return jax.tree.map(lambda x: x[start:stop], data)


def _padded(group: int, examples: PyTree, size: int) -> Batch:
    """A last batch, filled up with its first example, which the mask leaves out."""
    m = count_examples(examples)
    if m == size:
        return Batch(group, examples, None)
    index = np.where(np.arange(size) < m, np.arange(size), 0)
    return Batch(group, take(examples, index), np.arange(size) < m)


def joined(first: PyTree, second: PyTree) -> PyTree:
    """The examples of both, in this order."""
    concatenate = lambda x, y: (jnp if is_key(x) else np).concatenate([x, y])
    return jax.tree.map(concatenate, first, second)


def on_host(data: PyTree) -> PyTree:
    """Arrays of numpy; typed random keys, which it does not know, stay what they are."""
    return jax.tree.map(lambda x: x if is_key(x) else np.asarray(x), data)


def is_key(x: Any) -> bool:
    """Whether an array of typed random keys (`jax.random.key`)."""
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def count_examples(data: PyTree, *, empty: bool = False) -> int:
    """The length of the leading axis that all leaves share.

    Raises:
        ValueError: no leaves, scalars, leaves that disagree, no example where `empty` is false, or
            a sharding over explicit axes.
    """
    leaves = jax.tree.leaves(data)
    for path, leaf in jax.tree.leaves_with_path(data):
        if isinstance(leaf, jax.Array):
            check_sharding(path, leaf)
    if not leaves:
        raise ValueError(
            "data holds no arrays: it is a pytree whose leaves share a leading axis of examples, "
            "or an iterable of such batches."
        )
    if any(not np.ndim(x) for x in leaves):
        raise ValueError("data holds a scalar: every leaf needs a leading axis of examples.")
    sizes = {x.shape[0] for x in leaves}
    if len(sizes) > 1:
        raise ValueError(
            f"data's leaves disagree about the number of examples (their first axis): "
            f"{sorted(sizes)}. A list of batches is passed as an iterator: iter(batches)."
        )
    if sizes == {0} and not empty:
        raise ValueError("data holds 0 examples: there is nothing to measure.")
    return sizes.pop()


def group_array(groups: Any, num_groups: int | None, m: int) -> tuple[np.ndarray, int]:
    """Group numbers, int32 [m], and how many groups there are; on the host.

    Raises:
        ValueError: the wrong shape or type, or integers without `num_groups`.
    """
    if groups is None:
        return np.zeros(m, np.int32), 1
    groups = np.asarray(groups)
    num_groups = count_groups(groups, num_groups, m)
    return numbered(groups, num_groups), num_groups
