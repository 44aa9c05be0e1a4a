"""Schedules: when to measure, as plain values that name steps or watch the training loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Losses = Sequence[float] | np.ndarray


class Schedule(Protocol):
    """At which of so many steps to measure; `per_epoch` is the number of steps in an epoch."""

    def steps(self, total: int, per_epoch: int | None = None) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Every:
    """A schedule: step 0, every so many steps, the last step."""

    steps_apart: int = 100

    def __post_init__(self) -> None:
        if not isinstance(self.steps_apart, int | np.integer) or self.steps_apart < 1:
            raise ValueError(
                f"Every(steps_apart): a whole number of steps, at least 1, got {self.steps_apart}."
            )

    def steps(self, total: int, per_epoch: int | None = None) -> tuple[int, ...]:
        return tuple(sorted({*range(0, total + 1, self.steps_apart), total}))


@dataclass(frozen=True)
class LogSpaced:
    """A schedule: step 0, about so many steps a decade, the last: early steps change the most."""

    per_decade: int = 8

    def __post_init__(self) -> None:
        if self.per_decade < 1:
            raise ValueError(
                f"LogSpaced(per_decade): at least 1 measurement a decade, got {self.per_decade}."
            )

    def steps(self, total: int, per_epoch: int | None = None) -> tuple[int, ...]:
        """
        >>> LogSpaced(2).steps(100)
        (0, 1, 3, 10, 32, 100)
        """
        if total < 1:
            return (0,)
        decades = np.log10(total)
        points = 10 ** np.linspace(0, decades, 1 + round(decades * self.per_decade))
        return tuple(sorted({0, *(round(p) for p in points), total}))


@dataclass(frozen=True)
class Epochs:
    """A schedule: step 0, the end of every so many epochs (or a fraction of one), the last step."""

    apart: float = 1.0

    def __post_init__(self) -> None:
        if not self.apart > 0:
            raise ValueError(f"Epochs(apart): a positive number of epochs, got {self.apart}.")

    def steps(self, total: int, per_epoch: int | None = None) -> tuple[int, ...]:
        if per_epoch is None:
            raise ValueError(
                "Epochs need the number of steps in one, per_epoch = examples // batch_size."
            )
        if per_epoch < 1:
            raise ValueError(f"Epochs(per_epoch): at least 1 step in an epoch, got {per_epoch}.")
        count = math.floor(total / (self.apart * per_epoch))
        return tuple(
            sorted({0, *(round(i * self.apart * per_epoch) for i in range(1, count + 1)), total})
        )


@dataclass(frozen=True)
class AtLoss:
    """A schedule: step 0, where the loss first falls to each share of the first batch's, the last.

    The loss is the mean over the last `window` training batches; it is looked at every `window`
    steps, so that a resumed run measures at the same steps.
    """

    levels: tuple[float, ...] = (0.9, 0.75, 0.5, 0.25, 0.1)
    window: int = 10

    def __post_init__(self) -> None:
        if not isinstance(self.levels, tuple):
            raise TypeError(
                f"AtLoss(levels): a tuple of shares, as (0.5, 0.25), got {self.levels!r}."
            )
        if not self.levels or not all(0 < level < 1 for level in self.levels):
            raise ValueError(
                f"AtLoss(levels): shares of the initial loss, between 0 and 1, got {self.levels}."
            )
        if self.window < 1:
            raise ValueError(f"AtLoss(window): at least 1 step, got {self.window}.")

    def steps(self, total: int, per_epoch: int | None = None) -> tuple[int, ...]:
        return 0, total

    def crossed(self, losses: Losses) -> int:
        """How many levels have been reached, from the losses of all batches so far [steps]."""
        return self._reached(self.lowest(losses), losses) if len(losses) >= self.window else 0

    def due(self, losses: Losses) -> bool:
        """Whether the last window was the first at or below some level."""
        return Watch(self).due(losses)

    def lowest(self, losses: Losses) -> float:
        """The least mean of a window, of the whole windows among the losses; a nan is none."""
        full = len(losses) // self.window * self.window
        means = np.asarray(losses[:full], np.float64).reshape(-1, self.window).mean(1)
        return np.min(means, initial=np.inf, where=~np.isnan(means))

    def _reached(self, lowest: float, losses: Losses) -> int:
        return sum(bool(lowest <= level * float(losses[0])) for level in self.levels)


class Watch:
    """`AtLoss.due` of losses that grow from call to call: each is looked at once."""

    def __init__(self, when: AtLoss):
        self.when, self.seen, self.lowest = when, 0, np.inf

    def due(self, losses: Losses) -> bool:
        """Whether the last window was the first at or below some level."""
        window, n = self.when.window, len(losses)
        if not n or n % window:
            return False
        if n <= self.seen:  # another run, or the same step again
            self.seen, self.lowest = 0, np.inf
        self.lowest = min(self.lowest, self.when.lowest(losses[self.seen : n - window]))
        before = self.when._reached(self.lowest, losses) if n > window else 0
        self.lowest = min(self.lowest, self.when.lowest(losses[n - window :]))
        self.seen = n
        return self.when._reached(self.lowest, losses) > before
