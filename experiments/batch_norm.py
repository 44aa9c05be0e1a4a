"""Residual networks with batch norm, measured through mini-batches as the papers do.

Where a batch norm ties examples together, none has a gradient of its own; the papers measure the
alpha of mini-batch gradients at frozen weights and invert what averaging does to it. A small
residual network is trained on CIFAR-10 images with true and with permuted labels, with batch norm
and with group norm. With group norm alpha is also measured from per-example gradients, so the
inversion can be checked; with batch norm it is all there is. It is repeated over random partitions
of the sample.
"""

import functools
import operator
import typing
from dataclasses import dataclass, replace

import numpy as np

from coherence.lab.analysis import (
    alpha_ratio,
    computed,
    first_at,
    given,
    single,
    tabulate,
    too_low,
    under,
)
from coherence.lab.settings import Datasets, npz

NORMS = ("batch", "group")
LABELS = {"true": 0.0, "random": 1.0}
LEVELS = (0.75, 0.5, 0.25)  # of the initial training loss: the middle of training
FITTED = 0.95
_DATA, _LABELS, _PARAMS, _ORDER, _PARTITIONS = range(5)  # random streams of a seed


@dataclass(frozen=True)
class Residual:
    """One run: a residual network on some images, all of which are the sample."""

    data: Datasets = npz("cifar10-jpeg/cifar10_jpeg_12k.npz")
    examples: int = 500
    """Drawn from the training images by seed; each is averaged over squares of 2 x 2 pixels."""
    noise: float = 0.0
    """The share of labels that are permuted."""
    norm: str = "batch"
    width: int = 8
    stages: int = 3
    learning_rate: float = 0.05
    momentum: float = 0.9
    batch_size: int = 25
    """In training as in the inversion: with batch norm, that is the network."""
    steps: int = 1500
    points: int = 10
    """Measurements: at step 0, and log-spaced from `first` on."""
    first: int = 1
    partitions: int = 4
    """Of the sample into batches, each with an inversion of its own."""

    def describe(self):
        stem = 2 * self.stages + 2
        return (
            f"{_load(self.data).name} ({self.examples:,} examples, 2 x 2 pixels averaged), "
            f"ResNet-{stem} of width {self.width} with {self.norm} norm"
        )

    def compute(self, seed):
        return measured(self, seed)


_load = functools.lru_cache(maxsize=1)(lambda data: data.build())


class Programs(typing.NamedTuple):
    """Compiled functions of a network; `x`, `y` are a batch."""

    init: typing.Callable
    """`(key, x)` to parameters."""
    gradient: typing.Callable
    """`(params, x, y)` to the batch's mean loss and its gradient."""
    right: typing.Callable
    """`(params, x, y)` to the accuracy."""
    move: typing.Callable
    """A step of gradient descent with momentum."""
    pooled: typing.Callable | None
    """`(params, x, y)` to `Pooled` per-example gradients; with batch norm there are none."""


@functools.lru_cache(maxsize=4)
def _programs(norm, width, stages, outputs):
    import flax.linen as nn
    import jax
    import optax

    from coherence import metrics, per_example_value_and_grad
    from coherence.lab.models import ResNet

    class WithBatchNorm(ResNet):
        def _norm(self, name):
            return nn.BatchNorm(use_running_average=False, name=name)

    net = (WithBatchNorm if norm == "batch" else ResNet)(width, 1, outputs, stages)

    def logits(params, x):
        # The running averages are not used: in training mode the batch's own statistics are.
        return net.apply({"params": params}, x, mutable=["batch_stats"])[0]

    def losses(params, x, y):
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits(params, x), y)

    def move(params, velocity, slope, rate, momentum):
        velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, slope)
        return jax.tree.map(lambda p, v: p - rate * v, params, velocity), velocity

    mean = lambda params, x, y: losses(params, x, y).mean()
    right = lambda params, x, y: (logits(params, x).argmax(-1) == y).mean()
    differentiate = per_example_value_and_grad(lambda params, example: losses(params, *example))
    pooled = lambda params, x, y: metrics.pool(differentiate(params, (x, y))[1])
    return Programs(
        init=lambda key, x: jax.jit(net.init)(key, x)["params"],
        gradient=jax.jit(jax.value_and_grad(mean)),
        right=jax.jit(right),
        move=jax.jit(move),
        pooled=None if norm == "batch" else jax.jit(pooled),
    )


