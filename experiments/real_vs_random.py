"""On true labels a training example's gradient helps many others; on random labels, hardly any besides itself.

The same network is trained on true and on permuted labels until it fits both. At equal training loss and equal m, m-coherence is
higher on true labels, and only there does the network generalize. Winsorizing the batch's gradients (pulling in each coordinate's
most extreme examples) takes away the weak, unshared directions: random labels are no longer memorized.
"""

import dataclasses

import numpy as np

from coherence.claims import Claim
from coherence.data.settings import MNIST, Digits, LabelNoise, Npz
from coherence.experiment import Experiment
from coherence.models.settings import Convolutional, FullyConnected
from coherence.optim.settings import SGD, Average, Winsorize
from coherence.probes.settings import Probing
from coherence.report.tables import aligned, plus_minus
from coherence.training.classification import Classification
from coherence.training.curves import at_loss_levels, stacked

LEVELS = (0.75, 0.5, 0.25)
WINDOW = 50
FITTED = 0.95
CURVES = ("train_loss", "train_accuracy", "test_accuracy", "train/m_coherence")


@dataclasses.dataclass(frozen=True)
class Settings:
    data: Digits | MNIST | Npz = Digits()
    model: FullyConnected | Convolutional = FullyConnected(width=64, depth=3)
    learning_rate: float = 0.1
    batch_size: int = 100
    steps: int = 5000
    sample: int = 500
    """Training examples in the fixed sample whose coherence is drawn."""
    c: float = 2.0
    """Winsorize to this percentile, from either side."""
    seeds: int = 5


PRESETS = {
    "demo": Settings(),
    "smoke": Settings(model=FullyConnected(width=32, depth=1), steps=300, sample=100, seeds=2),
    "cpu": Settings(data=MNIST(examples=5000), model=FullyConnected(width=128, depth=3), steps=6000, sample=1000, seeds=8),
    "paper": Settings(data=MNIST(), model=FullyConnected(width=2048, depth=1), steps=100_000, sample=10_000, seeds=8),
}

# What was fixed when: thresholds before any run. Step size (the paper's 0.1), depth and the three levels (the first version judged
# 50 % alone) after trial runs of 1-3 seeds on digits, some of which had real below random at 50 % with smaller steps. The MNIST
# preset was tried with one seed for whether it fits.
_PAPER = "Chatterjee & Zielinski, arXiv:2203.10036, Section 6"
CLAIMS = (
    *(
        Claim(
            name=f"real above random at {level:.0%}",
            text=f"At {level:.0%} of the initial training loss, coherence is higher on true than on random labels.",
            source=_PAPER,
            known="read",
            statistic=f"log2 of m-coherence on true over random labels at {level:.0%} of the initial loss, pooled over {WINDOW} steps",
            direction="greater",
            unit="doublings",
        )
        for level in LEVELS
    ),
    Claim(
        name="out of nothing",
        text="While random labels are fitted, their gradients become coherent, too: above the orthogonal limit.",
        source="Chatterjee & Zielinski, arXiv:2008.01217, abstract",
        known="read",
        statistic="m-coherence on random labels at 50 % of the initial training loss, minus 1",
        direction="greater",
        unit="examples",
    ),
    Claim(
        name="memorized without generalizing",
        text="The network that fits random labels does not generalize; the same network on true labels does.",
        source=_PAPER,
        known="second-hand",
        statistic="generalization gap (train minus test accuracy) on random minus on true labels, at the end",
        direction="greater",
        threshold=0.5,
        unit="accuracy",
    ),
    Claim(
        name="winsorizing prevents memorization",
        text="Winsorized SGD does not memorize random labels that SGD memorizes in as many steps.",
        source="Chatterjee, arXiv:2002.10657, Section 3",
        known="second-hand",
        statistic="final training accuracy on random labels, SGD minus winsorized",
        direction="greater",
        threshold=0.1,
        unit="accuracy",
    ),
    Claim(
        name="winsorizing keeps generalization",
        text="On true labels winsorizing costs little test accuracy.",
        source="Chatterjee, arXiv:2002.10657, Section 3",
        known="remembered",
        statistic="final test accuracy on true labels, winsorized minus SGD",
        direction="greater",
        threshold=-0.02,
        unit="accuracy",
    ),
)


