"""What a run needs, and nothing about where it is recorded."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from coherence.probes.probe import Probe


class Recipe(NamedTuple):
    """What the program of a training step depends on, besides the shapes of its arguments."""

    loss: Callable
    update: Callable
    per_example: bool
    track_batches: bool
    draws: bool
    move: Callable | None = None


@dataclasses.dataclass(frozen=True)
class Problem:
    """A training problem: per-example loss, initial parameters, data, optimizer, measurements.

    Args:
        loss: `(params, example) -> scalar` for one example.
        params: the initial parameters.
        data: a pytree of arrays; `data["train"]` holds the examples the batches are taken from
            (shared leading axis). Leaves that are the same object in several seeds' problems are
            held once.
        optimizer: an optax transformation: an aggregator first (`coherence.optim.chain`) where
            `per_example`, else any.
        per_example: whether the optimizer takes per-example gradients; else it gets the batch's
            mean gradient.
        measure: `(params, data) -> {name: array}`, jit-able, reads frozen weights: what is recorded
            at the scheduled steps. Seeds share one compiled `measure`: what differs between them
            comes from `data`, not from a closure.
        axes: what the axes of the arrays that `measure` returns are, `{name: ("group",)}`; a dict
            is by layer where nothing is said. Reports go by them.
        track_batches: record the loss and the `moments` of every training batch's per-example
            gradients.
        drawn: arrays that were drawn at random for this seed and that a reader of the run may ask
            for, kept with it as `drawn.npz`.
        stopping: an early-stopping rule (`coherence.optim.stopping`) and the name of the number
            it watches, or `None`. Besides what `measure` returns there is always `"step"`. `any_of`
            watches a tuple of names, one a rule. The rule is asked at every measurement; its best
            parameters are kept with the finished run as `best_params.npz`.
        noise: a key, for a random loss: every example of a batch, a tuple, then ends with a key of
            its own, fresh at each step. What `measure` and probes look at has keys of its own, in
            `data` and in the sample. `None`: the loss draws nothing.
        chains: `(rows, move)`, such as a sampler's persistent chains: arrays of leading axis
            `batch_size`, and `move(params, row, key)`, which takes each a step on, with a key of
            its own, before the gradient is taken. Example i of a batch then ends with row i in
            place of a key. Needs `noise`, and goes into checkpoints.
        streamed: whether `data["train"]` stays on the host, for it is more than a device holds, and
            batches of it are placed as they are needed. Its leaves are numpy arrays, such as
            `np.memmap`; `measure` gets the data without them.
        probes: `coherence.probes.Probe`s; their readings join the records at the steps their
            schedules name. Seeds share the programs of the first one's.

    >>> loss = lambda w, x: jnp.sum((w - x) ** 2)
    >>> problem = Problem(loss, jnp.zeros(2), {"train": jnp.ones((4, 2))}, optax.sgd(0.1))
    >>> problem.per_example
    False
    """

    loss: Callable
    params: Any
    data: Any
    optimizer: optax.GradientTransformation
    per_example: bool = False
    measure: Callable = lambda params, data: {}
    axes: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    track_batches: bool = False
    stopping: tuple[Any, str] | None = None
    drawn: dict[str, Any] = dataclasses.field(default_factory=dict)
    probes: tuple[Probe, ...] = ()
    noise: jax.Array | None = None
    chains: tuple[Any, Callable] | None = None
    streamed: bool = False

    def __post_init__(self):
        if self.chains is not None and self.noise is None:
            raise ValueError("chains are moved at random: give a key, noise=jax.random.key(0).")
        if self.noise is not None and not isinstance(self.data["train"], tuple):
            kind = type(self.data["train"]).__name__
            raise TypeError(
                "noise puts a key at the end of every example: data['train'] is a tuple, (x,) or "
                f"(x, y), got {kind}."
            )

    @property
    def resident(self) -> Any:
        """The data that lie on devices; `measure` gets them."""
        if not self.streamed:
            return self.data
        return {name: part for name, part in self.data.items() if name != "train"}

    @property
    def recipe(self) -> Recipe:
        """What its step is made of: with equal recipes and shapes, problems share a program."""
        return Recipe(
            self.loss,
            self.optimizer.update,
            self.per_example,
            self.track_batches,
            self.noise is not None,
            None if self.chains is None else self.chains[1],
        )

    def extended(
        self, *, measure: Callable | None = None, data: dict | None = None, **changes
    ) -> "Problem":
        """This problem, with more that is measured and more data.

        Args:
            measure: `(params, data) -> {name: array}`, recorded besides what is measured already.
            data: further arrays, by name, which `measure` finds in its `data`.
            **changes: other fields, replaced.

        Raises:
            ValueError: data of a name that there is already.
        """
        if taken := sorted(set(data or {}) & set(self.data)):
            raise ValueError(
                f"extended(data): the problem has {', '.join(taken)} already. Take another name, "
                "or replace it: dataclasses.replace(problem, data=...)."
            )
        if measure is not None:
            changes["measure"] = Measures((self.measure, measure))
        return dataclasses.replace(self, data={**self.data, **(data or {})}, **changes)


@dataclasses.dataclass(frozen=True)
class Measures:
    """Several `measure`s as one; equal where they are, so that their program is compiled once."""

    parts: tuple[Callable, ...]

    def __call__(self, params, data):
        return {name: value for part in self.parts for name, value in part(params, data).items()}


def watched(stopping: tuple[Any, Any], measured: dict[str, Any]) -> Any:
    """The measured number that a stopping rule watches; a tuple of them for a tuple of names."""
    return jax.tree.map(lambda name: measured[name], stopping[1])


def check_watched(problem: Problem) -> None:
    """Refuse a stopping rule that watches what is not measured; nothing is computed.

    Raises:
        ValueError: there is no such quantity, it is no single number, or the rule wants another
            number of them.
    """
    if problem.stopping is None:
        return
    rule, names = problem.stopping
    measured = {
        **jax.eval_shape(problem.measure, problem.params, problem.resident),
        "step": jax.ShapeDtypeStruct((), jnp.int32),
    }
    for name in jax.tree.leaves(names):
        if name not in measured:
            raise ValueError(
                f"stopping watches {name!r}, which measure does not return; there is "
                f"{', '.join(sorted(measured))}."
            )
        if measured[name].shape:
            raise ValueError(
                f"stopping watches {name!r}, an array of shape {list(measured[name].shape)}: a "
                "rule needs one number."
            )
    jax.eval_shape(
        lambda params, metric: rule.update(rule.init(params), metric, params),
        problem.params,
        watched((rule, names), measured),
    )