def measured(run, seed):
    """What is measured while a network trains, as arrays [time]; `inverted` is [time, partition].

    `m_coherence` is from per-example gradients, nan with batch norm.
    """
    import jax

    from coherence.lab.data import corrupt_labels

    data = _load(run.data)
    chosen = np.random.default_rng([seed, _DATA]).permutation(len(data.y_train))[: run.examples]
    x, y = halved(data.x_train[chosen]), data.y_train[chosen]
    y, _ = corrupt_labels(y, run.noise, seed=seed * 1000 + _LABELS)
    tests = halved(data.x_test), data.y_test
    programs = _programs(run.norm, run.width, run.stages, data.outputs)
    params = programs.init(jax.random.key(seed * 1000 + _PARAMS), x[: run.batch_size])
    velocity = jax.tree.map(np.zeros_like, params)
    batches = _batches(np.random.default_rng([seed, _ORDER]), run.examples, run.batch_size)
    at = np.unique(np.round(np.geomspace(run.first, run.steps, run.points - 1)).astype(int))
    readings = []
    for step in range(run.steps + 1):
        if step in (0, *at):
            test = np.mean([programs.right(params, *part) for part in _cut(tests, run.batch_size)])
            reading = reading_of(run, programs, params, x, y, seed)
            readings.append({"step": step, "test_accuracy": test, **reading})
        if step < run.steps:
            batch = next(batches)
            _, slope = programs.gradient(params, x[batch], y[batch])
            params, velocity = programs.move(
                params, velocity, slope, run.learning_rate, run.momentum
            )
    return {name: np.array([reading[name] for reading in readings]) for name in readings[0]}


def reading_of(run, programs, params, x, y, seed):
    """Loss, accuracy and m-coherence of the whole sample; the partitions are always the same."""
    import jax
    import jax.numpy as jnp

    from coherence.metrics import alpha_from_minibatches, m_coherence

    rng = np.random.default_rng([seed, _PARTITIONS])
    inverted, losses = [], []
    for _ in range(run.partitions):
        order = rng.permutation(len(y))
        parts = _cut((x[order], y[order]), run.batch_size)
        values, slopes = zip(*(programs.gradient(params, *part) for part in parts))
        losses.append(np.mean(values))
        rows = jax.tree.map(lambda *leaves: jnp.stack(leaves), *slopes)
        inverted.append(len(y) * float(alpha_from_minibatches(rows, run.batch_size, len(y))))
    direct = np.nan
    if programs.pooled is not None:
        sets = [programs.pooled(params, *part) for part in _cut((x, y), run.batch_size)]
        direct = float(m_coherence(functools.reduce(operator.add, sets)))
    return {
        "loss": np.mean(losses),
        "accuracy": np.mean(
            [programs.right(params, *part) for part in _cut((x, y), run.batch_size)]
        ),
        "inverted": inverted,
        "m_coherence": direct,
    }


def halved(images):
    """Images [n, h, w, c] averaged over squares of 2 x 2 pixels."""
    n, height, width, channels = images.shape
    return images.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def _batches(rng, count, size):
    """Indices of batches without end, every example once an epoch."""
    while True:
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def _cut(arrays, size):
    """Batches of a size; what is left over is left out."""
    count = len(arrays[0]) // size * size
    return [tuple(a[start : start + size] for a in arrays) for start in range(0, count, size)]


@dataclass(frozen=True)
class Settings:
    run: Residual = Residual()
    seeds: int = 8


PRESETS = {
    "smoke": Settings(
        Residual(examples=40, width=2, stages=1, batch_size=10, steps=6, points=4, partitions=2),
        seeds=2,
    ),
    "cpu": Settings(),
    "larger": Settings(
        Residual(examples=5000, width=16, batch_size=50, steps=5000, first=100), seeds=8
    ),
    "paper": Settings(Residual(examples=10_000, width=64, stages=4, steps=20_000), seeds=4),
}

