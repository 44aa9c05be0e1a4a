"""What the command line asks of an experiment: settings, their folder, and who trains what."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from coherence.lab import runs
from coherence.lab.experiment import Experiment
from coherence.lab.grid import Devices
from coherence.lab.settings import Setting, apply_flags, explain, variant
from coherence.lab.suggestions import suggestion

from .flags import DEFAULT_PRESET, add_flags
from .hosts import Hosts, read_hosts
from .shares import Share, read_share
from .submission import Submission, read_submission


class Asked(NamedTuple):
    """What a command line asks for."""

    preset: str
    settings: Any
    folder: Path
    record: bool
    share: Share | None
    workers: int
    devices: Devices
    hosts: Hosts | None
    """Which processes share the devices, where several do; `None`: the cluster says."""
    submission: Submission | None


def read(experiment: Experiment, arguments: Sequence[str]) -> Asked:
    """The settings, the folder and the rest that a command line asks for.

    Raises:
        ValueError: an unknown preset, no share, settings of which there are no runs.
        SystemExit: an unknown field, or a value of another type; or help was asked for.
    """
    parser = argparse.ArgumentParser(
        f"coherence run {experiment.name}", add_help=False, allow_abbrev=False
    )
    add_flags(parser)
    own, words = parser.parse_known_args(arguments)
    if own.preset not in experiment.presets:
        raise ValueError(
            f"{experiment.name} has no preset {own.preset!r}: "
            f"there is {', '.join(experiment.presets)}.{suggestion(own.preset, experiment.presets)}"
        )
    share = None if own.share is None else read_share(own.share, os.environ)
    if share is not None and own.record:
        raise ValueError(
            "--record keeps what is made of all runs, and a share trains some. When all shares are "
            f"done: coherence run {experiment.name} --record."
        )
    if not re.fullmatch("[1-9][0-9]{0,3}", own.workers):
        raise ValueError(f"--workers: how many processes, at least 1, got {own.workers!r}.")
    if share is not None and own.workers != "1":
        raise ValueError(
            "--share and --workers: a share is one process's. Say --workers alone on one machine, "
            "--share alone in each of several processes."
        )
    devices = _read_devices(own)
    hosts = None if own.hosts is None else read_hosts(own.hosts)
    submission = None
    if own.submit is not None:
        if share is not None or own.workers != "1":
            raise ValueError(
                "--submit hands all runs over, divided by --shares N: leave out --share and "
                "--workers."
            )
        rest = [*words, *["--record"] * own.record]
        if own.preset != DEFAULT_PRESET:
            rest += ["--preset", own.preset]
        for flag in ("devices", "divide_above"):
            if (value := getattr(own, flag)) is not None:
                rest += [f"--{flag.replace('_', '-')}", value]
        submission = read_submission(own.submit, own.shares or "1", own.option, rest)
    elif own.shares is not None or own.option:
        raise ValueError(
            "--shares and --option say how jobs are submitted: say where to, --submit slurm or "
            "--submit local. One share here: --share K/N."
        )
    default = experiment.presets[own.preset]
    if {"-h", "--help"} & set(words):
        print(
            f"presets: {', '.join(experiment.presets)} (--preset, {DEFAULT_PRESET} if not given); "
            f"below, the values of {own.preset}.\n"
            "--workers N trains with N processes; --share K/N trains one of N shares of the runs "
            "and nothing else; --devices N (or all) divides the batches of a run among N GPUs, "
            "--divide-above N its parameters of more than N numbers, too, --hosts K/N@HOST:PORT "
            "(or auto) among those of N hosts, on each of which the command is started; "
            "--record keeps the arrays of the figure; --submit slurm --shares N --option "
            "partition=... (any of sbatch's) hands it to Slurm, --submit local to a process in the "
            "background.\n\n"
            f"To choose from:\n{explain(type(default))}\n"
        )
    settings = apply_flags(
        default, qualified(default, words), f"coherence run {experiment.name} --preset {own.preset}"
    )
    experiment.grid(settings)  # refuses settings before a folder is named
    folder = runs.root() / experiment.name / variant(own.preset, settings, default)
    workers = int(own.workers)
    return Asked(
        own.preset, settings, folder, own.record, share, workers, devices, hosts, submission
    )


def _read_devices(own: argparse.Namespace) -> Devices:
    """What each run is computed on.

    Raises:
        ValueError: no number, or flags that exclude each other.
    """
    if own.devices is not None and not re.fullmatch("[1-9][0-9]{0,3}|all", own.devices):
        raise ValueError(
            f"--devices: among how many a run's batches are divided, at least 1, or all, got "
            f"{own.devices!r}."
        )
    if own.divide_above is not None and not re.fullmatch("[0-9]{1,12}", own.divide_above):
        raise ValueError(
            "--divide-above: parameters of more numbers than this are divided among the devices, "
            f"got {own.divide_above!r}."
        )
    several = own.devices not in (None, "1") or own.hosts is not None
    if own.divide_above is not None and not several:
        raise ValueError("--divide-above: among how many devices? Say --devices N, or all.")
    if own.workers != "1" and several:
        raise ValueError(
            "--workers and --devices: each worker computes on one device. Say --devices alone to "
            "divide each run among many, --workers alone to train many runs at a time."
        )
    if own.hosts is not None:
        if own.devices not in (None, "all"):
            raise ValueError(
                "--hosts: a run is divided among all devices of all hosts: leave out --devices."
            )
        if own.share is not None or own.submit is not None:
            raise ValueError(
                "--hosts: one command on every host trains all runs, one after another: leave out "
                "--share and --submit."
            )
    count = None if own.devices == "all" or own.hosts is not None else int(own.devices or 1)
    above = None if own.divide_above is None else int(own.divide_above)
    return Devices(count, above, own.hosts is not None)


def qualified(settings: Any, arguments: Sequence[str]) -> list[str]:
    """Flags with the whole path of their field, which is needed where several have its name.

    `--steps` becomes `--run.steps` if only `run` has such a field.
    """
    own = {field.name for field in dataclasses.fields(settings)}
    nested: dict[str, list[str]] = {}
    for name in own:
        part = getattr(settings, name)
        if dataclasses.is_dataclass(part) and not isinstance(part, Setting):
            for field in dataclasses.fields(part):
                nested.setdefault(field.name, []).append(f"{name}.{field.name}")

    def whole(word):
        flag, equals, value = word.removeprefix("--").partition("=")
        paths = nested.get(flag.replace("-", "_"), [])
        if not word.startswith("--") or flag.replace("-", "_") in own or len(paths) != 1:
            return word
        return f"--{paths[0].replace('_', '-')}{equals}{value}"

    return [whole(word) for word in arguments]
