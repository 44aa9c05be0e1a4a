"""An autoencoder trained on images, of which some may be garbage: the settings of one run, and the problem they make.

The settings are plain values (no JAX here); `build` imports what it needs.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import numpy as np

from coherence.lab.data.settings import MNIST, Circles, Digits
from coherence.lab.models.settings import (
    AnyAutoencoder,
    Autoencoder,
    ConditionalVariational,
    Variational,
)
from coherence.optim.settings import Adam, AnyAggregator, AnyOptimizer, Average
from coherence.probes.schedules import Log
from coherence.probes.settings import Probing

from .samples import called, check_names, chosen, probe, stream

_PARAMS, _GARBAGE, _SAMPLE, _NOISE, _KEYS, _FRESH = range(
    6
)  # what a seed's separate random streams are for


@dataclasses.dataclass(frozen=True)
class Autoencoding:
    """One run: images, network, objective, aggregator and optimizer, how long, and what is measured.

    Recorded are the means over examples of `reconstruction`, `kl` (not of an `Autoencoder`) and
    `loss`, each as `train_...`, `test_...` and, where some images are garbage, `pristine_...`,
    `corrupt_...` and `fresh_...`: the test images all made garbage in the same way. What a network
    reconstructs worse of fresh garbage than of that it was trained on, it has memorized. Every
    example is measured, by probes too, with a key of its own that stays the same throughout the
    run; training draws fresh ones at every step.
    """

    data: Circles | MNIST | Digits = Circles()
    """Folded into the shape of the model's images."""
    garbage: float = 0.0
    """Share of the training images replaced by garbage; a larger share keeps the garbage of a smaller one. Labels stay."""
    garbage_kind: Literal["noise", "shuffled"] = "noise"
    """Uniform noise, or the image's own pixels in an order of its own: the same grey levels, and nothing in common but their mean."""
    model: AnyAutoencoder = Variational()
    factor: float = 1.0
    """What the reconstruction error is multiplied by, beside KL."""
    pixels: Literal["sum", "mean"] = "sum"
    """How the errors of an image's pixels become one."""
    error: Literal["squared", "cross_entropy"] = "squared"
    """Of a pixel; cross-entropy wants a model with a sigmoid."""
    aggregator: AnyAggregator = Average()
    optimizer: AnyOptimizer = Adam(3e-4)
    batch_size: int = 32
    steps: int = 930
    points_per_decade: int = 8
    """How many measurements of the losses a decade of steps gets."""
    probes: tuple[Probing, ...] = (Probing(),)
    """What else is measured, on which samples, and when; corrupt examples are the garbage."""
    track_batches: bool = True
    """Record the norms of every batch's gradients: coherence at every step."""

    def __post_init__(self):
        check_names(self.probes)
        if not 0 <= self.garbage <= 1:
            raise ValueError(
                f"Autoencoding(garbage): the share of images replaced by garbage is in [0, 1], got {self.garbage}."
            )
        if self.garbage_kind not in ("noise", "shuffled"):
            raise ValueError(
                f"Autoencoding(garbage_kind): noise or shuffled, got {self.garbage_kind!r}."
            )
        if not self.factor >= 0:
            raise ValueError(
                f"Autoencoding(factor): reconstruction counts at least 0 times, got {self.factor}."
            )

    def describe(self):
        """What was run, in a few words: `circles (1,000 examples), VAE 784-2048-2048-1`."""
        data = self._images()
        return f"{data.name} ({len(data.x_train):,} examples), {self.model.describe()}"

    def schedule(self):
        """The steps at which to measure."""
        return Log(self.points_per_decade).steps(self.steps)

    def build(self, seed):
        """The `Problem` of one seed; its garbage is drawn here, once."""
        import jax
        import jax.numpy as jnp

        from coherence.lab.tasks.autoencoding import evaluate
        from coherence.optim.chaining import chain

        from .problem import Problem

        data, model = self._images(), self.model.build()
        x_train, corrupt = _with_garbage(
            data.x_train,
            self.garbage,
            self.garbage_kind,
            np.random.default_rng(stream(seed, _GARBAGE)),
        )
        labels = {"train": data.y_train, "test": data.y_test}
        arrays = {
            "train": self._inputs(x_train, data.y_train),
            "test": self._inputs(data.x_test, data.y_test),
            "corrupt": corrupt,
        }
        if self.garbage:
            fresh = _garbage(
                data.x_test, self.garbage_kind, np.random.default_rng(stream(seed, _FRESH))
            )
            arrays["fresh"] = self._inputs(fresh, data.y_test)
        arrays["keys"] = self._keys(seed, len(x_train), len(data.x_test))
        params = model.init(
            jax.random.key(stream(seed, _PARAMS)),
            *(array[:1] for array in self._inputs(data.x_train, data.y_train)),
        )
        terms = self._terms(model)
        loss = lambda params, example: terms(params, example)["loss"]
        rng = np.random.default_rng(stream(seed, _SAMPLE))
        samples = {
            probing: chosen(probing, corrupt, len(data.x_test), rng) for probing in self.probes
        }
        measured = {part: _measured(arrays, part) for part in ("train", "test")}
        probes = [
            probe(
                probing, loss, measured, index, corrupt=corrupt, labels=labels, classes=data.outputs
            )
            for probing, index in samples.items()
            if len(index) > 1
        ]

        def measure(params, arrays):
            means, corrupt = evaluate(terms), arrays["corrupt"]
            names = ("test", "fresh") if self.garbage else ("test",)
            unseen = {
                name: means(params, (*arrays[name], *arrays["keys"]["test"])) for name in names
            }
            sets = {"train": jnp.ones_like(corrupt)} | (
                {"pristine": ~corrupt, "corrupt": corrupt} if self.garbage else {}
            )
            train = jax.vmap(means, (None, None, 0))(
                params, _measured(arrays, "train"), jnp.stack(list(sets.values()))
            )  # one pass
            named = {
                f"{name}_{term}": values[i]
                for i, name in enumerate(sets)
                for term, values in train.items()
            }
            return named | {
                f"{name}_{term}": value
                for name, values in unseen.items()
                for term, value in values.items()
            }

        return Problem(
            loss=loss,
            params=params,
            data=arrays,
            optimizer=chain(self.aggregator.build(), self.optimizer.build()),
            per_example=self.aggregator.per_example,
            measure=measure,
            track_batches=self.track_batches,
            drawn={
                "corrupt": corrupt,
                **{f"sample-{called(one)}": index for one, index in samples.items()},
            },
            probes=tuple(probes),
            noise=jax.random.key(stream(seed, _NOISE)) if self._draws() else None,
        )

    def _images(self):
        data = _load(self.data, tuple(self.model.shape))
        if (
            isinstance(self.model, ConditionalVariational)
            and len(data.classes) != self.model.classes
        ):
            raise ValueError(
                f"ConditionalVariational(classes={self.model.classes}) is told one of so many labels; {data.name} has {len(data.classes)}."
            )
        if not data.classes and any(probing.groups == "class" for probing in self.probes):
            raise ValueError(
                f"Probing(groups='class'): {data.name} has targets, not classes; groups is none or corrupt there."
            )
        return data

    def _inputs(self, x, y):
        return (x, y) if isinstance(self.model, ConditionalVariational) else (x,)

    def _draws(self):
        return not isinstance(self.model, Autoencoder)

    def _keys(self, seed, train, test):
        """The fixed keys that examples are measured with; from two streams, so that either part may grow without changing the other."""
        import jax

        if not self._draws():
            return {"train": (), "test": ()}
        base = jax.random.key(stream(seed, _KEYS))
        return {
            part: (jax.random.split(jax.random.fold_in(base, i), n),)
            for i, (part, n) in enumerate({"train": train, "test": test}.items())
        }

    def _terms(self, model):
        """`(params, example) -> {term: number}`; what is trained on is `loss`."""
        from coherence.lab.tasks.autoencoding import elbo_terms, reconstruction_error

        if self._draws():
            of = elbo_terms(model, factor=self.factor, error=self.error, pixels=self.pixels)
            return lambda params, example: dict(
                zip(("reconstruction", "kl", "loss"), of(params, example))
            )
        alone = reconstruction_error(model, error=self.error, pixels=self.pixels)

        def terms(params, example):
            error = alone(params, example)
            return {"reconstruction": error, "loss": self.factor * error}

        return terms


