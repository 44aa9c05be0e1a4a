"""Where arrays lie in a mesh over whose axes the compiler divides them (`jax.set_mesh`).

Outside of a mesh, and in one with explicit or manual axes, nothing is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
from jax.sharding import PartitionSpec as P

from coherence.trees import PyTree

from .jax_internals import automatic_sizes, is_in_automatic_mesh


def divided(tree: PyTree) -> PyTree:
    """The arrays [m, ...] of a tree, their examples divided among the devices of the mesh.

    Evenly: where m is no multiple of the number of devices, among as many as divide it by whole
    axes of the mesh, and the others compute the same as these. Inside a `vmap` that divides what it
    maps among some axes (`spmd_axis_name`), among the others.
    """
    return jax.tree.map(lambda x: constrained(x, along(0, x.shape)), tree)


def everywhere(tree: PyTree) -> PyTree:
    """The arrays of a tree, whole on every device of the mesh."""
    return jax.tree.map(lambda x: constrained(x, P()), tree)


def constrained(x: jax.Array, spec: P) -> jax.Array:
    """The array, divided as a specification says."""
    return jax.lax.with_sharding_constraint(x, spec) if is_in_automatic_mesh() else x


def along(axis: int, shape: Sequence[int], sizes: Mapping[str, int] | None = None) -> P:
    """An array of this shape, divided along an axis among axes of the mesh, of these sizes."""
    axes = dividing(shape[axis], automatic_sizes() if sizes is None else sizes)
    return P(*[None] * axis, axes) if axes else P()


def dividing(m: int, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Axes of a mesh, of these sizes, from the first on, whose sizes' product divides m."""
    count, axes = 1, []
    for axis, size in sizes.items():
        if m % (count * size) == 0:
            count *= size
            axes.append(axis)
    return tuple(axes)
