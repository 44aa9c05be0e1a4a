"""Probes: quantities of a fixed sample at frozen parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.typing import ArrayLike

from coherence.display import Readings
from coherence.gradients.jax_internals import is_traced
from coherence.metrics.batching import count_examples, is_key, take
from coherence.trees import LeafFilter, Loss, PyTree

from .arguments import check, count_groups, group_numbers
from .presets import Chosen, select_quantities
from .reader import Reader, Sample
from .schedules import AtLoss, LogSpaced, Schedule, Watch

# A stream of its own: with the seed alone the few would be what anything else drew with that seed.
_STREAM = 0xFE


class Recorder(Protocol):
    """What `Probe.record` writes to: a run (`coherence.lab.runs.Run`)."""

    @property
    def axes(self) -> Mapping[str, Any]: ...
    def append(self, record: Mapping[str, Any]) -> None: ...
    def save(self, name: str, /, **arrays: Any) -> None: ...
    def annotate(self, **facts: Any) -> None: ...


class Probe:
    """Measures a fixed sample while anything trains. It reads parameters and changes nothing.

    All quantities share one pass: per-example gradients of `batch_size` examples at a time become
    means, and those of a fixed `few` examples are kept for what is quadratic in their number. Call
    it with parameters:

    >>> loss = lambda w, x: jnp.dot(w, x)
    >>> probe = Probe(loss, jnp.eye(4), quantities="light")
    >>> {name: round(value, 3) for name, value in probe(jnp.ones(4)).items()}
    {'train/gradient_norm': 0.5, 'train/loss': 1.0, 'train/m_coherence': 1.0}

    Args:
        loss: `(params, example) -> scalar` for one example. For a random loss put a fixed key per
            example into the sample. Programs are compiled for each loss anew: make the function
            once, not once a seed.
        examples: the sample: a pytree of arrays with a shared leading axis.
        quantities: names of presets ("light", "standard", "examples", "full", "histograms") and of
            quantities ("evidence"), `Quantity`s and functions of a `View`; one, or several mixed.
        name: what the readings' names start with: NAME/QUANTITY.
        only: a function from a leaf's key path to whether its gradients count (`None`: all), as for
            `per_example_value_and_grad`.
        when: a schedule: `LogSpaced`, `Every`, `Epochs`, `AtLoss`. Asked by `due`.
        groups: bool [m] (False first) or int [m] with `num_groups`: pristine and corrupt examples,
            classes.
        group_names: what reports call them, as ("pristine", "corrupt").
        batch_size: examples differentiated at a time, which bounds the memory.
        few: how many examples pairwise and per-example quantities look at (all of a smaller
            sample).
        seed: which examples the few are, and what quantities draw with `View.key`.

    Raises:
        ValueError: an unknown name, two quantities of one name, an empty sample, leaves or groups
            that disagree about the number of examples, a name, batch size or few that cannot be.
        TypeError: a loss that is no function, a schedule that is none, a sample that is no pytree
            of arrays.
    """

    def __init__(
        self,
        loss: Loss,
        examples: PyTree,
        *,
        quantities: Chosen | Iterable[Chosen] = "standard",
        name: str = "train",
        when: Schedule | None = None,
        only: LeafFilter | None = None,
        groups: ArrayLike | None = None,
        num_groups: int | None = None,
        group_names: Sequence[str] | None = None,
        batch_size: int = 1000,
        few: int = 512,
        seed: int = 0,
    ):
        when = LogSpaced() if when is None else when
        check(loss, examples, name, when, batch_size, few)
        m, count = count_examples(examples), count_groups(groups, num_groups)
        if group_names is not None and len(group_names) != count:
            raise ValueError(
                f"group_names must be one name a group, {count}, got {list(group_names)}."
            )
        self.name, self.when, self.group_names = name, when, group_names
        self.quantities = select_quantities(quantities)
        self.reader = Reader(loss, self.quantities, min(batch_size, m), count, only)
        chosen = np.sort(np.random.default_rng([seed, _STREAM]).permutation(m)[:few])
        numbers = group_numbers(groups, num_groups, m)
        self.sample = Sample(
            examples=examples,
            groups=numbers,
            few=take(examples, chosen),
            few_groups=None if numbers is None else numbers[chosen],
            chosen=chosen.astype(np.int32),
            seed=np.uint32(seed),
        )
        self._schedule: tuple[Any, set[int]] | None = None
        self._losses: list[float] = []
        self._watch = Watch(when) if isinstance(when, AtLoss) else None
        self._run: Recorder | None = None

    def __call__(self, params: PyTree, sample: Sample | None = None) -> Readings:
        """Readings at these parameters: `{NAME/QUANTITY: number, nested list, or dict by layer}`.

        nan and infinity stay what they are.

        Args:
            params: what the loss takes.
            sample: another `Sample` of the same shapes (another seed's), for which nothing is
                compiled anew.
        """
        if sample is not None and not isinstance(sample, Sample):
            raise TypeError(
                "sample must be another probe's, probe(params, other.sample), got "
                f"{type(sample).__name__}."
            )
        if any(is_traced(x) for x in jax.tree.leaves(params)):
            raise TypeError(
                "a probe is called between steps, not inside jit: there read a batch's own "
                "gradients, batch_readings(losses, g)."
            )
        values = jax.device_get(self.reader.read(params, self.sample if sample is None else sample))
        plain = lambda value: jax.tree.map(lambda x: np.asarray(x).tolist(), value)
        return Readings({f"{self.name}/{name}": plain(value) for name, value in values.items()})

    def record(
        self, run: Recorder, step: int, params: PyTree, more: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Read the probe and write one record of the step to a run; returns the readings.

        The first call for a run also keeps the few as `examples-NAME` and says what the axes of the
        readings are: reports then show the right examples and groups.

        Args:
            run: a `coherence.lab.runs.Run` that is open.
            step: the number of steps done.
            more: other numbers of the same step, by name; another probe's readings, for example.
        """
        readings = self(params)
        if self._run is not run:
            run.save(f"examples-{self.name}", **self.shown())
            run.annotate(axes={**run.axes, **self.axes})
            self._run = run
        run.append({"step": int(step), **(more or {}), **readings})
        return readings

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """What the axes of recorded values are, `{NAME/QUANTITY: ("group",)}`, but for numbers."""
        axes: dict[str, tuple[str, ...]] = {}
        for quantity in self.quantities:
            name = f"{self.name}/{quantity.name}"
            if isinstance(quantity.axes, dict):
                axes |= {f"{name}_{field}": value for field, value in quantity.axes.items()}
            elif quantity.axes:
                axes[name] = quantity.axes
        return axes

    def due(
        self,
        step: int,
        total: int | None = None,
        *,
        per_epoch: int | None = None,
        loss: ArrayLike | None = None,
    ) -> bool:
        """Whether to measure now, in a loop of your own.

        Ask before every step and once after the last.

        Args:
            step: the number of steps done; 0 before the first, where a new run begins.
            total: how many there will be; `None` for a loop without an end.
            per_epoch: steps in an epoch, for `Epochs`.
            loss: the training loss of the step just done, for `AtLoss`, which wants it after every
                step.
        """
        step = int(step)
        del self._losses[step:]
        if loss is not None and len(self._losses) < step:
            self._losses.append(float(loss))  # type: ignore[arg-type]  # a scalar
        horizon = total if total is not None else max(10 ** len(str(step)), 10)
        if self._schedule is None or self._schedule[0] != (horizon, per_epoch):
            steps = set(self.when.steps(horizon, per_epoch))
            if total is None:
                steps.discard(horizon)
            self._schedule = (horizon, per_epoch), steps
        if step in self._schedule[1]:
            return True
        return self._watch is not None and self._watch.due(self._losses)

    def shown(self) -> dict[str, np.ndarray]:
        """The few as arrays to keep beside the readings.

        Pictures, labels, groups and what these are called, and `index`, places in the sample.
        """
        few, groups = self.sample.few, self.sample.few_groups
        if isinstance(few, tuple | list):
            few = dict(zip(("inputs", "labels"), few))
        elif not isinstance(few, dict):
            few = {"inputs": few}
        arrays = {str(name): np.asarray(x) for name, x in few.items() if _is_numbers(x)}
        if "labels" in arrays:
            arrays["labels"] = _classes(arrays["labels"])
        arrays = {name: _small(array) for name, array in arrays.items()}
        if groups is not None:
            arrays["group"] = np.asarray(groups)
        if self.group_names is not None:
            arrays["group_names"] = np.array(self.group_names)
        return {**arrays, "index": np.asarray(self.sample.chosen)}


def _is_numbers(x: Any) -> bool:
    return not is_key(x) and hasattr(x, "dtype") and np.dtype(x.dtype).kind in "biuf"


def _classes(labels: np.ndarray) -> np.ndarray:
    """The class of each one-hot row; other labels as they are."""
    if labels.ndim != 2 or labels.shape[1] < 2:
        return labels
    one_hot = np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all()
    return labels.argmax(1) if one_hot else labels


def _small(array: np.ndarray) -> np.ndarray:
    """Pictures as bytes: what a report shows needs no more."""
    shaped_like_pictures = array.dtype.kind == "f" and array.ndim > 1 and array.size
    if shaped_like_pictures and array.min() >= 0 and array.max() <= 1:
        return np.round(array * 255).astype(np.uint8)
    return array
