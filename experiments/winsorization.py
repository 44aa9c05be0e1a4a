"""Pulling in the few most extreme per-example gradients of every coordinate stops memorization and little else.

Networks are trained with a growing share of random labels, by SGD whose batch gradients are winsorized at c = 0 (plain SGD), 1, 2, 4
and 8 percent. Suppressing weak directions also slows fitting, so memorization is compared twice: after equally many steps, and at
equal accuracy on the pristine training examples, where plain SGD is in effect stopped early.
"""

import dataclasses

import numpy as np

from coherence.claims import Claim, interval
from coherence.data.settings import MNIST, Digits, LabelNoise, Npz
from coherence.experiment import Experiment
from coherence.models.settings import Convolutional, FullyConnected
from coherence.optim.settings import SGD, Average, Winsorize
from coherence.report.tables import aligned
from coherence.training.classification import Classification
from coherence.training.curves import stacked

CURVES = ("train_accuracy", "test_accuracy", "pristine_accuracy", "corrupt_accuracy")
NOISE, C = 0.5, 2.0  # where the claims are judged
MEMORIZED = 0.9


@dataclasses.dataclass(frozen=True)
class Settings:
    data: Digits | MNIST | Npz = Digits()
    model: FullyConnected | Convolutional = FullyConnected(width=64, depth=3)
    noise: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Shares of the training labels that are permuted."""
    c: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0, 8.0)
    """Percent of a batch's gradients pulled in from either side; 0 is plain SGD."""
    learning_rate: float = 0.1
    batch_size: int = 100
    steps: int = 4000
    points_per_decade: int = 6
    seeds: int = 8


PRESETS = {
    "smoke": Settings(model=FullyConnected(width=24, depth=1), noise=(0.0, 0.5), c=(0.0, 2.0), steps=200, seeds=2),
    "cpu": Settings(),
    "paper": Settings(data=MNIST(), model=FullyConnected(width=256, depth=3), steps=60_000),
}

_PAPER = "Chatterjee, arXiv:2002.10657, Section 3"
CLAIMS = (
    Claim(
        name="memorization suppressed",
        text="With half of the labels random, winsorizing at 2 % keeps corrupt labels from being memorized that SGD memorizes.",
        source=_PAPER,
        known="second-hand",
        statistic="share of corrupt examples fitted at the end, SGD minus c = 2",
        direction="greater",
        threshold=0.1,
        unit="of corrupt examples",
    ),
    Claim(
        name="suppressed at equal fit",
        text="Also where plain SGD is stopped at the same accuracy on pristine examples, it has memorized more.",
        source="a control of ours; the papers compare at equal steps",
        known="derived",
        statistic="share of corrupt examples fitted when pristine accuracy is what c = 2 ends with, SGD minus c = 2",
        direction="greater",
        unit="of corrupt examples",
    ),
    Claim(
        name="overfit falls with c",
        text="Adjusted overfit falls monotonically with c.",
        source=_PAPER,
        known="second-hand",
        statistic="Spearman's rank correlation of c and adjusted overfit at noise 50 %, at the end",
        direction="less",
        threshold=-0.8,
        unit="rank correlation",
    ),
    Claim(
        name="test accuracy kept",
        text="Under noise, test accuracy at the end is no worse winsorized than with SGD.",
        source=_PAPER,
        known="remembered",
        statistic="test accuracy at noise 50 %, at the end, c = 2 minus SGD",
        direction="greater",
        threshold=0.0,
        unit="accuracy",
    ),
    Claim(
        name="large c hurts fitting",
        text="Winsorized at 8 %, clean data are fitted less well than by SGD in as many steps.",
        source=_PAPER,
        known="second-hand",
        statistic="training accuracy without noise, at the end, SGD minus the largest c",
        direction="greater",
        unit="accuracy",
    ),
)


def arms(settings):
    """Every share of noise with every c; c = 0 needs no per-example gradients."""
    return {
        f"noise={noise:g},c={c:g}": Classification(
            data=settings.data,
            noise=LabelNoise(noise),
            model=settings.model,
            aggregator=Winsorize(c) if c else Average(),
            optimizer=SGD(settings.learning_rate),
            batch_size=settings.batch_size,
            steps=settings.steps,
            points_per_decade=settings.points_per_decade,
            track_batches=False,
        )
        for noise in settings.noise
        for c in settings.c
    }


