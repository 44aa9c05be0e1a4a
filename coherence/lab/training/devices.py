"""One run on many devices: their mesh, what lies where, and what their processes agree on.

Batches are divided among the devices by examples, seeds that are computed side by side by seeds.
Parameters are whole on each device, or divided as a `Shard` says. A step needs no other
communication than its sums, the parameters that are divided and, for order statistics, the factors
of its batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from coherence.gradients.placement import along, constrained, dividing

from .checkpoints import key_path_name

Shard = Callable[[str, tuple[int, ...]], int | None]
"""The axis along which an array of a run's state is divided among devices, by its name in the
checkpoint (`params/layers/0/kernel`) and its shape; `None` for one that is whole on each."""


@dataclasses.dataclass(frozen=True)
class LargestAxis:
    """A `Shard`: arrays of more than `above` numbers are divided along their largest axis."""

    above: int

    def __call__(self, name: str, shape: tuple[int, ...]) -> int | None:
        return int(np.argmax(shape)) if math.prod(shape) > self.above else None


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the arrays of runs that advance together lie.

    Args:
        mesh: the devices.
        seeds: axes of the mesh among which seeds side by side are divided. Batches and parameters
            are divided among the others.
        shard: how parameters, and what an optimizer keeps of them, are divided; `None`: whole.
    """

    mesh: Mesh
    seeds: tuple[str, ...] = ()
    shard: Shard | None = None

    @property
    def others(self) -> dict[str, int]:
        """The axes that seeds leave, and their sizes."""
        return {name: size for name, size in self.mesh.shape.items() if name not in self.seeds}

    def sharding(self, *spec: Any, stacked: bool = False) -> NamedSharding:
        """Of an array, by axis, whole if nothing is said; `stacked` has an axis of seeds before."""
        return NamedSharding(self.mesh, P(*[self.seeds or None] * stacked, *spec))

    def constrain(self, state: Any) -> Any:
        """The state of one seed where it belongs, inside a compiled program."""
        place = lambda path, x: constrained(x, self._spec(path, x.shape))
        return jax.tree.map_with_path(place, state)

    def put(self, state: Any, *, stacked: bool) -> Any:
        """The state of one seed, or `stacked` of several, put where it belongs."""

        def place(path, x):
            spec = self._spec(path, np.shape(x)[stacked:])
            return jax.device_put(x, self.sharding(*spec, stacked=stacked))

        return jax.tree.map_with_path(place, state)

    def _spec(self, path, shape) -> P:
        axis = None if self.shard is None else self.shard(key_path_name(path), shape)
        return P() if axis is None else along(axis, shape, self.others)


def placement(mesh: Mesh | None, seeds: int, shard: Shard | None) -> Placement | None:
    """That of so many seeds side by side; `None` on a single device.

    Seeds need no communication: they are divided first, evenly, as far as whole axes do.
    """
    if mesh is None:
        return None
    return Placement(mesh, dividing(seeds, mesh.shape) if seeds > 1 else (), shard)


def compiles_side_by_side(placement: Placement | None) -> bool:
    """Whether XLA does not abort where the seeds of a placement are side by side.

    Its partitioner of JAX 0.12 does ("Could not slice dimension") where the axes that seeds leave
    differ in size, as for five seeds on 2 x 3 devices; two or three seeds leave one axis.
    """
    return placement is None or len(set(placement.others.values())) <= 1


def mesh_of(count: int | None) -> Mesh | None:
    """A mesh of the first so many devices, all of them for `None`; `None` for a single one.

    It has an axis for each prime factor of their number, so that a batch which not all of them
    divide evenly is divided among some.

    Raises:
        ValueError: there are fewer.
    """
    devices = jax.devices()
    if count is not None and not 1 <= count <= len(devices):
        raise ValueError(
            f"devices: this process sees {len(devices)} ({devices[0].device_kind}), got {count}. "
            "On CPU XLA_FLAGS=--xla_force_host_platform_device_count=N makes N of them."
        )
    chosen = devices[:count]
    if len(chosen) == 1:
        return None
    sizes = _prime_factors(len(chosen))
    names = tuple(f"devices{i}" for i in range(len(sizes)))
    return Mesh(np.array(chosen).reshape(sizes), names, axis_types=(AxisType.Auto,) * len(sizes))


def _prime_factors(n: int) -> list[int]:
    factors, factor = [], 2
    while n > 1:
        while n % factor == 0:
            factors.append(factor)
            n //= factor
        factor += 1
    return factors


def whole_on_each(tree: Any, mesh: Mesh | None) -> Any:
    """A tree of arrays, whole on every device of the mesh; as it is where there is none."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, P()))


def where(mesh: Mesh | None) -> dict[str, Any]:
    """What a manifest says of the devices that compute."""
    devices = [jax.devices()[0]] if mesh is None else mesh.devices.flatten().tolist()
    processes = {device.process_index for device in devices}
    kind = devices[0].device_kind
    return {"device": kind, "devices": len(devices), "processes": len(processes)}


def any_says(mesh: Mesh | None, *values: bool) -> list[bool]:
    """Whether a process of the mesh says so, for each of the values; the same in all of them."""
    if not _several_processes(mesh):
        return list(values)
    from jax.experimental.multihost_utils import process_allgather

    everywhere = np.asarray(process_allgather(np.array(values)))
    return [bool(column.any()) for column in everywhere.T]


def first_says(mesh: Mesh | None, arrays: Any) -> Any:
    """A tree of numpy arrays as the first process of the mesh has it."""
    if not _several_processes(mesh):
        return arrays
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return jax.tree.map(np.array, broadcast_one_to_all(arrays))


def _several_processes(mesh: Mesh | None) -> bool:
    return mesh is not None and mesh.is_multi_process
