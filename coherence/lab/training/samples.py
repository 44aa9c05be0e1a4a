"""What the settings of a run draw at random for a seed, and the probes of fixed samples that they ask for."""

from __future__ import annotations

import numpy as np


def stream(seed, purpose):
    """Independent integers for the purposes of one seed."""
    return seed * 1000 + purpose


def called(probing):
    return probing.name or probing.of


def check_names(probes):
    names = [called(probing) for probing in probes]
    if len(set(names)) < len(names):
        raise ValueError(
            f"probes need names of their own, got {', '.join(names)}: give them, Probing(of='train', name='early')."
        )


def chosen(probing, corrupt, tests, rng):
    """Which examples a probe looks at: fewer than asked for where there are not so many pristine or corrupt ones."""
    examples, available = np.arange(len(corrupt)), tests if probing.of == "test" else len(corrupt)
    if probing.m > available:
        raise ValueError(
            f"Probing(m): of all {available} {'test' if probing.of == 'test' else 'training'} examples at most, got {probing.m}."
        )
    candidates = {
        "train": examples,
        "test": np.arange(tests),
        "pristine": examples[~corrupt],
        "corrupt": examples[corrupt],
    }[probing.of]
    return np.sort(rng.permutation(candidates)[: probing.m])


def probe(probing, loss, examples, index, *, corrupt, labels, classes):
    """The `Probe` of the examples at `index`: of the test ones, or of the training ones, of which some are corrupt.

    Args:
        examples, labels: `{"train": ..., "test": ...}`: tuples of arrays that the loss takes;
        integers that tell classes apart.
        corrupt: bool, a training example each.
    """
    from coherence.probes.probe import Probe

    part = "test" if probing.of == "test" else "train"
    options = {
        "none": {},
        "corrupt": {
            "groups": np.zeros(len(index), bool) if part == "test" else corrupt[index],
            "group_names": ("pristine", "corrupt"),
        },
        "class": {"groups": labels[part][index], "num_groups": classes},
    }[probing.groups]
    return Probe(
        loss,
        tuple(array[index] for array in examples[part]),
        quantities=probing.quantities,
        name=called(probing),
        when=probing.when,
        batch_size=probing.batch_size,
        few=probing.few,
        **options,
    )