# What was fixed when: all before any measurement of coherence of these networks. Losses and
# accuracies of one other seed, with 1,000 images in batches of 50, were looked at for the number of
# steps: after 600, batch norm fits 97 % of random labels, group norm 57 %. A first recording with
# 900 steps and 4 seeds decided nothing: one seed of group norm had not fitted its labels (73 %).
# Hence 1,500 steps, and 8 seeds; the claims stayed. 500 images, so that all runs together take
# about a quarter of an hour of a processor. That a claim names no number of examples any more came
# after the recording of `cpu`; numbers and thresholds are the same. `larger` came after the
# verdicts of `cpu`; its width and steps are from the training accuracy of one other seed with
# random labels and either norm (99 % after 30 epochs with batch norm, 40 with group norm), its
# points lie where the loss falls there. Recorded with 4 seeds it decided nothing (p from 0.05 to
# 0.14 by Holm); hence 8, of which these 4 are the first; the claims stayed. That is a second look,
# so one may double its p.


def arms(settings):
    """Batch and group norm, true and random labels."""
    return {
        f"{norm},{label}": replace(settings.run, norm=norm, noise=noise)
        for norm in NORMS
        for label, noise in LABELS.items()
    }


def record(settings, runs):
    arrays = {"m": settings.run.examples, "batch_size": settings.run.batch_size}
    for arm, seeds in runs.items():
        curves = computed(seeds)
        curves["step"] = curves["step"][0]
        arrays |= under(arm, single(curves))
    return arrays


def in_the_middle(recorded, arm, values):
    """A mean over the levels of the training loss: [seed, ...] of values [seed, time, ...]."""
    loss = recorded[f"{arm}/loss"].astype(float)
    levels = np.array(LEVELS) * loss[:, :1]
    moved = np.moveaxis(values.astype(float), 1, -1)  # time last
    extra = (1,) * (moved.ndim - 2)
    curves = loss.reshape(len(loss), 1, *extra, -1)
    at = first_at(curves, moved[:, None], levels.reshape(*levels.shape, *extra), falling=True)
    return at.mean(1)


def inverted(recorded, arm):
    """m-coherence through mini-batches, a mean over partitions: [seed]."""
    return in_the_middle(recorded, arm, recorded[f"{arm}/inverted"].mean(-1))


def judge(recorded):
    m = int(recorded["m"])
    ends = [recorded[f"{norm},{label}/accuracy"][:, -1] for norm in NORMS for label in LABELS]
    unfitted = too_low(np.min(ends), FITTED, "labels fitted at the end")
    off = {}
    for label in LABELS:
        arm = f"group,{label}"
        direct = in_the_middle(recorded, arm, recorded[f"{arm}/m_coherence"])
        off[label] = np.log2(inverted(recorded, arm) / direct)
    claims = {
        "inverted as measured, not above": {k: values for k, values in off.items()},
        "inverted as measured, not below": {k: -values for k, values in off.items()},
        "true above random with batch norm": alpha_ratio(
            inverted(recorded, "batch,true"), inverted(recorded, "batch,random"), m
        ),
        "true above random with group norm": alpha_ratio(
            inverted(recorded, "group,true"), inverted(recorded, "group,random"), m
        ),
        "random labels usually below 5 with batch norm": inverted(recorded, "batch,random"),
    }
    return given(unfitted, claims)


def table(recorded):
    rows = []
    for norm in NORMS:
        for label in LABELS:
            arm = f"{norm},{label}"
            spread = recorded[f"{arm}/inverted"].std(-1, ddof=1)
            direct = in_the_middle(recorded, arm, recorded[f"{arm}/m_coherence"])
            rows.append(
                {
                    "norm, labels": arm,
                    "fitted": recorded[f"{arm}/accuracy"][:, -1],
                    "test": recorded[f"{arm}/test_accuracy"][:, -1],
                    "through batches": inverted(recorded, arm),
                    "spread of partitions": in_the_middle(recorded, arm, spread),
                    "per example": "-" if norm == "batch" else direct,
                }
            )
    shares = ", ".join(f"{level:.0%}" for level in LEVELS)
    return tabulate(rows, f"m-coherence, m = {recorded['m']}, a mean over {shares} of the loss")
