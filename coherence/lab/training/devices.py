"""One run on many devices: their mesh, and what their processes agree on.

Batches are divided among the devices by examples, parameters and data are whole on each: a step
needs no other communication than its sums and, for order statistics, the factors of its batch.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def mesh_of(count: int | None) -> Mesh | None:
    """A mesh of the first so many devices, all of them for `None`; `None` for a single one.

    It has an axis for each prime factor of their number, so that a batch which not all of them
    divide evenly is divided among some. With JAX 0.12 take a power of two where seeds run side by
    side: XLA's partitioner aborts at 2 x 3 devices ("Could not slice dimension"; 0.10 does not).

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
    names = tuple(f"examples{i}" for i in range(len(sizes)))
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
