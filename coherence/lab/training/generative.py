"""What runs of generative models share: examples of which some may be garbage, and their keys.

The settings are plain values (no JAX here); `build` imports what it needs.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .programs import PROGRAMS
from .run_settings import RunSettings, initial_parameters, load_folded
from .samples import fixed_keys, make_probes, stream, stream_key

if TYPE_CHECKING:
    from .problem import Problem

# What a seed's separate random streams are for.
_PARAMS, _GARBAGE, _SAMPLE, _NOISE, _KEYS, _FRESH, _DATA = range(7)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerativeRun(RunSettings):
    """A run of a model of the examples themselves; subclasses add the model and its loss.

    Recorded are means over examples of each term of the loss, as `train_...`, `test_...` and, where
    some examples are garbage, `pristine_...`, `corrupt_...` and `fresh_...`: the test examples all
    made garbage in the same way. Every example is measured, by probes too, with a key of its own
    that stays the same throughout the run; training draws fresh ones at every step.
    """

    model: Any
    garbage: float = 0.0
    """Share of the training images replaced by garbage; a larger share keeps the garbage of a
    smaller one. Labels stay. Probes know garbage as corrupt examples."""
    garbage_kind: Literal["noise", "shuffled"] = "noise"
    """Uniform noise, or the image's own pixels in an order of its own: the same grey levels, and
    nothing in common but their mean."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.garbage <= 1:
            raise ValueError(
                f"{type(self).__name__}(garbage): the share of images replaced by garbage is in "
                f"[0, 1], got {self.garbage}."
            )
        if self.garbage_kind not in ("noise", "shuffled"):
            raise ValueError(
                f"{type(self).__name__}(garbage_kind): noise or shuffled, got "
                f"{self.garbage_kind!r}."
            )

    def describe(self) -> str:
        """What was run, in a few words: `circles (1,000 examples), VAE 784-2048-2048-1`."""
        self._examples(0)  # refuses what does not go together
        return f"{self._described(self._load)}, {self.model.build().describe()}"

    def build(self, seed: int) -> Problem:
        """The `Problem` of one seed; its examples and garbage are drawn here, once."""

        from .problem import Problem

        (data, drawn), model = self._examples(seed), self.model.build()
        prepared, constants = self._preparation(data)
        rng = lambda purpose: np.random.default_rng(stream(seed, purpose))
        images, corrupt = _with_garbage(
            data.x_train, self.garbage, self.garbage_kind, rng(_GARBAGE)
        )
        arrays = {
            "train": self._inputs(prepared(images), data.y_train),
            "test": self._inputs(prepared(data.x_test), data.y_test),
            "corrupt": corrupt,
            "keys": self._keys(seed, len(data.x_train), len(data.x_test)),
        }
        if self.garbage:
            fresh = _garbage(data.x_test, self.garbage_kind, rng(_FRESH))
            arrays["fresh"] = self._inputs(prepared(fresh), data.y_test)
        terms = self._terms(model, data)
        loss = PROGRAMS.get(_loss_of, terms)
        probes, samples = make_probes(
            self.probes,
            loss,
            {part: _with_keys(arrays, part) for part in ("train", "test")},
            corrupt=corrupt,
            labels={"train": data.y_train, "test": data.y_test},
            classes=data.outputs,
            seed=seed,
            purpose=_SAMPLE,
        )
        example = (array[:1] for array in self._inputs(data.x_train, data.y_train))
        optimizer = self._transformation()
        return Problem(
            loss=loss,
            params=self._initial(model, stream_key(seed, _PARAMS), *example),
            data=arrays,
            optimizer=optimizer,
            per_example=not optimizer.takes_batch_gradient,
            measure=PROGRAMS.get(_measuring, terms, self.garbage > 0),
            track_batches=self.track_batches,
            drawn={
                **drawn,
                **constants,
                "corrupt": corrupt,
                **{f"sample-{name}": index for name, index in samples.items()},
            },
            probes=probes,
            noise=stream_key(seed, _NOISE) if self._draws() else None,
        )

    def _terms(self, model, data):
        """`(params, example) -> {term: number}`; what is trained on is `loss`."""
        raise NotImplementedError

    def _preparation(self, data):
        """A function of examples, all of which it is applied to, and its constants by name."""
        return lambda x: x, {}

    def _takes_labels(self):
        """Whether the model is told an example's label."""
        raise NotImplementedError

    def _draws(self):
        """Whether the loss is random."""
        return True

    def _initial(self, model, key, *example):
        return initial_parameters(model, key, *example)

    def _load(self, data):
        return load_folded(data, tuple(self.model.shape))

    def _examples(self, seed):
        """The data set of a seed, and what was drawn for it."""
        data, drawn = self._drawn(self._load, seed, _DATA)
        if self._takes_labels() and len(data.classes) != self.model.classes:
            raise ValueError(
                f"{type(self.model).__name__}(classes={self.model.classes}) is told one of so many "
                f"labels; {data.name} has {len(data.classes)}."
            )
        if not data.classes and any(probing.groups == "class" for probing in self.probes):
            raise ValueError(
                f"Probing(groups='class'): {data.name} has targets, not classes; groups is none or "
                "corrupt there."
            )
        return data, drawn

    def _inputs(self, x, y):
        return (x, y) if self._takes_labels() else (x,)

    def _keys(self, seed, train, test):
        """The fixed keys that examples are measured with: {part: (keys,)}, () without noise."""
        if not self._draws():
            return {"train": (), "test": ()}
        return fixed_keys(seed, _KEYS, train=train, test=test)


def _loss_of(terms):
    return lambda params, example: terms(params, example)["loss"]


def _measuring(terms, garbage):
    """`(params, data) -> {set_term: mean}`; all training sets are measured in one pass."""
    import jax
    import jax.numpy as jnp

    from coherence.lab.tasks.autoencoding import evaluate

    means = evaluate(terms)

    def measure(params, data):
        corrupt = data["corrupt"]
        weights = {"train": jnp.ones_like(corrupt)}
        if garbage:
            weights |= {"pristine": ~corrupt, "corrupt": corrupt}
        train = jax.vmap(means, (None, None, 0))(
            params, _with_keys(data, "train"), jnp.stack(list(weights.values()))
        )
        measured: dict[str, jax.Array] = {}
        for i, name in enumerate(weights):
            measured |= {f"{name}_{term}": values[i] for term, values in train.items()}
        for name in ("test", "fresh") if garbage else ("test",):
            unseen = means(params, (*data[name], *data["keys"]["test"]))
            measured |= {f"{name}_{term}": value for term, value in unseen.items()}
        return measured

    return measure


def _with_keys(arrays, part):
    """A part's examples with their fixed keys."""
    return *arrays[part], *arrays["keys"][part]


def _with_garbage(x, share, kind, rng):
    """The images, a share of them replaced by garbage, and which ones (bool `[n]`).

    The very array where none is replaced.
    """
    order = rng.permutation(len(x))[: round(share * len(x))]
    corrupt = np.isin(np.arange(len(x)), order)
    if not len(order):
        return x, corrupt
    x = x.copy()
    x[order] = _garbage(x[order], kind, rng)
    return x, corrupt


def _garbage(x, kind, rng):
    """Images to replace others with.

    As many numbers are drawn for each: the first ones do not depend on how many follow.
    """
    noise = rng.random(x.shape, np.float32)
    if kind == "noise":
        return noise
    flat = (len(x), -1)
    return np.take_along_axis(x.reshape(flat), noise.reshape(flat).argsort(1), 1).reshape(x.shape)
