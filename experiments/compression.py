"""Compressed gradients of four workers: with error feedback, one coordinate in a hundred is enough,
and what averaging over workers does to coherence.

A batch is divided among workers, each sends its mean gradient, compressed, to a server that
averages and steps: signs with their mean size, the largest coordinates, or 8 bits. With error
feedback a worker adds what it did not send to what it sends next. Compared per step, and per bit.
Workers' gradients are means of examples', so they agree more: alpha over workers is a function of
alpha over examples, property P2 for a finite sample, which is measured on the way.
"""

from dataclasses import dataclass, replace

import numpy as np

from coherence.lab.analysis import single, stacked, tabulate, under
from coherence.lab.settings import (
    MLP,
    Probing,
    average,
    compressed,
    largest,
    rounded,
    scaled_sign,
    sgd,
)
from coherence.lab.training.classification import Classification
from coherence.probes.schedules import LogSpaced

WORKERS = 4
WAYS = {
    "32 bits": average(),
    "8 bits": compressed(rounded(8), WORKERS),
    "signs": compressed(scaled_sign(), WORKERS),
    "signs, forgetting": compressed(scaled_sign(), WORKERS, feedback=False),
    "1 %": compressed(largest(0.01), WORKERS),
    "1 %, forgetting": compressed(largest(0.01), WORKERS, feedback=False),
}
PLAIN = "32 bits"
TOLERANCE = 0.01  # accuracy


def over_workers(view):
    """Alpha over 4 workers: of random divisions of the sample, and what P2 makes of examples'."""
    import jax
    import jax.numpy as jnp

    from coherence.gradients import gram

    products = gram(view.few)
    m = len(products)
    k = m // WORKERS
    of_mean, of_examples = products.mean(), jnp.trace(products) / m

    def divided(key):
        worker = jax.random.permutation(key, jnp.arange(m) // k)
        shares = jax.nn.one_hot(worker, WORKERS, axis=0) / k
        return jnp.einsum("wi,ij,wj->w", shares, products, shares).mean()

    of_workers = jax.vmap(divided)(jax.random.split(view.key, 50)).mean()
    expected = of_mean + (m - k) / (k * (m - 1)) * (of_examples - of_mean)
    examples = of_mean / of_examples
    return jnp.stack([examples, of_mean / of_workers, of_mean / expected])


AGREEMENT = Probing(m=400, quantities=(over_workers,), groups="none", when=LogSpaced(3))


@dataclass(frozen=True)
class Settings:
    run: Classification = Classification(
        model=MLP(64),
        optimizer=sgd(0.1),
        steps=1000,
        probes=(AGREEMENT,),
        track_batches=False,
    )
    seeds: int = 8


_SMALL = Classification(
    model=MLP(8), steps=20, probes=(replace(AGREEMENT, m=40),), track_batches=False
)
PRESETS = {
    "smoke": Settings(_SMALL, seeds=2),
    "cpu": Settings(),
    "paper": Settings(replace(Settings().run, model=MLP(512, 2), steps=10_000)),
}
SOURCE_PRESETS = ("any",)  # a tutorial's sentences, without sizes

# What was fixed when: claims and thresholds before any run.


def arms(settings):
    return {name: replace(settings.run, aggregator=way) for name, way in WAYS.items()}


def record(settings, runs):
    arrays = {"ways": np.array([*WAYS]), "workers": WORKERS, "m": settings.run.probes[0].m}
    for name, seeds in runs.items():
        sizes = [leaf.size for leaf in seeds[0].load("params").values()]
        curves = stacked(seeds, "train_loss", "test_accuracy")
        agreement = stacked(seeds, "train/over_workers")
        arrays |= under(
            name,
            {
                **curves,
                "bits": sum(bits_of(WAYS[name], size) for size in sizes),
                "at": agreement["step"],
                "alphas": agreement["train/over_workers"],
            },
        )
    return single(arrays)


def bits_of(way, size):
    """Bits that a worker sends of an array in one step."""
    return 32 * size if way == average() else way.compressor.build().bits(size)


def at_bits(recorded, name):
    """Plain averaging's test accuracy at the bits that another way has sent by the end: [seed]."""
    sent = recorded[f"{name}/bits"] * recorded[f"{name}/step"][-1]
    bits = recorded[f"{PLAIN}/bits"] * recorded[f"{PLAIN}/step"]
    return np.array([np.interp(sent, bits, row) for row in recorded[f"{PLAIN}/test_accuracy"]])


def judge(recorded):
    loss = lambda name: np.log10(recorded[f"{name}/train_loss"][:, -1])
    accuracy = lambda name: recorded[f"{name}/test_accuracy"][:, -1]
    eight = accuracy("8 bits") - accuracy(PLAIN)
    alphas = [recorded[f"{name}/alphas"] for name in recorded["ways"]]
    off = [(each[..., 1] / each[..., 2]).mean(0) - 1 for each in alphas]
    return {
        "feedback makes the largest coordinates enough": loss("1 %, forgetting") - loss("1 %"),
        "feedback helps signs": loss("signs, forgetting") - loss("signs"),
        "eight bits lose nothing": {
            "not below": eight + TOLERANCE,
            "not above": TOLERANCE - eight,
        },
        "more for the same bits": {
            name: accuracy(name) - at_bits(recorded, name) for name in ("signs", "1 %")
        },
        "workers are more coherent than examples": np.abs(off).max(),
    }


def table(recorded):
    rows = []
    for name in recorded["ways"]:
        alphas = recorded[f"{name}/alphas"][:, -1]
        rows.append(
            {
                "sent": name,
                "kB a step": f"{recorded[f'{name}/bits'] / 8000:.2f}",
                "log10 training loss": np.log10(recorded[f"{name}/train_loss"][:, -1]),
                "test accuracy": recorded[f"{name}/test_accuracy"][:, -1],
                "alpha of examples": alphas[:, 0],
                "of workers": alphas[:, 1],
                "by P2": alphas[:, 2],
            }
        )
    return tabulate(rows, f"{WORKERS} workers, {recorded['m']} examples, at the last step")
