"""A probe as settings: plain values, to be compared, printed and written to JSON."""

from __future__ import annotations

import types
from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import Any

from coherence.probes.schedules import AtLoss, Epochs, Every, LogSpaced

SETS = ("train", "test", "pristine", "corrupt")
QUANTITIES = ("light", "standard", "examples", "full", "histograms")
GROUPS = ("none", "corrupt", "class")


@dataclass(frozen=True)
class Probing:
    """What to measure on which fixed sample of a data set, and when."""

    of: str = "train"
    """Whose examples: train, test, or of the training examples the pristine or the corrupt."""
    m: int = 500
    """How many of them."""
    quantities: str | tuple[Any, ...] = "standard"
    """light, standard, examples (who drives the step), full, or histograms (of gradients and
    parameters by layer); or several: names of these and of quantities, and functions of what a
    probe sees (a `coherence.probes.View`), recorded by name."""
    groups: str = "corrupt"
    """What they are told apart by: none, corrupt (pristine first), class."""
    when: LogSpaced | Every | Epochs | AtLoss = LogSpaced()
    few: int = 512
    """How many of them pairwise and per-example quantities look at."""
    batch_size: int = 1000
    """How many are differentiated at a time."""
    name: str = ""
    """What its readings' names start with; empty for `of`."""
    stream: int | None = None
    """Of random numbers, that the sample is drawn from; None: the run's, probe after probe."""

    def __post_init__(self):
        if self.of not in SETS:
            raise ValueError(f"Probing(of): one of {', '.join(SETS)}, got {self.of!r}.")
        if self.groups not in GROUPS:
            raise ValueError(f"Probing(groups): one of {', '.join(GROUPS)}, got {self.groups!r}.")
        if self.m < 2 or self.few < 2 or self.batch_size < 1:
            raise ValueError(
                "Probing: m and few are at least 2 examples and batch_size at least 1, "
                f"got m={self.m}, few={self.few}, batch_size={self.batch_size}."
            )
        if isinstance(self.quantities, str) and self.quantities not in QUANTITIES:
            raise ValueError(
                f"Probing(quantities): one of {', '.join(QUANTITIES)}, or a tuple, got "
                f"{self.quantities!r}."
            )

    def __repr__(self) -> str:
        fields = (f"{field.name}={_shown(getattr(self, field.name))}" for field in fields_of(self))
        return f"Probing({', '.join(fields)})"


def _shown(value):
    """What the value is printed as: a function as its name, which `parse` reads."""
    if isinstance(value, tuple):
        return f"({''.join(f'{_shown(part)}, ' for part in value).rstrip()})"
    return value.__name__ if isinstance(value, types.FunctionType) else repr(value)
