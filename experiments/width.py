"""Do wider networks generalize better because more of what they learn is shared? Accuracy and
coherence by width at equal training loss.

Networks of growing width learn digits with some random labels, in the standard and in the maximal
update parametrization, each at a learning rate of its own: the preset `tuning` holds out a fifth of
the training examples and says which rate of a small grid leads to the best accuracy on them. What
is compared is test accuracy and m-coherence of batches of one size, where training loss first falls
to the same level.
"""

import functools
from dataclasses import dataclass, replace

import numpy as np

from coherence.lab.analysis import (
    alpha_ratio,
    at_losses,
    first_at,
    parameter_count,
    stacked,
    tabulate,
    under,
)
from coherence.lab.experiment import all_arms
from coherence.lab.settings import MLP, MuMLP, digits, label_noise, mnist, sgd
from coherence.lab.training.classification import Classification

LEVELS = (2.0, 1.8, 1.5, 1.2, 1.0, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1)  # nats; log 10 = 2.3 at chance
# Nats: true labels are learned; random ones are being memorized; half of them are.
EARLY, LATE, FITTED = 1.5, 0.65, 0.35
WINDOW = 20  # steps
NAMES = {"standard": "standard parametrization", "mu": "maximal update"}


@dataclass(frozen=True)
class HeldOut:
    """The training examples of a data set, the last fifth of them to test on: to tune with."""

    whole: digits | mnist = digits()

    def build(self):
        data = self.whole.build()
        cut = len(data.y_train) * 4 // 5
        return replace(
            data,
            name=f"{data.name}, a fifth of the training examples held out",
            x_train=data.x_train[:cut],
            y_train=data.y_train[:cut],
            x_test=data.x_train[cut:],
            y_test=data.y_train[cut:],
        )


@dataclass(frozen=True)
class Network(Classification):
    """A classifier, to be tuned with held-out examples, too."""

    data: digits | mnist | HeldOut = digits()


@dataclass(frozen=True)
class Settings:
    run: Network = Network(noise=label_noise(0.2), steps=5000, points_per_decade=16, probes=())
    depth: int = 2
    widths: tuple[int, ...] = (32, 128, 512)
    base_width: int = 128
    """Where both parametrizations are the same network."""
    standard_rates: tuple[float, ...] = (0.3, 0.3, 0.3)
    """Learning rates by width, from the preset `tuning`."""
    mu_rates: tuple[float, ...] = (0.9, 0.3, 0.1)
    factors: tuple[float, ...] = (1.0,)
    """For tuning: every rate times each of these; the one with the best accuracy counts."""
    seeds: int = 8


RUN = Settings.run
PRESETS = {
    "smoke": Settings(replace(RUN, steps=60), 1, (8,), 16, (0.1,), (0.1,), seeds=2),
    "tuning": Settings(
        replace(RUN, data=HeldOut(), steps=3000),
        standard_rates=(0.3,) * 3,
        mu_rates=(0.3,) * 3,
        factors=(1 / 3, 1.0, 3.0),
        seeds=2,
    ),
    "cpu": Settings(),
    "paper": Settings(
        replace(RUN, data=mnist(), steps=60_000), widths=(64, 256, 1024), base_width=256
    ),
}
scale = all_arms

# What was fixed when: statistics, their direction and thresholds before any run. Loss levels,
# widths and steps were set by single runs with another seed, for whether the narrowest networks get
# there, and once more after a first tuning at 2,000 steps, in which the narrowest standard one did
# not fall to 0.35 nats. Both tunings (two seeds, a fifth of the training examples held out) showed
# higher held-out accuracy the wider in both parametrizations, and no clear order of m-coherence.
# The grid is coarse (0.1, 0.3, 0.9) and two seeds on 288 examples do not tell its best two apart:
# mu's three rates are less different than they look (0.845 and 0.861; 0.915 and 0.921). The preset
# `cpu` first took 3,000 steps, in which one narrow network of eight did not fall to 0.35 nats, so
# that generalization stayed inconclusive (of the four on coherence three were not reproduced, one
# inconclusive). Steps became 5,000; nothing else was changed.


def _name(what, how):
    return f"{what}, {NAMES[how]}"


def _coherent(level):
    return f"wider is more coherent at {level:g}"


def arms(settings):
    mu = functools.partial(MuMLP, base_width=settings.base_width)
    networks, plans = {"standard": functools.partial(MLP, initializer="he"), "mu": mu}, {}
    for how in NAMES:
        for width, rate in zip(settings.widths, _rates(settings, how), strict=True):
            model = networks[how](width, settings.depth)
            for factor in settings.factors:
                run = replace(settings.run, model=model, optimizer=sgd(rate * factor))
                plans[_arm(how, width, factor, settings)] = run
    return plans


