"""What is drawn by a run's seed: its streams, training examples from a pool, samples of probes."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING

import numpy as np

from coherence.lab.settings import Probing, Setting

if TYPE_CHECKING:
    import jax


def stream(seed: int, purpose: int) -> int:
    """A seed for one of the purposes that a run's seed serves, independent of the others."""
    return seed * 1000 + purpose


def stream_key(seed: int, purpose: int) -> jax.Array:
    """The JAX key of a `stream`: JAX takes 32 bits of a number, the rest is folded in."""
    import jax

    rest, low = divmod(stream(seed, purpose), 2**32)
    key = jax.random.key(low)
    while rest:
        rest, low = divmod(rest, 2**32)
        key = jax.random.fold_in(key, low)
    return key


def fixed_keys(seed: int, purpose: int, **sizes: int) -> dict[str, tuple[jax.Array]]:
    """The keys that examples of a random loss are measured with: `{part: (keys,)}`.

    A stream for each part, so that one may grow without changing the others.
    """
    import jax

    base = stream_key(seed, purpose)
    return {
        part: (jax.random.split(jax.random.fold_in(base, i), n),)
        for i, (part, n) in enumerate(sizes.items())
    }


def pool_of(data):
    """The setting of all the examples there are, where `data` asks for some of them, else `None`.

    That is a data set whose `examples` may be `None`, as `mnist(examples=2000)`: none of those that
    are made, whose examples can be as many as one likes.
    """
    parameters = inspect.signature(type(data)).parameters if isinstance(data, Setting) else {}
    optional = "examples" in parameters and parameters["examples"].default is None
    if not optional or data.examples is None:
        return None
    return dataclasses.replace(data, examples=None)


def draw(pool, examples, seed):
    """A data set with some of the training examples of a pool, and which: `(Dataset, [examples])`.

    More examples keep those that fewer have. The test examples are the very arrays of the pool.

    Raises:
        ValueError: the pool has not so many.
    """
    if not 1 <= examples <= len(pool.y_train):
        raise ValueError(
            f"{pool.name}(examples): from 1 to the {len(pool.y_train)} training examples there "
            f"are, got {examples}."
        )
    index = np.random.default_rng(seed).permutation(len(pool.y_train))[:examples]
    x, y = pool.x_train[index], pool.y_train[index]
    return dataclasses.replace(pool, x_train=x, y_train=y), index


def probe_name(probing: Probing) -> str:
    return probing.name or probing.of


def make_probes(probings, loss, examples, *, corrupt, labels, classes, seed, purpose):
    """The probes of a run, and which examples they look at: `(probes, {sample name: index})`.

    A sample is smaller than asked for where there are not so many pristine or corrupt examples; a
    probe with fewer than two is left out.

    Args:
        examples, labels: `{"train": ..., "test": ...}`: tuples of arrays that the loss takes;
            integers that tell classes apart.
        corrupt: bool, a training example each.
        seed, purpose: the run's seed, and the stream of it that samples are drawn from.

    Raises:
        ValueError: more examples are asked for than there are.
    """
    probes, samples, rng = [], {}, np.random.default_rng(stream(seed, purpose))
    for probing in probings:
        own = None if probing.stream is None else np.random.default_rng([seed, probing.stream])
        index = _sample(probing, corrupt, len(labels["test"]), own or rng)
        samples[probe_name(probing)] = index
        if len(index) > 1:
            probes.append(_probe(probing, loss, examples, index, corrupt, labels, classes))
    return tuple(probes), samples


def _sample(probing, corrupt, tests, rng):
    """Sorted indices of the examples of a probe, drawn without replacement."""
    available = tests if probing.of == "test" else len(corrupt)
    if probing.m > available:
        part = "test" if probing.of == "test" else "training"
        raise ValueError(
            f"Probing(m): of all {available} {part} examples at most, got {probing.m}."
        )
    candidates = {
        "train": np.arange(len(corrupt)),
        "test": np.arange(tests),
        "pristine": np.flatnonzero(~corrupt),
        "corrupt": np.flatnonzero(corrupt),
    }[probing.of]
    return np.sort(rng.permutation(candidates)[: probing.m])


def _probe(probing, loss, examples, index, corrupt, labels, classes):
    from coherence.probes.probe import Probe

    part = "test" if probing.of == "test" else "train"
    wrong = np.zeros(len(index), bool) if part == "test" else corrupt[index]
    groups = {
        "none": {},
        "corrupt": {"groups": wrong, "group_names": ("pristine", "corrupt")},
        "class": {"groups": labels[part][index], "num_groups": classes},
    }[probing.groups]
    return Probe(
        loss,
        tuple(array[index] for array in examples[part]),
        quantities=probing.quantities,
        name=probe_name(probing),
        when=probing.when,
        batch_size=probing.batch_size,
        few=probing.few,
        **groups,
    )
