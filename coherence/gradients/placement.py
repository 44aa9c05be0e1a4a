"""Where arrays lie in a mesh over whose axes the compiler divides them (`jax.set_mesh`).

Outside of a mesh, and in one with explicit or manual axes, nothing is done.
"""

from __future__ import annotations

import jax
from jax.sharding import PartitionSpec as P

from coherence.trees import PyTree

from .jax_internals import automatic_axes, automatic_sizes


def divided(tree: PyTree) -> PyTree:
    """The arrays [m, ...] of a tree, their examples divided among the devices of the mesh.

    Evenly: where m is no multiple of the number of devices, among as many as divide it by whole
    axes of the mesh, and the others compute the same as these.
    """
    return jax.tree.map(lambda x: _placed(x, _dividing(x.shape[0])), tree)


def everywhere(tree: PyTree) -> PyTree:
    """The arrays of a tree, whole on every device of the mesh."""
    return jax.tree.map(lambda x: _placed(x, ()), tree)


def _placed(x, axes):
    if not automatic_axes():
        return x
    return jax.lax.with_sharding_constraint(x, P(axes) if axes else P())


def _dividing(m: int) -> tuple[str, ...]:
    """Axes of the mesh, from the first on, whose sizes' product divides m."""
    count, axes = 1, []
    for axis, size in automatic_sizes().items():
        if m % (count * size) == 0:
            count *= size
            axes.append(axis)
    return tuple(axes)