def _rates(settings, how):
    return {"standard": settings.standard_rates, "mu": settings.mu_rates}[how]


def _arm(how, width, factor, settings):
    return f"{how}-{width}" + (f",x{factor:g}" if len(settings.factors) > 1 else "")


def record(settings, runs):
    """What each network has at its best rate; `tuning`: the accuracies that made it the best."""
    arrays = {
        "widths": np.array(settings.widths),
        "levels": np.array(LEVELS),
        "judged": np.array([EARLY, LATE, FITTED]),
        "m": settings.run.batch_size,
        "noise": settings.run.noise.fraction,
    }
    for how in NAMES:
        for width, rate in zip(settings.widths, _rates(settings, how)):
            names = [_arm(how, width, factor, settings) for factor in settings.factors]
            tried = [_at_levels(runs[name]) for name in names]
            fitted = LEVELS.index(FITTED)
            accuracies = np.array([at["test_accuracy"][:, fitted].mean() for at in tried])
            best = best_rate(accuracies)
            rates = {
                "rates": rate * np.array(settings.factors),
                "tuning": accuracies,
                "rate": rate * settings.factors[best],
                "parameters": parameter_count(runs[names[best]][0]),
            }
            arrays |= under(f"{how}-{width}", {**tried[best], **rates})
    return arrays


def best_rate(accuracies):
    """The index of the rate with the highest accuracy.

    One with which a seed did not get there (nan) counts only where there is no other.
    """
    return int(np.argmax(np.where(np.isnan(accuracies), -1, accuracies)))


def _at_levels(runs):
    """What one arm had when training loss first fell to each level: {name: [seed, level]}."""
    curves = stacked(runs, "train_loss", "test_accuracy", "corrupt_accuracy")
    at = lambda name: first_at(
        curves["train_loss"][:, None], curves[name][:, None], LEVELS, falling=True
    )
    return {
        "test_accuracy": at("test_accuracy"),
        "corrupt_accuracy": at("corrupt_accuracy"),
        "m_coherence": at_losses(runs, LEVELS, WINDOW),
        "last_loss": curves["train_loss"][:, -1],
    }


def _at(recorded, arm, name, level):
    return recorded[f"{arm}/{name}"][:, LEVELS.index(level)]


def judge(recorded):
    tested = {}
    for how in NAMES:
        narrow, wide = (f"{how}-{width}" for width in recorded["widths"][[0, -1]])
        pair = lambda name, level, arms=(wide, narrow): [
            _at(recorded, arm, name, level) for arm in arms
        ]
        tested[_name("wider generalizes better", how)] = np.subtract(*pair("test_accuracy", FITTED))
        for level in (EARLY, LATE):
            ratio = alpha_ratio(*pair("m_coherence", level), int(recorded["m"]))
            tested[_name(_coherent(level), how)] = ratio
    return tested


def table(recorded):
    rows, tuning = [], []
    for how in NAMES:
        for width in recorded["widths"]:
            arm = f"{how}-{width}"
            at = lambda name, level, arm=arm: _at(recorded, arm, name, level)
            best = recorded[f"{arm}/test_accuracy"]
            never = np.isnan(best).all(1)
            rows.append(
                {
                    "parametrization": how,
                    "width": width,
                    "parameters": f"{recorded[f'{arm}/parameters']:,}",
                    "rate": f"{recorded[f'{arm}/rate']:g}",
                    f"m-coh. at {EARLY:g}": at("m_coherence", EARLY),
                    f"at {LATE:g}": at("m_coherence", LATE),
                    f"test at {LATE:g}": at("test_accuracy", LATE),
                    f"at {FITTED:g}": at("test_accuracy", FITTED),
                    "best level": np.where(never, np.nan, np.nan_to_num(best).max(1)),
                }
            )
            tried = zip(recorded[f"{arm}/rates"], recorded[f"{arm}/tuning"])
            accuracies = ", ".join(f"{rate:g} {accuracy:.3f}" for rate, accuracy in tried)
            tuning.append(f"{arm}: {accuracies}")
    note = f"at a training loss of so many nats, m = {recorded['m']}; - if one never gets there"
    if len(recorded[f"{arm}/rates"]) > 1:
        heading = f"accuracy by learning rate, where training loss has fallen to {FITTED:g} nats"
        note = "\n".join([note, "", heading, *tuning])
    return tabulate(rows, note)
