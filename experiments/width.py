"""Wider networks generalize better because more of what they learn is shared: accuracy and coherence by width at equal training loss.

Networks of growing width learn digits with some random labels, in the standard and in the maximal
update parametrization, each at a learning rate of its own: the preset `tuning` holds out a fifth of
the training examples and says which rate of a small grid leads to the best accuracy on them. What
is compared is test accuracy and m-coherence of batches of one size, where training loss first falls
to the same level.
"""

import dataclasses
import functools

import numpy as np

from coherence.lab.analysis import at_losses, first_at, stacked
from coherence.lab.claims import Source, above
from coherence.lab.experiment import all_arms
from coherence.lab.report.tables import aligned, plus_minus
from coherence.lab.settings import MLP, MuMLP, digits, label_noise, mnist, sgd
from coherence.lab.training.classification import Classification

LEVELS = (2.0, 1.8, 1.5, 1.2, 1.0, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1)  # nats; log 10 = 2.3 at chance
EARLY, LATE, FITTED = (
    1.5,
    0.65,
    0.35,
)  # nats: true labels are learned; random ones are being memorized; half of them are
WINDOW = 20  # steps
NAMES = {"standard": "standard parametrization", "mu": "maximal update"}


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The training examples of a data set, their last fifth in place of its test examples: to tune on."""

    of: digits | mnist = digits()

    def build(self):
        every = self.of.build()
        kept = len(every.y_train) * 4 // 5
        parts = {"x_train": every.x_train[:kept], "y_train": every.y_train[:kept]}
        held = {"x_test": every.x_train[kept:], "y_test": every.y_train[kept:]}
        return dataclasses.replace(
            every, name=f"{every.name}, a fifth of the training examples held out", **parts, **held
        )


@dataclasses.dataclass(frozen=True)
class Settings:
    data: digits | mnist | HeldOut = digits()
    noise: float = 0.2
    depth: int = 2
    widths: tuple[int, ...] = (32, 128, 512)
    base_width: int = 128
    """Where both parametrizations are the same network."""
    standard_rates: tuple[float, ...] = (0.3, 0.3, 0.3)
    """Learning rates by width, from the preset `tuning`."""
    mu_rates: tuple[float, ...] = (0.9, 0.3, 0.1)
    factors: tuple[float, ...] = (1.0,)
    """For tuning: every rate times each of these; the one with the best accuracy counts."""
    batch_size: int = 100
    steps: int = 5000
    seeds: int = 8


PRESETS = {
    "smoke": Settings(
        depth=1,
        widths=(8,),
        base_width=16,
        standard_rates=(0.1,),
        mu_rates=(0.1,),
        steps=60,
        seeds=2,
    ),
    "tuning": Settings(
        data=HeldOut(),
        standard_rates=(0.3,) * 3,
        mu_rates=(0.3,) * 3,
        factors=(1 / 3, 1.0, 3.0),
        steps=3000,
        seeds=2,
    ),
    "cpu": Settings(),
    "paper": Settings(data=mnist(), widths=(64, 256, 1024), base_width=256, steps=60_000),
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
_PAPER = Source("Chatterjee & Zielinski, arXiv:2203.10036, discussion of width", "read")


def _name(what, how):
    return f"{what}, {NAMES[how]}"


def _coherent(level):
    return f"wider is more coherent at {level:g}"


CLAIMS = tuple(
    _PAPER.claim(_name(name, how), text, f"{statistic}; widest against narrowest", above(0, unit))
    for how in NAMES
    for name, text, statistic, unit in (
        (
            "wider generalizes better",
            f"Where training loss has fallen to {FITTED:g} nats, the wider network has the higher test accuracy.",
            "difference of test accuracy, interpolated between measurements",
            "accuracy",
        ),
        *(
            (
                _coherent(level),
                f"At a training loss of {level:g} nats, gradients of the wider network are more coherent.",
                f"log2 ratio of m-coherence of the batches, pooled over {WINDOW} steps",
                "doublings",
            )
            for level in (EARLY, LATE)
        ),
    )
)


def arms(settings):
    networks = {
        "standard": functools.partial(MLP, initializer="he"),
        "mu": functools.partial(MuMLP, base_width=settings.base_width),
    }

    def one(how, width, rate):
        return Classification(
            data=settings.data,
            noise=label_noise(settings.noise),
            model=networks[how](width, settings.depth),
            optimizer=sgd(rate),
            batch_size=settings.batch_size,
            steps=settings.steps,
            points_per_decade=16,
            probes=(),
        )

    return {
        _arm(how, width, factor, settings): one(how, width, rate * factor)
        for how in NAMES
        for width, rate in zip(settings.widths, _rates(settings, how), strict=True)
        for factor in settings.factors
    }


def _rates(settings, how):
    return {"standard": settings.standard_rates, "mu": settings.mu_rates}[how]


def _arm(how, width, factor, settings):
    return f"{how}-{width}" + (f",x{factor:g}" if len(settings.factors) > 1 else "")


def record(settings, runs):
    """What each network has at its best rate; `tuning`: the accuracies that made it the best."""
    arrays = {
        "widths": np.array(settings.widths),
        "levels": np.array(LEVELS),
        "m": settings.batch_size,
        "noise": settings.noise,
    }
    for how in NAMES:
        for width, rate in zip(settings.widths, _rates(settings, how)):
            tried = [
                _at_levels(runs[_arm(how, width, factor, settings)]) for factor in settings.factors
            ]
            reached = np.array(
                [one["test_accuracy"][:, LEVELS.index(FITTED)].mean() for one in tried]
            )
            best = best_rate(reached)
            found = {
                **tried[best],
                "rates": rate * np.array(settings.factors),
                "tuning": reached,
                "rate": rate * settings.factors[best],
            }
            parameters = sum(
                leaf.size
                for leaf in runs[_arm(how, width, settings.factors[best], settings)][0]
                .load("params")
                .values()
            )
            arrays |= {
                f"{how}-{width}/{name}": values
                for name, values in {**found, "parameters": parameters}.items()
            }
    return arrays


def best_rate(accuracies):
    """Which rate led to the highest accuracy; one with which a seed did not get there (nan) only where there is no other."""
    return int(np.argmax(np.where(np.isnan(accuracies), -1, accuracies)))


def _at_levels(runs):
    """What the runs of one arm had when training loss first fell to each level: {name: [seed, level]}."""
    curves = stacked(runs, "train_loss", "test_accuracy", "corrupt_accuracy")
    found = {
        name: np.array(
            [
                first_at(*pair, LEVELS, falling=True)
                for pair in zip(curves["train_loss"], curves[name])
            ]
        )
        for name in ("test_accuracy", "corrupt_accuracy")
    }
    return {
        **found,
        "m_coherence": at_losses(runs, LEVELS, WINDOW),
        "last_loss": curves["train_loss"][:, -1],
    }


def judge(recorded):
    found = {}
    for how in NAMES:
        narrow, wide = (f"{how}-{width}" for width in recorded["widths"][[0, -1]])
        at = lambda arm, name, level: recorded[f"{arm}/{name}"][:, LEVELS.index(level)]
        found[_name("wider generalizes better", how)] = (
            at(wide, "test_accuracy", FITTED) - at(narrow, "test_accuracy", FITTED),
            None,
        )
        for level in (EARLY, LATE):
            ratio = at(wide, "m_coherence", level) / at(narrow, "m_coherence", level)
            found[_name(_coherent(level), how)] = (np.log2(ratio), None)
    return found


def table(recorded):
    rows, tuning = [], []
    for how in NAMES:
        for width in recorded["widths"]:
            arm = f"{how}-{width}"
            what = [
                ("m_coherence", EARLY),
                ("m_coherence", LATE),
                ("test_accuracy", LATE),
                ("test_accuracy", FITTED),
            ]
            cells = [
                plus_minus(recorded[f"{arm}/{name}"][:, LEVELS.index(level)])
                for name, level in what
            ]
            best = recorded[f"{arm}/test_accuracy"]
            cells.append(
                plus_minus(np.where(np.isnan(best).all(1), np.nan, np.nan_to_num(best).max(1)))
            )
            rows.append(
                [
                    how,
                    width,
                    f"{recorded[f'{arm}/parameters']:,}",
                    f"{recorded[f'{arm}/rate']:g}",
                    *cells,
                ]
            )
            each_rate = recorded[f"{arm}/rates"]
            found = ", ".join(
                f"{rate:g} {accuracy:.3f}"
                for rate, accuracy in zip(each_rate, recorded[f"{arm}/tuning"])
            )
            tuning.append(f"{arm}: {found}")
    header = [
        "parametrization",
        "width",
        "parameters",
        "rate",
        f"m-coh. at {EARLY:g}",
        f"at {LATE:g}",
        f"test at {LATE:g}",
    ]
    note = f"at a training loss of so many nats, m = {recorded['m']}; mean ± half of the 95 % interval over seeds; - if one never gets there"
    tried = (
        "\n\naccuracy by learning rate, where training loss has fallen to "
        + f"{FITTED:g} nats\n"
        + "\n".join(tuning)
    )
    more = tried if len(each_rate) > 1 else ""
    return f"{aligned([*header, f'at {FITTED:g}', 'best level'], rows)}\n{note}{more}"
