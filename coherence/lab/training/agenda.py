"""The steps at which a run is measured, and by which of its probes."""

from __future__ import annotations

import bisect
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from coherence.probes.probe import Probe
from coherence.probes.schedules import AtLoss, Watch


class Agenda:
    """The steps at which `measure` is recorded, and those at which each probe is read.

    Where a probe waits for a loss, the host looks at the losses every `window` steps, from step 0
    on: a pure function of them, so a resumed run is measured where the uninterrupted one was.
    """

    def __init__(
        self, probes: Sequence[Probe], schedule: Iterable[int], steps: int, per_epoch: int
    ):
        self.schedule, self.total = set(schedule), steps
        self.of_probes = [set(probe.when.steps(steps, per_epoch)) for probe in probes]
        self.waiting = {
            i: probe.when for i, probe in enumerate(probes) if isinstance(probe.when, AtLoss)
        }
        self.fixed = sorted({steps}.union(self.schedule, *self.of_probes))
        self._watches: dict[tuple[Hashable, int], Watch] = {}

    def next(self, position: int) -> int:
        """The first step after `position` at which the host must look."""
        i = bisect.bisect_right(self.fixed, position)
        fixed = self.fixed[i] if i < len(self.fixed) else self.total
        windows = [(position // when.window + 1) * when.window for when in self.waiting.values()]
        return min(fixed, self.total, *windows)

    def due(self, position: int, losses: np.ndarray, run: Hashable = None) -> list[int]:
        """Which probes are read at `position`, in a run whose batches so far had these losses."""
        late = {i for i in self.waiting if self._watch(run, i).due(losses)}
        return [i for i, steps in enumerate(self.of_probes) if position in steps or i in late]

    def _watch(self, run, i):
        return self._watches.setdefault((run, i), Watch(self.waiting[i]))

    def counts(self) -> list[int]:
        """How often each probe is read, at most."""
        return [
            len(steps) + (len(self.waiting[i].levels) if i in self.waiting else 0)
            for i, steps in enumerate(self.of_probes)
        ]
