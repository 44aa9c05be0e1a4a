"""The training loop: it advances, measures, records and checkpoints.

It knows no model, no data set and no optimizer.
"""

from __future__ import annotations

import functools
import operator
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from coherence.lab.runs import Run
from coherence.lab.runs.files import to_json
from coherence.probes.costs import cost, operations

from .agenda import Agenda
from .checkpoints import digest, from_arrays, to_arrays
from .devices import (
    Shard,
    any_says,
    compiles_side_by_side,
    first_says,
    placement,
    where,
    whole_on_each,
)
from .feeding import Resident, Streamed
from .order import batches
from .problem import Problem, check_watched, watched
from .programs import PROGRAMS
from .signals import leave, termination
from .step import TRACKED, Steps, compiled_measure, flat_axes, initial_state


def train(
    problems: Sequence[Problem],
    runs: Sequence[Run],
    *,
    steps: int,
    batch_size: int,
    schedule: Iterable[int],
    vmapped: bool | None = None,
    mesh: Mesh | None = None,
    shard: Shard | None = None,
    checkpoint_seconds: float = 20.0,
    progress: Callable[[int], object] | None = None,
    say: Callable[[str], object] | None = None,
) -> None:
    """Train a problem per seed, each recorded in its own run, or go on where a process was killed.

    The trajectory does not depend on what is measured, on the schedule or on where it was
    interrupted: on CPU a resumed run ends at the same bits. Asked to end by SIGTERM, it finishes
    the chunk, writes a checkpoint and says so.

    Args:
        problems: one `Problem` a seed, alike but for values.
        runs: one open `coherence.lab.runs.Run` per problem; its `seed` orders the batches. One
            that is finished is left alone, or goes on where more steps are asked for.
        steps, batch_size: how many steps of how many examples.
        schedule: steps at which `measure` is recorded, such as
            `coherence.probes.LogSpaced().steps(steps)`. Probes have their own.
        vmapped: compute the seeds side by side in one program; `None` lets `side_by_side` decide.
        mesh: devices among which the examples of batches and samples are divided (`devices.mesh_of`
            makes one), and before them the seeds that are side by side; `None` for a single device.
            Which they are is no part of what a run is: sums are taken in another order, as on
            another machine. Of several processes that share it (`jax.distributed`) each has runs in
            folders of its own, and those of the first decide where to go on.
        shard: which parameters are divided among the devices, such as `devices.LargestAxis(10**6)`;
            `None`: they are whole on each. Nor is this a part of what a run is.
        checkpoint_seconds: how often to write a checkpoint; one is always written at the end.
        progress: called with the number of (seed) steps done since the last call, or `None`.
        say: called with a line on what each probe will cost, before anything of it is computed, or
            `None`.

    Raises:
        ValueError: a number of steps that cannot be, a batch larger than the data; a stopping rule
            that watches what is not measured, is never asked, or has seeds side by side; a run that
            has come further than asked for, or was begun with other data.
        OSError: a disk that is full or gone; the runs keep what they had, up to the last
            checkpoint.
        Terminated: SIGTERM came; it is a `SystemExit` of status 143.
    """
    if not isinstance(steps, int | np.integer) or steps < 0:
        raise ValueError(f"train(steps): a whole number of steps, at least 0, got {steps!r}.")
    pending, ends = _pending(problems, runs, steps, mesh)
    digests = _digests(problems)
    for run, parts in zip(runs, digests):
        _check_data(run, parts)
    if not pending:
        return
    schedule = tuple(schedule)
    examples = jax.tree.leaves(pending[0][0].data["train"])[0].shape[0]
    if not 1 <= batch_size <= examples:
        raise ValueError(
            f"batch_size must be between 1 and the {examples} training examples, got {batch_size}."
        )
    check_watched(pending[0][0])
    if pending[0][0].stopping is not None and not any(0 < step <= steps for step in schedule):
        raise ValueError(
            "schedule: a stopping rule is asked at measurements, and none is scheduled between "
            f"steps 1 and {steps}. Schedule some, as with LogSpaced().steps({steps})."
        )
    if vmapped is None:
        place = placement(mesh, len(pending), shard)
        vmapped = side_by_side(pending[0][0]) and compiles_side_by_side(place)
    if vmapped and len(pending) > 1 and pending[0][0].stopping is not None:
        raise ValueError(
            "vmapped: seeds with early stopping end at different steps and run in turn; leave it "
            "at None, or set it to False."
        )
    for run, end in ends:
        if say is not None:
            say(f"{run.path} was finished at step {end:,} and goes on to {steps:,}")
        run.reopen()
    first = pending[0][0]
    data = {run.path: parts for run, parts in zip(runs, digests)}
    agenda = Agenda(first.probes, schedule, steps, examples // batch_size)
    groups = _groups(pending, vmapped, mesh)
    on_mesh = nullcontext() if mesh is None else jax.set_mesh(mesh)
    with termination() as asked_to_end, on_mesh:
        for members in groups:
            if any_says(mesh, asked_to_end())[0]:
                break
            for problem, run in members:
                run.save("drawn", **problem.drawn)
                for probe in problem.probes:
                    run.save(f"examples-{probe.name}", **probe.shown())
                run.annotate(
                    data=data[run.path],
                    **_place(run, mesh),
                    seeds_side_by_side=[run.seed for _, run in members],
                    axes=functools.reduce(
                        operator.or_, (probe.axes for probe in problem.probes), problem.axes
                    ),
                )
            group = _Group(first, members, steps, batch_size, agenda, progress, mesh, shard)
            if say is not None and members is groups[0]:
                group.announce(say)
            group.run(checkpoint_seconds, asked_to_end)


def _pending(problems, runs, steps, mesh):
    """The problems to train and their runs, and finished runs to go on with, with their ends."""
    if len(problems) != len(runs):
        raise ValueError(
            f"train: one run per problem, got {len(problems)} problems and {len(runs)} runs."
        )
    ends = []
    for run in runs:
        summary = (run.summary or {}) if run.done else {}
        end = summary.get("step", steps)
        if end > steps and not summary.get("stopped"):
            raise ValueError(
                f"{run.path} is finished at step {end:,}, beyond the {steps:,} steps asked for. "
                "Ask for as many, or train another run."
            )
        if run.done and end < steps and not summary.get("stopped"):
            ends.append((run, end))
    longer = [run for run, _ in ends]
    due = first_says(mesh, np.array([not run.done or run in longer for run in runs]))
    return [pair for pair, is_due in zip(zip(problems, runs), due) if is_due], ends


def _digests(problems):
    """`{part: digest}` of each problem's data; arrays that seeds share are read once."""
    known: dict[tuple[int, ...], str] = {}

    def of(part):
        leaves = tuple(id(leaf) for leaf in jax.tree.leaves(part))
        if leaves not in known:
            known[leaves] = digest(part)
        return known[leaves]

    return [{name: of(part) for name, part in problem.data.items()} for problem in problems]


def _check_data(run, parts):
    """Refuse other data than a run was begun with: half of it would have seen each."""
    before = run.manifest.get("data", {})
    changed = [name for name in parts if before.get(name, parts[name]) != parts[name]]
    if changed:
        settings = f" (settings: {to_json(run.config['data'])})" if "data" in run.config else ""
        raise ValueError(
            f"{run.path} was begun with other data: {', '.join(changed)} changed since{settings}. "
            "Bring the old file back, or delete that directory and run again."
        )


def _place(run, mesh):
    """What the manifest says of the devices that compute, of each process that resumed the run."""
    here, resumed = where(mesh), run.manifest.get("resumed", [])
    if not resumed or "device" not in run.manifest:
        return here
    return {"resumed": [*resumed[:-1], resumed[-1] | here]}


def _groups(pending, vmapped, mesh):
    """The problems and runs that advance together, group by group."""
    own = _side_by_side_groups([run for _, run in pending]) if vmapped else range(len(pending))
    numbers = first_says(mesh, np.array(own)).tolist()
    return [
        [pair for pair, number in zip(pending, numbers) if number == group]
        for group in range(max(numbers) + 1)
    ]


def _side_by_side_groups(runs):
    """A group each, of those that go on from one step: a seed added later leaves others alone."""
    common: list[set[int]] = []
    numbers = []
    for run in runs:
        saved = set(run.checkpoints())
        fits = (i for i, steps in enumerate(common) if steps & saved or not steps | saved)
        number = next(fits, len(common))
        common[number : number + 1] = [common[number] & saved if common[number:] else saved]
        numbers.append(number)
    return numbers


def side_by_side(problem: Problem) -> bool:
    """Whether computing seeds in one program pays: on accelerators, not on CPU.

    There XLA multiplies batches of small matrices in a loop's body by its slow path, and order
    statistics already fill the vector units and the cache with one seed
    (`benchmarks/training_loop.py` measures both). Early stopping ends each seed at its own step, so
    those run in turn everywhere.
    """
    return problem.stopping is None and jax.default_backend() != "cpu"


class _Group:
    """Seeds that advance together.

    All groups share the programs of the first problem: the others differ from it in values alone.
    """

    def __init__(self, first, members, steps, batch_size, agenda, progress, mesh, shard):
        problems, runs = zip(*members)
        self.first, self.runs, self.many = first, runs, len(runs) > 1
        self.steps, self.batch_size, self.agenda, self.mesh = steps, batch_size, agenda, mesh
        self.progress = progress or (lambda n: None)
        self.samples = [
            [whole_on_each(probe.sample, mesh) for probe in problem.probes] for problem in problems
        ]
        self.examples = jax.tree.leaves(first.data["train"])[0].shape[0]
        self.tracked = np.full((len(runs), steps, len(TRACKED)), np.nan, np.float32)
        self.placement = placement(mesh, len(runs), shard)
        states = [initial_state(problem) for problem in problems]
        self.state = self._placed(states)
        self.data, axes = self._data([problem.resident for problem in problems])
        train = [problem.data["train"] for problem in problems]
        self.feed: Resident | Streamed
        if first.streamed:
            self.feed = Streamed(train, self.many, self.placement)
            train_axes = flat_axes(jax.tree.map(lambda _: 0, train[0])) if self.many else None
        else:
            self.feed = Resident(self.data["train"], self.many)
            train_axes = flat_axes(axes["train"]) if self.many else None
        program = PROGRAMS.get(Steps, first.recipe, train_axes, self.placement)
        most = self.feed.most_steps(batch_size)
        self.chunk = min(most, program.chunk(states[0], train[0], batch_size))
        self.advance = program.advance(self.chunk)
        self.advance_whole = program.advance(self.chunk, whole=True)
        own_axes = flat_axes(axes) if self.many else None
        self.measure = PROGRAMS.get(compiled_measure, first.measure, own_axes, self.placement)
        self.next = None

    def _placed(self, states):
        """The seeds' states as one, where it belongs."""
        state = jax.tree.map(lambda *x: jnp.stack(x), *states) if self.many else states[0]
        return state if self.placement is None else self.placement.put(state, stacked=self.many)

    def _data(self, parts):
        """The seeds' data on the devices, and where they are side by side the axes to vmap over."""
        if not self.many:
            return whole_on_each(jax.tree.map(jnp.asarray, parts[0]), self.mesh), None
        data, axes = _stack(parts)
        if self.placement is not None:
            place = lambda x, axis: jax.device_put(
                x, self.placement.sharding(stacked=axis is not None)
            )
            data = jax.tree.map(place, data, axes)
        return data, axes

    def announce(self, say):
        """Say what probes will cost against the training itself, from shapes."""
        if not self.first.probes:
            return
        lowered = self.advance.lower(self.state, *self._batches(0, 0))  # a loop's body counts once
        training = operations(lowered) / len(self.runs) * self.steps
        for probe, times in zip(self.first.probes, self.agenda.counts()):
            price = cost(probe, self.first.params)
            say(
                f"probe {probe.name}: {len(probe.quantities)} quantities at {times} of "
                f"{self.steps:,} steps; {price}; "
                f"{price.operations * times / training:.1%} of the training"
            )

    def run(self, checkpoint_seconds, asked_to_end):
        position = self._resume()
        if position is None:
            self._record(position := 0)
        saved, began, stopped = position, time.monotonic(), self._stopped()
        while position < self.steps and not stopped:
            late = time.monotonic() - began > checkpoint_seconds
            to_end, late = any_says(self.mesh, asked_to_end(), late)
            if to_end or (late and position > saved):
                self._checkpoint(position)
                saved, began = position, time.monotonic()
            if to_end:
                others = f" and {len(self.runs) - 1} more" if self.many else ""
                leave(f"checkpoint of step {position:,} written to {self.runs[0].path}{others}")
            goal = self._goal(position)
            self._step_to(position, goal)
            self.progress((goal - position) * len(self.runs))
            position = goal
            for run in self.runs:
                run.reach(position)
            self._record(position)
            stopped = self._stopped()
        self._checkpoint(position)
        for run, params in zip(self.runs, self._each(self.state["params"])):
            run.save("params", **to_arrays(params))
            run.finish({"step": position, **self._keep_best(run)})

    def _keep_best(self, run):
        """Save a stopping rule's best parameters as `best_params.npz`; returns its summary."""
        if self.first.stopping is None:
            return {}
        stopping = self.state["stopping"]
        run.save("best_params", **to_arrays(stopping.best_params))
        return {"stopped": bool(stopping.should_stop), "best_metric": float(stopping.best_metric)}

    def _each(self, tree):
        """One tree a seed."""
        if not self.many:
            return [tree]
        return [jax.tree.map(lambda x: x[i], tree) for i in range(len(self.runs))]

    def _goal(self, position):
        """The step up to which a call goes."""
        return min(position + self.chunk, self.agenda.next(position))

    def _step_to(self, position, goal):
        given, self.next = self.next or self._batches(position, goal), None
        n = goal - position
        advance = self.advance_whole if n == self.chunk else self.advance
        self.state, tracked = advance(self.state, *given)
        if self.first.streamed and goal < self.steps:  # read while the devices compute
            self.next = self._batches(goal, self._goal(goal))
        self.tracked[:, position:goal] = np.asarray(tracked).reshape(
            len(self.runs), self.chunk, -1
        )[:, :n]

    def _batches(self, position, goal):
        """What the compiled steps are given besides the state."""
        n = goal - position
        indices = np.zeros((len(self.runs), self.chunk, self.batch_size), np.int32)
        for own, run in zip(indices, self.runs):
            if n:
                own[:n] = batches(
                    run.seed, position, goal, examples=self.examples, batch_size=self.batch_size
                )
        return *self.feed.take(indices, n), n

    def _record(self, position):
        """Append a record of what is due at this step: measurements and probes' readings."""
        records = self._read(position)
        if position in self.agenda.schedule:
            measured = jax.device_get(self.measure(self.state["params"], self.data))
            for record, values in zip(records, self._each(measured)):
                record |= {name: np.asarray(value).tolist() for name, value in values.items()}
            if self.first.stopping is not None:
                metric = watched(self.first.stopping, {**measured, "step": position})
                self.state["stopping"] = self.first.stopping[0].update(
                    self.state["stopping"], metric, self.state["params"]
                )
        for run, record in zip(self.runs, records):
            if record:
                run.append({"step": position, **record})

    def _read(self, position):
        """The readings of the probes that are due, a dict a seed."""
        records: list[dict[str, Any]] = [{} for _ in self.runs]
        losses = self.tracked[:, :position, TRACKED.index("loss")]
        due = [self.agenda.due(position, own, run.path) for own, run in zip(losses, self.runs)]
        if any(due):
            for record, params, samples, which in zip(
                records, self._each(self.state["params"]), self.samples, due
            ):
                for i in which:
                    record |= self.first.probes[i](params, samples[i])
        return records

    def _stopped(self):
        return self.first.stopping is not None and bool(self.state["stopping"].should_stop)

    def _checkpoint(self, position):
        for i, (run, state) in enumerate(zip(self.runs, self._each(self.state))):
            run.save("batches", **dict(zip(TRACKED, self.tracked[i, :position].T)))
            run.checkpoint(position, to_arrays(state))

    def _resume(self):
        """Put every seed at the newest step that all have a checkpoint of; `None` without one."""
        common = set.intersection(*(set(run.checkpoints()) for run in self.runs))
        position = int(first_says(self.mesh, np.array(max(common, default=-1))))
        if position > self.steps:
            raise ValueError(
                f"{self.runs[0].path} has come to step {position:,}, beyond the {self.steps:,} "
                "steps asked for. Ask for as many, or train another run."
            )
        for run in self.runs:
            run.truncate(position)
        if position < 0:
            return None
        states = []
        for i, (run, state) in enumerate(zip(self.runs, self._each(self.state))):
            # Another than the first process has no checkpoint, but arrays of the same shapes.
            arrays = (
                run.restore(position)
                if position in common
                else to_arrays(initial_state(self.first))
            )
            states.append(from_arrays(state, first_says(self.mesh, arrays)))
            if position in common:
                kept = run.load("batches")
                batches_so_far = np.stack([kept[name][:position] for name in TRACKED], -1)
                self.tracked[i, :position] = batches_so_far
        self.tracked = first_says(self.mesh, self.tracked)
        self.state = self._placed(states)
        self.progress(position * len(self.runs))
        return position


def _stack(trees):
    """Seeds' data in one tree, what they share held once, and the axes to vmap over."""
    leaves, treedef = zip(*(jax.tree.flatten(tree) for tree in trees))
    shared = [all(x is column[0] for x in column) for column in zip(*leaves)]
    stacked = [
        jnp.asarray(column[0]) if same else jnp.stack([jnp.asarray(x) for x in column])
        for same, column in zip(shared, zip(*leaves))
    ]
    return treedef[0].unflatten(stacked), treedef[0].unflatten(
        [None if same else 0 for same in shared]
    )
