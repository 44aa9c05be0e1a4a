"""At which steps a run is looked at, and by which of its probes."""

from coherence.probes.schedules import AtLoss


class Appointments:
    """The steps at which to record `measure`, and those of each probe.

    Where a probe waits for a loss, the host looks at the losses every `window` steps, from step 0
    on: a pure function of them, so a resumed run is looked at where the uninterrupted one was.
    """

    def __init__(self, probes, schedule, steps, per_epoch):
        self.schedule, self.total = set(schedule), steps
        self.probes = [set(probe.when.steps(steps, per_epoch)) for probe in probes]
        self.waiting = {
            i: probe.when for i, probe in enumerate(probes) if isinstance(probe.when, AtLoss)
        }
        self.fixed = sorted({steps, *self.schedule, *(step for one in self.probes for step in one)})

    def next(self, position):
        """The first step after `position` at which the host must look."""
        windows = ((position // when.window + 1) * when.window for when in self.waiting.values())
        return min(
            next((step for step in self.fixed if step > position), self.total), self.total, *windows
        )

    def of(self, position, losses):
        """Which probes are due at `position` in a run whose training batches so far had these `losses` [position]."""
        crossed = lambda i: i in self.waiting and self.waiting[i].due(losses)
        return [i for i, steps in enumerate(self.probes) if position in steps or crossed(i)]

    def counts(self):
        """How often each probe is due, at most."""
        return [
            len(steps) + (len(self.waiting[i].levels) if i in self.waiting else 0)
            for i, steps in enumerate(self.probes)
        ]
