"""A probe: quantities of a fixed sample at frozen parameters."""

import jax
import jax.numpy as jnp
import numpy as np

from coherence.jax_internals import is_traced
from coherence.metrics.batching import count_examples, take

from .arguments import check, count_groups, group_numbers
from .presets import preset
from .reader import Reader, Sample
from .schedules import AtLoss, Log

_STREAM = 0xFE  # a stream of its own: with the seed alone the few would be those that anything else drew with that seed


class Probe:
    """Measures a fixed sample while anything trains. It reads parameters and changes nothing.

    All quantities share one pass: per-example gradients of `batch_size` examples at a time become
    means, and those of a fixed `few` examples are kept for what is quadratic in their number. Call
    it with parameters:

    >>> loss = lambda w, x: jnp.dot(w, x)
    >>> probe = Probe(loss, jnp.eye(4), quantities="light")
    >>> {name: round(value, 3) for name, value in probe(jnp.ones(4)).items()}
    {'train/loss': 1.0, 'train/m_coherence': 1.0, 'train/gradient_norm': 0.5}

    Args:
        loss: `(params, example) -> scalar` for one example. For a random loss put a fixed key per
            example into the sample. Programs are compiled for each loss anew: make the function
            once, not once a seed.
        examples: the sample: a pytree of arrays with a shared leading axis.
        quantities: "light", "standard", "examples", "full", or a sequence of `Quantity`.
        name: what the readings' names start with: NAME/QUANTITY.
        only: a function from a leaf's key path to whether its gradients count (`None`: all), as for
        `per_example_value_and_grad`.
        when: a schedule: `Log`, `Every`, `Epochs`, `AtLoss`. Asked by `due`.
        groups: bool [m] (False first) or int [m] with `num_groups`: pristine and corrupt examples,
        classes.
        group_names: what reports call them, as ("pristine", "corrupt").
        batch_size: examples differentiated at a time, which bounds the memory.
        few: how many examples pairwise and per-example quantities look at (all of a smaller
        sample).
        seed: which examples the few are.

    Raises:
        ValueError: an unknown preset, two quantities of one name, an empty sample, leaves or groups
            that disagree about the number of examples, a name, batch size or few that cannot be.
        TypeError: a loss that is no function, a schedule that is none, a sample that is no pytree
            of arrays.
    """

    def __init__(
        self,
        loss,
        examples,
        *,
        quantities="standard",
        name="train",
        when=None,
        only=None,
        groups=None,
        num_groups=None,
        group_names=None,
        batch_size=1000,
        few=512,
        seed=0,
    ):
        when = Log() if when is None else when
        check(loss, examples, name, when, batch_size, few)
        m, many = count_examples(examples), count_groups(groups, num_groups)
        if group_names is not None and len(group_names) != many:
            raise ValueError(
                f"group_names must be one name a group, {many}, got {list(group_names)}."
            )
        self.name, self.when, self.quantities, self.group_names = (
            name,
            when,
            preset(quantities),
            group_names,
        )
        self.reader = Reader(loss, self.quantities, min(batch_size, m), many, only)
        chosen = np.sort(np.random.default_rng([seed, _STREAM]).permutation(m)[:few])
        numbers = group_numbers(groups, num_groups, m)
        self.sample = Sample(
            examples,
            numbers,
            take(examples, chosen),
            None if numbers is None else numbers[chosen],
            chosen.astype(np.int32),
        )
        self._schedule: tuple | None = None
        self._losses: list[float] = []

    def __call__(self, params, sample=None):
        """`{NAME/QUANTITY: number, nested list, or dict by layer}` at these parameters; nan and infinity stay what they are.

        Args:
            params: what the loss takes.
            sample: another `Sample` of the same shapes (another seed's), for which nothing is
                compiled anew.
        """
        if sample is not None and not isinstance(sample, Sample):
            raise TypeError(
                f"sample must be another probe's, probe(params, other.sample), got {type(sample).__name__}."
            )
        if any(is_traced(x) for x in jax.tree.leaves(params)):
            raise TypeError(
                "a probe is called between steps, not inside jit: there read a batch's own gradients, batch_readings(losses, g)."
            )
        found = jax.device_get(self.reader.read(params, self.sample if sample is None else sample))
        return {
            f"{self.name}/{name}": jax.tree.map(lambda x: np.asarray(x).tolist(), value)
            for name, value in found.items()
        }

    @property
    def axes(self):
        """What the axes of recorded values are, `{NAME/QUANTITY: ("group",)}`; numbers are left out."""
        axes = {}
        for quantity in self.quantities:
            name = f"{self.name}/{quantity.name}"
            if isinstance(quantity.axes, dict):
                axes |= {f"{name}_{field}": value for field, value in quantity.axes.items()}
            elif quantity.axes:
                axes[name] = quantity.axes
        return axes

    def due(self, step, total=None, *, per_epoch=None, loss=None):
        """Whether to measure now, in a loop of your own. Ask before every step and after the last: `for step in range(total + 1)`.

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
            self._losses.append(float(loss))
        horizon = total if total is not None else max(10 ** len(str(step)), 10)
        if self._schedule is None or self._schedule[0] != (horizon, per_epoch):
            steps = set(self.when.steps(horizon, per_epoch)) - (
                set() if total is not None else {horizon}
            )
            self._schedule = (horizon, per_epoch), steps
        return step in self._schedule[1] or (
            isinstance(self.when, AtLoss) and self.when.due(self._losses)
        )

    def shown(self):
        """The few as arrays to keep beside the readings: pictures, labels, groups and what those are called, places in the sample."""
        few = self.sample.few
        named = (
            few
            if isinstance(few, dict)
            else dict(zip(("inputs", "labels"), few))
            if isinstance(few, tuple | list)
            else {"inputs": few}
        )
        arrays = {str(name): _small(np.asarray(x)) for name, x in named.items() if _is_numbers(x)}
        groups = (
            {} if self.sample.few_groups is None else {"group": np.asarray(self.sample.few_groups)}
        )
        if self.group_names is not None:
            groups["group_names"] = np.array(self.group_names)
        return {**arrays, **groups, "index": np.asarray(self.sample.chosen)}


def _is_numbers(x):
    return (
        hasattr(x, "dtype")
        and not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        and np.dtype(x.dtype).kind in "biuf"
    )


def _small(array):
    """Pictures as bytes: what a report shows needs no more."""
    if (
        array.dtype.kind == "f"
        and array.ndim > 1
        and array.size
        and array.min() >= 0
        and array.max() <= 1
    ):
        return np.round(array * 255).astype(np.uint8)
    return array
