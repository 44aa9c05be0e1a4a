"""Do random labels look coherent because weights are shared? Alpha of a whole network, and of its
layers.

A small AlexNet (convolutions, then large dense layers) is trained on CIFAR-10 images with true and
with permuted labels, at the step size of 0.01 that the source reports its counter-example at. On a
fixed sample m-coherence is measured of the whole network and of every layer. If sharing a kernel
between places is why convolutions look coherent, then locally connected layers, which have a kernel
at every place and nothing else changed, do not: they are the control.
"""

from dataclasses import dataclass, replace

import numpy as np

from coherence.lab.analysis import (
    alpha_ratio,
    first_at,
    given,
    single,
    stacked,
    stacked_parts,
    tabulate,
    too_low,
    under,
)
from coherence.lab.settings import AlexNet, Probing, digits, label_noise, npz, sgd
from coherence.lab.training.classification import Classification
from coherence.probes.schedules import LogSpaced

LEVELS = (0.75, 0.5, 0.25)  # of the initial training loss: the middle of training
FITTED = 0.95
LABELS = {"true": label_noise(0.0), "random": label_noise(1.0)}
CONVOLUTIONS, DENSE = ("conv_0", "conv_1", "conv_2"), ("dense_0", "dense_1")
POINTS = 16  # a decade of steps
JUDGED = 250  # examples whose m-coherence is judged as a number: it grows with m


def _probing(m, batch_size=250):
    return Probing(
        m=m,
        quantities=("m_coherence", "m_coherence_by_layer"),
        groups="none",
        when=LogSpaced(POINTS),
        few=2,
        batch_size=batch_size,
    )


@dataclass(frozen=True)
class Settings:
    run: Classification = Classification(
        data=npz("cifar10-jpeg/cifar10_jpeg_12k.npz", examples=1000),
        model=AlexNet(width=8, dense=128),
        optimizer=sgd(0.01, 0.9),
        steps=600,
        points_per_decade=POINTS,
        probes=(_probing(500),),
        track_batches=False,
    )
    local_steps: int = 1000
    """Without shared weights, labels take longer to be fitted."""
    seeds: int = 8


_SMALL = Classification(
    data=digits(examples=100),
    model=AlexNet(width=2, dense=8, shape=(8, 8, 1)),
    optimizer=sgd(0.01, 0.9),
    batch_size=50,
    steps=20,
    points_per_decade=POINTS,
    probes=(_probing(20, 20),),
    track_batches=False,
)
# AlexNet on ImageNet is out of reach; a wider one on all 10,000 images is the largest at hand.
_LARGE = replace(
    Settings.run,
    data=npz("cifar10-jpeg/cifar10_jpeg_12k.npz", examples=10_000),
    model=AlexNet(width=32, dense=1024),
    steps=20_000,
    probes=(_probing(5000),),
)
PRESETS = {
    "smoke": Settings(_SMALL, local_steps=20, seeds=2),
    "cpu": Settings(),
    "paper": Settings(_LARGE, local_steps=40_000, seeds=4),
}

# What was fixed when: all before any measurement of coherence of these networks. Training losses
# and accuracies of one other seed on random labels were looked at, for the number of steps and of
# images: 500 are fitted in 250 steps, 2,000 in 750, and locally connected layers take twice the
# steps and three times the time of each. A first recording with 500 images, a sample of 250 and 4
# seeds decided none of the claims, which stayed; hence 1,000 images and 8 seeds. The sample was
# doubled, too, and what was fixed for 250 examples is still judged for 250. Momentum is ours:
# whether the source had any was not read.


def arms(settings):
    """True and random labels, with shared weights and locally connected."""
    run = settings.run
    nets = {
        "shared": run,
        "local": replace(run, model=replace(run.model, shared=False), steps=settings.local_steps),
    }
    return {
        f"{net},{label}": replace(run, noise=noise)
        for net, run in nets.items()
        for label, noise in LABELS.items()
    }


def record(settings, runs):
    """Curves by step, and m-coherence where the training loss is down at levels: [seed, level]."""
    arrays = {"levels": np.array(LEVELS), "m": settings.run.probes[0].m, "arms": np.array([*runs])}
    for arm, seeds in runs.items():
        names = ("train_loss", "train_accuracy", "test_accuracy", "train/m_coherence")
        curves = stacked(seeds, *names)
        curves["m_coherence"] = curves.pop("train/m_coherence")
        layers, by_layer = stacked_parts(seeds, "train/m_coherence_by_layer")
        arrays["layers"] = np.array(layers)
        arrays |= under(arm, single({**curves, "by_layer": by_layer}))
    return arrays


def in_the_middle(recorded, arm, name, layer=None):
    """m-coherence, a mean over the levels of the training loss: [seed]; nan where one is missed."""
    values = recorded[f"{arm}/{name}"].astype(float)
    if layer is not None:
        values = values[..., list(recorded["layers"]).index(layer)]
    loss = recorded[f"{arm}/train_loss"].astype(float)
    levels = recorded["levels"] * loss[:, :1]
    return first_at(loss[:, None], values[:, None], levels, falling=True).mean(1)


def of_examples(m_coherence, m, fewer):
    """What the m-coherence of m examples would be of fewer, by the same unbiased alpha."""
    return 1 + (fewer - 1) * (m_coherence - 1) / (m - 1)


def judge(recorded):
    m = int(recorded["m"])
    accuracies = [recorded[f"{arm}/train_accuracy"][:, -1] for arm in recorded["arms"]]
    unfitted = too_low(np.min(accuracies), FITTED, "labels fitted at the end")
    layer = lambda arm, name: in_the_middle(recorded, arm, "by_layer", name)

    def told(net, layers):  # true over random labels
        return {
            n: alpha_ratio(layer(f"{net},true", n), layer(f"{net},random", n), m) for n in layers
        }

    def alphas(arm, layers):  # unbiased, the mean over layers
        return np.mean([(layer(arm, name) - 1) / (m - 1) for name in layers], 0)

    def doublings(net, layers):
        return np.log2(alphas(f"{net},true", layers)) - np.log2(alphas(f"{net},random", layers))

    dense = [layer("shared,random", name) for name in DENSE]
    conv = [layer("shared,random", name) for name in CONVOLUTIONS]
    claims = {
        "random labels look coherent": of_examples(
            in_the_middle(recorded, "shared,random", "m_coherence"), m, JUDGED
        ),
        "dense layers tell true from random": told("shared", DENSE),
        "convolutions tell them apart less": doublings("shared", DENSE)
        - doublings("shared", CONVOLUTIONS),
        "convolutions above dense layers on random labels": alpha_ratio(
            np.mean(conv, 0), np.mean(dense, 0), m
        ),
        "weight sharing is why": {
            name: alpha_ratio(layer("shared,random", name), layer("local,random", name), m)
            for name in CONVOLUTIONS
        },
        "locally connected layers tell true from random": told("local", CONVOLUTIONS),
    }
    return given(unfitted, claims)


def table(recorded):
    rows = []
    for arm in recorded["arms"]:
        layers = {
            name: in_the_middle(recorded, arm, "by_layer", name) for name in recorded["layers"]
        }
        rows.append(
            {
                "weights, labels": arm,
                "fitted": recorded[f"{arm}/train_accuracy"][:, -1],
                "test": recorded[f"{arm}/test_accuracy"][:, -1],
                "whole": in_the_middle(recorded, arm, "m_coherence"),
                **layers,
            }
        )
    shares = ", ".join(f"{level:.0%}" for level in recorded["levels"])
    return tabulate(rows, f"m-coherence, m = {recorded['m']}, a mean over {shares} of the loss")
