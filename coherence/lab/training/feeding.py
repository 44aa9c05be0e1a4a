"""How training examples reach the compiled steps: all at once, or from the host by batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from coherence.gradients.placement import dividing

from .devices import Placement
from .step import CHUNK

MOST_BYTES = 2**28
"""Of streamed batches that are placed at a time; those of the next call are placed beside them."""


class Resident:
    """Training examples that lie on every device: a call is given them and its batches' indices."""

    def __init__(self, examples: Any, many: bool):
        self.examples, self.many = examples, many

    def most_steps(self, batch_size: int) -> int:
        """As many as a call takes."""
        return CHUNK

    def take(self, indices: np.ndarray, n: int) -> tuple[Any, Any]:
        """Examples and indices [seeds, length, b] for `advance`, of which n steps count."""
        return self.examples, indices if self.many else indices[0]


class Streamed:
    """Training examples that stay on the host: a call is given its batches.

    Args:
        examples: of each seed, a tree of numpy arrays or what is indexed like them.
        many: whether seeds are side by side.
        placement: where batches are divided; each process reads what its devices get.
    """

    def __init__(self, examples: Sequence[Any], many: bool, placement: Placement | None):
        self.examples, self.many, self.placement = examples, many, placement

    def most_steps(self, batch_size: int) -> int:
        """How many steps' batches are placed at a time."""
        leaves = [leaf for tree in self.examples for leaf in jax.tree.leaves(tree)]
        row = sum(math.prod(leaf.shape[1:]) * leaf.dtype.itemsize for leaf in leaves)
        return max(1, MOST_BYTES // (row * batch_size))

    def take(self, indices: np.ndarray, n: int) -> tuple[Any, None]:
        """Batches [seeds, length, b, ...] for `advance`, of which n steps are read and count."""
        return jax.tree.map(lambda *leaves: self._place(leaves, indices, n), *self.examples), None

    def _place(self, leaves, indices, n):
        dtype = jax.dtypes.canonicalize_dtype(leaves[0].dtype)
        shape = (*indices.shape, *leaves[0].shape[1:])

        def rows(index):
            index = index if self.many else (slice(None), *index)
            wanted = indices[index[:3]]
            part = np.zeros((*wanted.shape, *shape[3:]), dtype)
            for batches, leaf, own in zip(part, leaves[index[0]], wanted):
                batches[:n] = leaf[own[:n]]
            return part if self.many else part[0]

        if self.placement is None:
            return jax.device_put(rows((slice(None),) * (2 + self.many)))
        axes = dividing(indices.shape[2], self.placement.others)
        sharding = self.placement.sharding(None, axes or None, stacked=self.many)
        return jax.make_array_from_callback(shape[not self.many :], sharding, rows)
