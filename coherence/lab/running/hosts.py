"""One run on the devices of several hosts: the same command on each of them.

Their processes find each other by `jax.distributed`. The first has the runs, judges and draws; the
others compute with it, in a folder of their own that nobody needs, and end when it does.
"""

from __future__ import annotations

import dataclasses
import re
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from coherence.lab.experiment import Experiment
from coherence.lab.grid import Devices, Grid, is_computed

DAY = 24 * 3600
PATIENCE = 300.0
"""Seconds that a process waits for the first one."""


@dataclasses.dataclass(frozen=True)
class Hosts:
    """Which of so many processes this is, counted from 1, and where the first one listens."""

    index: int
    count: int
    address: str


def read_hosts(text: str) -> Hosts | None:
    """`2/4@HOST:PORT`; `None` for `auto`: what Slurm, Kubernetes or MPI say.

    Raises:
        ValueError: it is neither.
    """
    if text == "auto":
        return None
    match = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})@(\S+:[0-9]{1,5})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(
            f"--hosts {text}: expected K/N@HOST:PORT with K from 1 to N, such as 2/4@node1:9876 on "
            "the second of four hosts, the first being node1; or auto in a job of Slurm or MPI."
        )
    return Hosts(int(match[1]), int(match[2]), match[3])


def connect(hosts: Hosts | None) -> bool:
    """Wait for the other processes; whether this is the first. JAX must not have been used.

    Raises:
        ValueError: nothing says which processes there are, or the others cannot be reached.
    """
    import jax

    where: dict[str, Any] = {}
    if hosts is not None:
        where = {
            "process_id": hosts.index - 1,
            "num_processes": hosts.count,
            "coordinator_address": hosts.address,
        }
        if hosts.index > 1:  # JAX would abort where it cannot reach it
            _wait_for(hosts.address)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        # The first may judge and draw for long when the others are at their end.
        jax.distributed.initialize(**where, shutdown_timeout_seconds=DAY)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"--hosts: the processes did not find each other ({error}). Start the same command on "
            "every host at about the same time, with --hosts K/N@HOST:PORT where no Slurm, "
            "Kubernetes or MPI says which there are."
        ) from None
    return jax.process_index() == 0


def _wait_for(address: str) -> None:
    """Until the first process listens.

    Raises:
        ValueError: it does not for too long.
    """
    host, _, port = address.rpartition(":")
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=10):
                return
        except (OSError, OverflowError) as error:
            if time.monotonic() > end or isinstance(error, OverflowError | socket.gaierror):
                raise ValueError(
                    f"--hosts: nobody listens at {address} ({error}). Start the same command with "
                    f"1/N@{address} on that host, at about the same time; the others must be able "
                    "to reach it."
                ) from None
        time.sleep(1)


def follow(experiment: Experiment, settings: Any, devices: Devices) -> None:
    """Compute what the first process trains, until it has trained all."""
    quiet = lambda *_: None
    with tempfile.TemporaryDirectory() as folder:
        grid = Grid(experiment.grid(settings), settings.seeds, Path(folder), devices)
        for unit in grid.units():
            if not is_computed(grid.arms[unit.arm]):
                grid.train(unit, quiet, quiet)
