"""The recorder of a loop of your own: a run on disk, and copies elsewhere."""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from coherence.lab.runs import Run
from coherence.lab.runs.files import to_json
from coherence.lab.runs.locks import RunBusy, resident_bytes

from .sinks import Sink, numbers

MOST_WAITING = 32
"""Records whose numbers are still being computed."""
SYSTEM_SECONDS = 1.0
"""Between two records that hold steps per second and memory."""


class Recorder:
    """A run that a loop of your own records, for `coherence watch`, `show`, `compare`, `report`.

        with Recorder("runs/mine/seed=0", {"learning_rate": 0.1}, also=[WandB("mine")]) as recorder:
            for step in range(1000):
                params, loss, gradients = update(params)
                recorder.record(step, {"train_loss": loss}, params=params, gradients=gradients)

    Numbers may be JAX's arrays: a record waits until they are computed, so that the device need not
    wait for it; a kill can take those that wait, at most `MOST_WAITING`. `Probe.record` writes to
    it, too.

    Args:
        path: the run's folder.
        settings: plain values; with the seed they make the run this run.
        seed: its seed.
        start: the step that is recorded next, where a checkpoint of yours is gone on from: records
            of it and of later ones, which a killed process left, are dropped.
        also: other programs that get a copy (`coherence.lab.recording`: `WandB`, `Trackio`,
            `MLflow`, `TensorBoard`, or any `Sink`). One that fails is left out from then on, with a
            warning.
        look_every: steps between two looks at parameters and gradients.

    Raises:
        RunMismatch: the folder holds another run.
        RunBusy: another process writes to it.
        RuntimeError: the run is finished; a package of `also` is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        settings: Mapping[str, Any] | None = None,
        *,
        seed: int = 0,
        start: int = 0,
        also: Sequence[Sink] = (),
        look_every: int = 100,
    ):
        if look_every < 1:
            raise ValueError(f"Recorder(look_every): at least 1 step, got {look_every}.")
        self.run = Run.open(path, dict(settings or {}), seed=seed)
        if self.run.done:
            raise RuntimeError(
                f"{self.run.path} is finished: give this one another folder, or delete that."
            )
        self.run.truncate(start - 1)
        self._look_every = look_every
        self._waiting: deque[dict[str, Any]] = deque()
        self._looked: int | None = None  # at which step
        self._start: Any = None  # parameters, copies
        self._before: tuple[int, Any] | None = None
        self._sinks: list[Sink] = []
        try:
            for sink in also:
                sink.begin(self.run)
                self._sinks.append(sink)
        except BaseException:
            self.close()
            raise
        self._system = time.monotonic(), start

    def record(
        self,
        step: int,
        values: Mapping[str, Any] | None = None,
        *,
        params: Any = None,
        gradients: Any = None,
    ) -> None:
        """Record numbers of a step, by name; now and then also what the parameters do.

        At the first record and the first from each multiple of `look_every` on, where `params` are
        given: `distance_from_start` (of the first that this recorder was given),
        `parameter_histogram`, and with the record after that `update_size`, the norm of what a step
        changed; where `gradients` are: `gradient_norm` and `gradient_histogram`. About once a
        second steps per second and the process' memory.

        Args:
            step: the number of steps done, or any other count that grows.
            values: numbers, lists, or dicts by layer; numpy's arrays are copied.
            params: the parameters after the step, a tree of JAX's or numpy's arrays. They may be
                donated afterwards.
            gradients: the gradients of the step.
        """
        step = int(step)
        entry = {"step": step, **_copied(values or {})}
        if params is not None or gradients is not None:
            entry |= self._look(step, params, gradients)
        now, (before, steps) = time.monotonic(), self._system
        if now - before >= SYSTEM_SECONDS:
            entry |= _system((step - steps) / (now - before))
            self._system = now, step
        self._waiting.append(entry)
        while len(self._waiting) > MOST_WAITING or (self._waiting and _is_ready(self._waiting[0])):
            self._write(self._waiting.popleft())
        self.run.reach(step)

    def _look(self, step: int, params: Any, gradients: Any) -> dict[str, Any]:
        """Numbers of the parameters and gradients where a look is due, as JAX's arrays."""
        from .looking import copy, distance, look

        seen: dict[str, Any] = {}
        if self._before is not None and params is not None and step > self._before[0]:
            before, self._before = self._before, None
            seen["update_size"] = distance(params, before[1]) / (step - before[0])
        every = self._look_every
        if self._looked is None or step // every > self._looked // every:
            self._looked = step
            if params is not None:
                mine = copy(params)
                self._start = mine if self._start is None else self._start
                self._before = step, mine
            seen |= look(params, self._start, gradients)
        return seen

    def _flush(self) -> None:
        """Write the records that wait."""
        while self._waiting:
            self._write(self._waiting.popleft())

    def _write(self, entry: dict[str, Any]) -> None:
        """Write a record and hand copies of its numbers on."""
        record = json.loads(to_json(entry, "record")) if self._sinks else entry
        self.run.append(record)
        for sink in list(self._sinks):
            self._try(sink, lambda sink: sink.write(record["step"], dict(numbers(record))))

    # What a probe writes to

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record at once, after those that wait."""
        self._flush()
        self._write(dict(record))

    def save(self, name: str, /, **arrays: Any) -> None:
        """Write `NAME.npz` into the run's folder."""
        self.run.save(name, **arrays)

    def annotate(self, **facts: Any) -> None:
        """Add facts to the run's manifest."""
        self.run.annotate(**facts)

    @property
    def axes(self) -> Mapping[str, Any]:
        """What the axes of recorded values are; see `Run.axes`."""
        return self.run.axes

    # The end

    def finish(self, summary: dict[str, Any] | None = None) -> None:
        """Mark the run as whole. Nothing can be recorded afterwards."""
        self._flush()
        self.run.finish(summary)
        self._end(done=True)

    def close(self) -> None:
        """Stop recording; a run that is not finished can be gone on with."""
        if not self.run.done:
            self._flush()
        self._end(done=False)
        self.run.close()

    def _end(self, done: bool) -> None:
        for sink in list(self._sinks):
            self._try(sink, lambda sink: sink.end(done))
        self._sinks = []

    def _try(self, sink: Sink, act: Any) -> None:
        """What another program does wrong must not end the training."""
        try:
            act(sink)
        except Exception as error:
            self._sinks = [other for other in self._sinks if other is not sink]
            name = type(sink).__name__
            warnings.warn(
                f"{name} gets no more of {self.run.path} ({type(error).__name__}: {error}); the "
                "run itself goes on.",
                stacklevel=4,
            )

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the run; where an error ends the loop, leave it open and keep the error."""
        if error is None and not self.run.done:
            self.finish()
        elif error is not None and not self.run.done:
            while self._waiting:
                with contextlib.suppress(Exception):  # the error may be why one cannot be written
                    self._write(self._waiting.popleft())
            with contextlib.suppress(RunBusy):
                self.run.fail(error)
        self.close()


def _copied(value: Any) -> Any:
    """A value that stays what it is while it waits; JAX's arrays cannot change."""
    if isinstance(value, Mapping):
        return {name: _copied(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(part) for part in value]
    return value.copy() if isinstance(value, np.ndarray) else value


def _is_ready(value: Any) -> bool:
    """Whether all arrays in a value are computed."""
    if isinstance(value, Mapping):
        return all(map(_is_ready, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_ready, value))
    return not hasattr(value, "is_ready") or value.is_ready()


def _system(rate: float) -> dict[str, float]:
    memory = resident_bytes()
    speed = {"system/steps_per_second": rate}
    return speed if memory is None else {**speed, "system/memory_mb": memory / 2**20}
