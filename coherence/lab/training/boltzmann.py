"""The settings of a restricted Boltzmann machine trained by contrastive divergence.

The settings are plain values (no JAX here); `build` imports what it needs.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import numpy as np

from coherence.lab.settings import Datasets, LabelNoises, Setting, digits, label_noise, setting

from .programs import PROGRAMS
from .run_settings import RunSettings, initial_parameters, load
from .samples import fixed_keys, make_probes, stream, stream_key

if TYPE_CHECKING:
    from .problem import Problem

PARTS = ("train", "test")

RBM = setting("coherence.lab.models.boltzmann:RBM")

# What a seed's separate random streams are for.
_PARAMS, _LABELS, _SAMPLE, _NOISE, _KEYS, _CHAINS, _DATA = range(7)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastiveDivergence(RunSettings):
    """Settings of a run: binary data, machine, sampling, aggregator, optimizer, measurements.

    Recorded are means over examples, as `train_...` and `test_...`: `loss`, the difference of free
    energies that is trained on, with k sweeps from each example and a key of its own that stays
    the same throughout the run; `free_energy` (nats, but for log Z: only differences mean
    something, as that of test and training examples); `pseudo_likelihood` (nats), each number given
    all others; and with labels `accuracy` of the most probable label. Of training labels that are
    noise and those that are not, `corrupt_accuracy` and `pristine_accuracy`. Probes look at the
    loss of k sweeps from the example, persistent chains or not.
    """

    data: Datasets = digits()
    threshold: float | None = 0.5
    """A number above it is 1, any other 0; None: the data are zeros and ones already."""
    labels: bool = True
    """Units for the label, beside those for x: the machine models p(x, y), else p(x)."""
    noise: LabelNoises = label_noise()
    hidden: int = 128
    """Hidden units."""
    k: int = 1
    """Sweeps of Gibbs sampling for the negative phase."""
    persistent: bool = False
    """Chains, as many as a batch has examples, that go on from step to step; else they start at the
    examples."""

    def __post_init__(self):
        super().__post_init__()
        if self.k < 1:
            raise ValueError(
                f"ContrastiveDivergence(k): at least 1 sweep of sampling, got {self.k}."
            )

    def machine(self, inputs: int, classes: int) -> Setting:
        """The machine for examples of so many numbers, and so many labels where it has them."""
        return RBM(inputs, self.hidden, classes if self.labels else 0)

    def describe(self) -> str:
        """What was run, in a few words: `digits (1,437 examples), RBM 64-128, 10 classes, CD-1`."""
        data = self._drawn(self._load, 0, _DATA)[0]
        machine = self.machine(data.x_train[0].size, len(data.classes)).build().describe()
        sampling = f"{'persistent ' * self.persistent}CD-{self.k}"
        return f"{self._described(self._load)}, {machine}, {sampling}"

    def build(self, seed: int) -> Problem:
        """The `Problem` of one seed; its data, label noise and chains are drawn here, once."""
        from coherence.lab.tasks.boltzmann import against_chain, contrastive_divergence, sweeps

        from .problem import Problem

        clean, drawn = self._drawn(self._load, seed, _DATA)
        data, corrupt = clean, np.zeros(len(clean.y_train), bool)
        if clean.classes:
            data, corrupt = self.noise.build()(clean, stream(seed, _LABELS))
        model = self.machine(data.x_train[0].size, len(data.classes)).build()
        arrays = {
            "train": self._inputs(clean.x_train, data.y_train),
            "test": self._inputs(clean.x_test, clean.y_test),
            "corrupt": corrupt,
            "keys": fixed_keys(seed, _KEYS, train=len(clean.x_train), test=len(clean.x_test)),
        }
        loss = PROGRAMS.get(contrastive_divergence, model, self.k)
        probes, samples = make_probes(
            self.probes,
            loss,
            {part: _with_keys(arrays, part) for part in PARTS},
            corrupt=corrupt,
            labels={"train": data.y_train, "test": clean.y_test},
            classes=data.outputs,
            seed=seed,
            purpose=_SAMPLE,
        )
        chains = None
        if self.persistent:
            rng = np.random.default_rng(stream(seed, _CHAINS))
            first = rng.integers(0, len(clean.x_train), self.batch_size)
            rows = model.joined(*(array[first] for array in arrays["train"]))
            chains = (rows, PROGRAMS.get(sweeps, model, self.k))
        optimizer = self._transformation()
        example = (array[:1] for array in arrays["train"])
        return Problem(
            loss=PROGRAMS.get(against_chain, model) if self.persistent else loss,
            params=initial_parameters(model, stream_key(seed, _PARAMS), *example),
            data=arrays,
            optimizer=optimizer,
            per_example=not optimizer.takes_batch_gradient,
            measure=PROGRAMS.get(_measuring, model, loss),
            track_batches=self.track_batches,
            drawn={
                **drawn,
                "labels": data.y_train,
                "corrupt": corrupt,
                **{f"sample-{name}": index for name, index in samples.items()},
            },
            probes=probes,
            noise=stream_key(seed, _NOISE),
            chains=chains,
        )

    def _load(self, data):
        loaded = _load(data, self.threshold)
        if self.labels and not loaded.classes:
            raise ValueError(
                f"ContrastiveDivergence(labels): {loaded.name} has targets, not classes; "
                "a machine of its examples alone has labels=False."
            )
        labels = np.concatenate([loaded.y_train, loaded.y_test])
        if self.labels and not 0 <= labels.min() <= labels.max() < len(loaded.classes):
            raise ValueError(
                f"ContrastiveDivergence(labels): {loaded.name} has {len(loaded.classes)} classes "
                f"and labels from {labels.min()} to {labels.max()}; they start at 0."
            )
        return loaded

    def _inputs(self, x, y):
        return (x, y) if self.labels else (x,)


@functools.lru_cache(maxsize=4)
def _load(data, threshold):
    """One copy of the examples for all seeds, of zeros and ones."""
    loaded = load(data)
    parts = {part: getattr(loaded, part) for part in ("x_train", "x_test")}
    return dataclasses.replace(
        loaded, **{part: binary(x, threshold, loaded.name) for part, x in parts.items()}
    )


def binary(x: np.ndarray, threshold: float | None, who: str) -> np.ndarray:
    """Examples flat, as zeros and ones (float32): what is above the threshold is 1.

    Raises:
        ValueError: there is no threshold, and something else among the numbers.
    """
    x = x.reshape(len(x), -1)
    if threshold is not None:
        return (x > threshold).astype(np.float32)
    other = x[(x != 0) & (x != 1)]
    if other.size:
        raise ValueError(
            f"{who}: the units of a Boltzmann machine are 0 or 1, got {other[0]:g} among "
            f"{x.size:,} numbers. Say above which number they are 1: threshold=0.5."
        )
    return x.astype(np.float32)


def _measuring(model, loss):
    """`(params, data) -> {part_name: mean}` with frozen weights."""
    import jax
    import jax.numpy as jnp

    from coherence.lab.tasks.autoencoding import evaluate
    from coherence.lab.tasks.boltzmann import log_pseudo_likelihood

    pseudo = log_pseudo_likelihood(model)

    def terms(params, example):
        x, *labels, _ = example
        v = model.joined(x, *labels)
        measured = {
            "loss": loss(params, example),
            "free_energy": model.apply(params, v, method="free_energy"),
            "pseudo_likelihood": pseudo(params, v),
        }
        if labels:
            scores = model.apply(params, x, method="label_logits")
            measured["accuracy"] = (jnp.argmax(scores) == labels[0]) & ~jnp.isnan(scores).any()
        return measured

    means = evaluate(terms)

    def measure(params, data):
        (examples, unseen), corrupt = (_with_keys(data, part) for part in PARTS), data["corrupt"]
        measured = {f"test_{name}": value for name, value in means(params, unseen).items()}
        weights = jnp.stack([jnp.ones_like(corrupt), ~corrupt, corrupt])
        train = jax.vmap(means, (None, None, 0))(params, examples, weights)
        measured |= {f"train_{name}": values[0] for name, values in train.items()}
        if model.classes:
            _, pristine, noisy = train["accuracy"]
            measured |= {"pristine_accuracy": pristine, "corrupt_accuracy": noisy}
        return measured

    return measure


def _with_keys(arrays, part):
    """A part's examples with their fixed keys."""
    return *arrays[part], *arrays["keys"][part]