def arms(settings):
    """True and random labels, each with SGD and winsorized."""
    labels = {"real": LabelNoise(0.0), "random": LabelNoise(1.0)}
    aggregators = {"sgd": Average(), "winsorized": Winsorize(settings.c)}
    return {
        f"{label}-{method}": Classification(
            data=settings.data,
            noise=noise,
            model=settings.model,
            aggregator=aggregator,
            optimizer=SGD(settings.learning_rate),
            batch_size=settings.batch_size,
            steps=settings.steps,
            probes=(Probing(m=settings.sample),),
        )
        for label, noise in labels.items()
        for method, aggregator in aggregators.items()
    }


def record(settings, runs):
    arrays = {"levels": np.array(LEVELS), "m": settings.batch_size, "sample": settings.sample, "c": settings.c}
    for arm, seeds in runs.items():
        for name, values in stacked(seeds, *CURVES).items():
            arrays[f"{arm}/{name.removeprefix('train/')}"] = values.astype(np.float32) if name != "step" else values
        arrays[f"{arm}/at_levels"] = np.stack([at_loss_levels(run, LEVELS, WINDOW) for run in seeds])
    return arrays


def _final(recorded, arm, name):
    return recorded[f"{arm}/{name}"][:, -1]


def _gap(recorded, arm):
    return _final(recorded, arm, "train_accuracy") - _final(recorded, arm, "test_accuracy")


def judge(recorded):
    real, random = (recorded[f"{arm}/at_levels"] for arm in ("real-sgd", "random-sgd"))
    fitted = {arm: _final(recorded, arm, "train_accuracy").min() for arm in ("real-sgd", "random-sgd")}
    says = "SGD did not fit {} labels: train accuracy {:.2f} < {}".format
    unfit = {arm: says(arm.split("-")[0], a, FITTED) for arm, a in fitted.items() if a < FITTED}
    precondition = "; ".join(unfit.values()) or None
    return {
        **{f"real above random at {level:.0%}": (np.log2(real[:, i] / random[:, i]), precondition) for i, level in enumerate(LEVELS)},
        "out of nothing": (random[:, LEVELS.index(0.5)] - 1, precondition),
        "memorized without generalizing": (_gap(recorded, "random-sgd") - _gap(recorded, "real-sgd"), precondition),
        "winsorizing prevents memorization": (
            _final(recorded, "random-sgd", "train_accuracy") - _final(recorded, "random-winsorized", "train_accuracy"),
            precondition,
        ),
        "winsorizing keeps generalization": (
            _final(recorded, "real-winsorized", "test_accuracy") - _final(recorded, "real-sgd", "test_accuracy"),
            unfit.get("real-sgd"),
        ),
    }


def table(recorded):
    header = ["labels, optimizer", "train acc.", "test acc.", "gap", *(f"m-coh. at {level:.0%}" for level in recorded["levels"])]
    names = {"sgd": "SGD", "winsorized": f"winsorized {recorded['c']:g} %"}
    rows = []
    for label in ("real", "random"):
        for method in names:
            arm = f"{label}-{method}"
            numbers = [_final(recorded, arm, "train_accuracy"), _final(recorded, arm, "test_accuracy"), _gap(recorded, arm)]
            rows.append([f"{label}, {names[method]}", *map(plus_minus, numbers), *map(plus_minus, recorded[f"{arm}/at_levels"].T)])
    note = (
        f"mean ± half of the 95 % interval over seeds; m-coherence of batches of m = {recorded['m']} (1 = orthogonal, m = identical),\n"
        f"pooled over {WINDOW} steps, where the training loss first falls to that share of its initial value; - if a seed never gets there"
    )
    return f"{aligned(header, rows)}\n{note}"


EXPERIMENT = Experiment(
    name="real_vs_random",
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