@functools.lru_cache(maxsize=4)
def _load(data, shape):
    """One copy of the images for all seeds: what they share is then held once on the device."""
    loaded = data.build()
    if loaded.x_train[0].size != np.prod(shape):
        raise ValueError(
            f"{loaded.name}'s images have {loaded.x_train[0].size} pixels and the model's {np.prod(shape)}: "
            f"its shape {shape} has to be theirs."
        )
    folded = {part: getattr(loaded, part).reshape(-1, *shape) for part in ("x_train", "x_test")}
    return dataclasses.replace(loaded, **folded)


def _measured(arrays, part):
    """A part's examples with their fixed keys."""
    return *arrays[part], *arrays["keys"][part]


def _with_garbage(x, share, kind, rng):
    """The images, a share of them replaced by garbage, and which ones (bool `[n]`); the very array where none is."""
    order = rng.permutation(len(x))[: round(share * len(x))]
    corrupt = np.isin(np.arange(len(x)), order)
    if not len(order):
        return x, corrupt
    x = x.copy()
    x[order] = _garbage(x[order], kind, rng)
    return x, corrupt


def _garbage(x, kind, rng):
    """What replaces images: as many numbers are drawn for each, so that the first ones' garbage does not depend on how many follow."""
    noise = rng.random(x.shape, np.float32)
    if kind == "noise":
        return noise
    flat = (len(x), -1)
    return np.take_along_axis(x.reshape(flat), noise.reshape(flat).argsort(1), 1).reshape(x.shape)
