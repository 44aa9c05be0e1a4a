"""Where the functions stand that can be chosen: each of them is a setting by its own name."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import Any

from .signatures import describe, is_plain, listed, locate, setting
from .values import Setting


@dataclass(frozen=True)
class Room:
    """The choices of one kind: names of a package's stub, or of a module, that make it."""

    module: str
    returns: tuple[str, ...] = ()
    """The return annotation of the functions, as written."""
    bases: tuple[str, ...] = ()
    """A base of the classes."""
    given: tuple[str, ...] = ()
    """Parameters that are no settings, but known to whoever builds."""


_TRANSFORMATIONS = ("optax.GradientTransformation", "optax.GradientTransformationExtraArgs", "Last")
ROOMS = {
    "Aggregators": Room("coherence.optim", ("Aggregator",)),
    "Compressors": Room("coherence.optim", ("Compressor",)),
    "Decays": Room("coherence.optim", _TRANSFORMATIONS),
    "StoppingRules": Room("coherence.optim.stopping", ("Rule",)),
    "Optimizers": Room("coherence.lab.optimizers", _TRANSFORMATIONS),
    "Networks": Room("coherence.lab.models", bases=("Network",), given=("outputs",)),
    "AdversarialNetworks": Room("coherence.lab.models", bases=("AdversarialNetwork",)),
    "Autoencoders": Room("coherence.lab.models", bases=("Autoencoder",)),
    "Denoisers": Room("coherence.lab.models", bases=("Denoiser",)),
    "NoiseSchedules": Room("coherence.lab.tasks.noise_schedules", ("NoiseSchedule",)),
    "Datasets": Room("coherence.lab.data", ("Dataset",)),
    "OutputLosses": Room("coherence.lab.tasks", ("OutputLoss",)),
    "LabelNoises": Room("coherence.lab.data", ("LabelNoise",)),
}


@functools.cache
def members(room: str) -> dict[str, type[Setting]]:
    """The settings classes of a room by name, in the order of the stub."""
    place = ROOMS[room]
    classes: dict[str, type[Setting]] = {}
    for name in listed(place.module):
        try:
            source = f"{place.module}:{locate(place.module, name)[1].name}"
        except LookupError:  # a value or a module
            continue
        described = describe(source)
        made = {described.returns} & {*place.returns} or {*described.bases} & {*place.bases}
        if made and is_plain(described, place.given):
            classes[name] = setting(source, place.given)
    return classes


@functools.cache
def everything() -> dict[str, type[Setting]]:
    """The settings classes of all rooms by name."""
    return {name: cls for room in ROOMS for name, cls in members(room).items()}


def union(room: str) -> Any:
    """The type of a field that holds one of a room's settings: `winsorize | median | ...`."""
    return functools.reduce(operator.or_, members(room).values())
