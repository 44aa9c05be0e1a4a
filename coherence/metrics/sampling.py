"""A data set of any size, cut into batches of one group each, and a few of its examples to look at twice. On the host."""

from typing import Any, NamedTuple

import jax
import numpy as np

from coherence.jax_internals import is_container

from .pooling import how_many_groups


class Batch(NamedTuple):
    """Examples of one group; `mask` bool [m] marks those that count, `None` all of them."""

    group: int
    examples: Any
    mask: np.ndarray | None


def batches(data, batch_size, groups=None, num_groups=None):
    """`(how many groups, iterator of Batch)`; every batch has the same shape, so that one compiled program serves all.

    Args:
        data: a pytree of arrays with a shared leading axis, or an iterable of such batches of any
        sizes, which is read once.
        groups: bool or int [m]; for an iterable a function from a batch to its groups. Entries
            outside of 0..num_groups-1 are left out.

    Raises:
        ValueError: no examples, leaves that disagree about their number, a `batch_size` below 1, or
            unfit `groups`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1 example, got {batch_size}.")
    if is_iterable(data):
        if groups is not None and not callable(groups):
            raise ValueError(
                "data is an iterable of batches: groups must be a function from a batch to the groups of its examples."
            )
        return num_groups or (1 if groups is None else 2), _rebatched(
            data, batch_size, groups, num_groups
        )
    numbers, many = group_array(groups, num_groups, m := length(data))
    return many, _cut(data, min(batch_size, m), numbers, many)


def is_iterable(data):
    """Whether the data come batch by batch: something to iterate over that is neither an array nor a container of them."""
    return not is_container(data) and hasattr(data, "__iter__") and not hasattr(data, "shape")


def _cut(data, batch_size, numbers, many):
    """Arrays at hand: a batch is a list of indices."""
    for group in range(many):
        members = np.flatnonzero(numbers == group)
        for start in range(0, len(members), batch_size):
            yield _padded(group, take(data, members[start : start + batch_size]), batch_size)


def _rebatched(data, batch_size, of_batch, num_groups):
    """Batches of any size that come once: examples wait until there is a batch of their group."""
    waiting: dict[int, Any] = {}
    for whole in data:
        numbers, many = group_array(
            None if of_batch is None else of_batch(whole), num_groups, length(whole)
        )
        for group in np.unique(numbers[(numbers >= 0) & (numbers < many)]).tolist():
            examples = jax.tree.map(lambda x, keep=numbers == group: np.asarray(x)[keep], whole)
            examples = joined(waiting.pop(group), examples) if group in waiting else examples
            full, rest = divmod(length(examples), batch_size)
            for i in range(full):
                yield Batch(
                    group,
                    jax.tree.map(lambda x, i=i: x[i * batch_size : (i + 1) * batch_size], examples),
                    None,
                )
            if rest:
                waiting[group] = jax.tree.map(lambda x, n=full: x[n * batch_size :], examples)
    for group in sorted(waiting):
        yield _padded(group, waiting[group], batch_size)


class Few:
    """A few of many examples to look at twice: the longest gradients, all of them, and random ones of the others.

    The long ones decide how uncertain a mean is, and a random sample misses them. `weights` are how
    many examples each stands for.
    """

    def __init__(self, size, seed=0):
        self.size, self.rng = (
            size // 2,
            np.random.default_rng([seed, 0xFE]),
        )  # as of a probe, a stream of its own
        self.seen = 0
        self.longest = self.random = None  # (what it is sorted by, number of the example, example)

    def add(self, examples, squared_norms, mask=None):
        keep = np.flatnonzero(np.ones(len(squared_norms), bool) if mask is None else mask)
        numbers = self.seen + np.arange(len(keep))
        self.seen += len(keep)
        self.longest = self._best(
            self.longest, -np.asarray(squared_norms, np.float64)[keep], numbers, keep, examples
        )
        self.random = self._best(self.random, self.rng.random(len(keep)), numbers, keep, examples)

    def examples_and_weights(self):
        """The examples, host arrays, and their weights [n], which add up to the number of all."""
        _, long, examples = self.longest
        others = np.flatnonzero(~np.isin(self.random[1], long))
        weights = np.ones(len(long))
        if len(others):
            examples = joined(examples, jax.tree.map(lambda x: x[others], self.random[2]))
            weights = np.concatenate(
                [weights, np.full(len(others), (self.seen - len(long)) / len(others))]
            )
        return examples, weights

    def _best(self, before, by, numbers, keep, examples):
        """Those `size` of before and now that are first in the order of `by`."""
        first = np.argsort(by, kind="stable")[: self.size]
        if before is not None and len(before[0]) == self.size:
            first = first[by[first] < before[0][-1]]
            if not len(first):
                return before
        new = by[first], numbers[first], jax.tree.map(np.asarray, take(examples, keep[first]))
        if before is None:
            return new
        best = np.argsort(np.concatenate([before[0], new[0]]), kind="stable")[: self.size]
        return jax.tree.map(lambda x, y: np.concatenate([x, y])[best], before, new)


@jax.jit
def _gathered(data, index):
    return jax.tree.map(lambda x: x[index], data)


def take(data, index):
    """Examples by index, where the data is: on the device, or on the host without a copy of the rest."""
    if any(isinstance(x, jax.Array) for x in jax.tree.leaves(data)):
        return _gathered(data, index)
    return jax.tree.map(lambda x: x[index], data)


def _padded(group, examples, size):
    """A last batch, filled up with its first example, which the mask leaves out: one compiled program serves all."""
    m = length(examples)
    if m == size:
        return Batch(group, examples, None)
    index = np.where(np.arange(size) < m, np.arange(size), 0)
    return Batch(group, take(examples, index), np.arange(size) < m)


def joined(a, b):
    return jax.tree.map(lambda x, y: np.concatenate([x, y]), a, b)


def length(examples):
    leaves = jax.tree.leaves(examples)
    if not leaves:
        raise ValueError(
            "data holds no arrays: it is a pytree whose leaves share a leading axis of examples, or an iterable of such batches."
        )
    if any(not np.ndim(x) for x in leaves):
        raise ValueError("data holds a scalar: every leaf needs a leading axis of examples.")
    sizes = {x.shape[0] for x in leaves}
    if len(sizes) > 1:
        raise ValueError(
            f"data's leaves disagree about the number of examples (their first axis): {sorted(sizes)}. "
            "A list of batches is passed as an iterator: iter(batches)."
        )
    if sizes == {0}:
        raise ValueError("data holds 0 examples: there is nothing to measure.")
    return sizes.pop()


def group_array(groups, num_groups, m):
    """Group numbers, int32 [m], and how many groups there are; on the host.

    Raises:
        ValueError: the wrong shape or type, or integers without `num_groups`.
    """
    if groups is None:
        return np.zeros(m, np.int32), 1
    groups = np.asarray(groups)
    return groups.astype(np.int32), how_many_groups(groups, num_groups, m)