def record(settings, runs):
    """Curves as [noise, c, seed, step]."""
    grid = {name: [] for name in CURVES}
    for noise in settings.noise:
        rows = [stacked(runs[f"noise={noise:g},c={c:g}"], *CURVES) for c in settings.c]
        for name in CURVES:
            grid[name].append([row[name] for row in rows])
    curves = {name: np.array(values, np.float32) for name, values in grid.items()}
    return {"noise": np.array(settings.noise), "c": np.array(settings.c), "step": rows[0]["step"], **curves}


def _cell(recorded, name, noise, c):
    """[seed, step] of one cell of the grid."""
    return recorded[name][int(np.argmin(np.abs(recorded["noise"] - noise))), int(np.argmin(np.abs(recorded["c"] - c)))]


def adjusted_overfit(recorded, classes=10):
    """Training accuracy beyond what a perfect fit of the true labels explains: ta - [noise / classes + (1 - noise) va]."""
    noise = recorded["noise"][:, None, None, None]
    return recorded["train_accuracy"] - (noise / classes + (1 - noise) * recorded["test_accuracy"])


def memorized_at(pristine, corrupt, level):
    """Share of corrupt examples fitted when pristine accuracy first reaches `level`, between measurements by interpolation."""
    after = int(np.argmax(pristine >= level)) if (pristine >= level).any() else None
    if after is None:
        return np.nan
    if after == 0:
        return corrupt[0]
    share = (level - pristine[after - 1]) / (pristine[after] - pristine[after - 1])
    return corrupt[after - 1] + share * (corrupt[after] - corrupt[after - 1])


def judge(recorded):
    from scipy.stats import spearmanr

    missing = [f"{name} {value:g} was not run" for name, value in (("noise", NOISE), ("c", C), ("c", 0.0)) if value not in recorded[name]]
    if missing:
        return {claim.name: (np.array([]), "; ".join(missing)) for claim in CLAIMS}
    corrupt = {c: _cell(recorded, "corrupt_accuracy", NOISE, c) for c in (0.0, C)}
    pristine = {c: _cell(recorded, "pristine_accuracy", NOISE, c) for c in (0.0, C)}
    lowest = corrupt[0.0][:, -1].min()
    precondition = None if lowest >= MEMORIZED else f"SGD did not memorize: corrupt accuracy {lowest:.2f} < {MEMORIZED}"
    seeds = range(len(corrupt[0.0]))
    stopped = np.array([memorized_at(pristine[0.0][s], corrupt[0.0][s], pristine[C][s, -1]) for s in seeds])
    overfit = adjusted_overfit(recorded)[int(np.argmin(np.abs(recorded["noise"] - NOISE))), :, :, -1]
    test = {c: _cell(recorded, "test_accuracy", NOISE, c)[:, -1] for c in (0.0, C)}
    clean = {c: _cell(recorded, "train_accuracy", 0.0, c)[:, -1] for c in (0.0, recorded["c"].max())}
    return {
        "memorization suppressed": (corrupt[0.0][:, -1] - corrupt[C][:, -1], precondition),
        "suppressed at equal fit": (stopped - corrupt[C][:, -1], precondition),
        "overfit falls with c": (np.array([spearmanr(recorded["c"], overfit[:, s]).statistic for s in seeds]), precondition),
        "test accuracy kept": (test[C] - test[0.0], precondition),
        "large c hurts fitting": (clean[0.0] - clean[recorded["c"].max()], None),
    }


def table(recorded):
    overfit = adjusted_overfit(recorded)[..., -1]
    shown = {"train": "train_accuracy", "test": "test_accuracy", "corrupt fitted": "corrupt_accuracy"}
    rows = []
    for i, noise in enumerate(recorded["noise"]):
        for j, c in enumerate(recorded["c"]):
            cells = [*(recorded[name][i, j, :, -1] for name in shown.values()), overfit[i, j]]
            rows.append([f"{noise:.0%}", f"{c:g}", *map(_text, cells)])
    note = "accuracies after the last step: mean ± half of the 95 % interval over seeds"
    return f"{aligned(['noise', 'c', *shown, 'adjusted overfit'], rows)}\n{note}"


def _text(values):
    mean, low, _ = interval(values)
    return "-" if np.isnan(mean) else f"{mean:.3f} ± {mean - low:.3f}"


EXPERIMENT = Experiment(
    name="winsorization",
    claims=CLAIMS,
    presets=PRESETS,
    arms=arms,
    record=record,
    judge=judge,
    table=table,
    at_source_scale=lambda settings: dataclasses.replace(settings, seeds=PRESETS["paper"].seeds) == PRESETS["paper"],
)

if __name__ == "__main__":
    from coherence.running import main

    main(EXPERIMENT)
