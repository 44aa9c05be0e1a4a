"""Training creates coherence: it rises, peaks and falls, later with more noise, and out of nothing
on random labels.

A convolutional network and a multilayer perceptron are trained on digits with none, half and all of
the labels permuted. On a fixed sample of the training examples m-coherence is measured at
log-spaced steps, of the whole network and of every layer; alpha of the layers, weighted by their
shares of the squared norms, is put together again. The convolutional network also learns random
labels at a quarter of the step size: what a large step shows can be oscillation.
"""

from dataclasses import dataclass, replace

import numpy as np

from coherence.lab.analysis import single, stacked, stacked_parts, tabulate, too_low, under
from coherence.lab.experiment import all_arms
from coherence.lab.settings import CNN, MLP, Probing, label_noise, mnist, sgd
from coherence.lab.training.classification import Classification
from coherence.probes.schedules import LogSpaced

TRANSIENT = 25  # steps
WINDOW = 3  # neighbouring points whose median is a point of a smoothed curve
MIDDLE = (0.75, 0.25)  # of the initial training loss: the middle of training lies between
MEMORIZED = 0.99
LIMIT = 1e-5
SMALLER = 4  # the small step's divisor
NOTHING = {"convolutions": "cnn-1", "convolutions, small step": "cnn-1-small", "dense": "mlp-1"}


@dataclass(frozen=True)
class FewDigits:
    """The first so many training examples of scikit-learn's digits."""

    examples: int = 1000

    def build(self):
        from coherence.lab.data import digits

        data = digits()
        x, y = data.x_train[: self.examples], data.y_train[: self.examples]
        return replace(data, x_train=x, y_train=y)


def squared_norm_by_layer(view):
    from coherence.gradients import squared_norms
    from coherence.trees import layer

    return {name: n.mean() for name, n in squared_norms(view.few, by=layer).items()}


LAYERS = Probing(
    quantities=("m_coherence", "m_coherence_by_layer", squared_norm_by_layer),
    groups="none",
    when=LogSpaced(12),
    stream=4,
)


@dataclass(frozen=True)
class Network(Classification):
    """A classifier whose layers are looked at on one fixed sample."""

    data: FewDigits | mnist = FewDigits()
    optimizer: sgd = sgd(0.03, 0.9)
    steps: int = 5000
    points_per_decade: int = 12
    probes: tuple[Probing, ...] = (LAYERS,)
    track_batches: bool = False


@dataclass(frozen=True)
class Settings:
    run: Network = Network()
    cnn: CNN = CNN(width=8, depth=3, shape=(8, 8, 1))
    mlp: MLP = MLP(width=64, depth=2)
    noise: tuple[float, ...] = (0.0, 0.5, 1.0)
    """Shares of the training labels that are permuted."""
    small_steps: int = 4500
    """How many at a quarter of the step size."""
    seeds: int = 8


PRESETS = {
    "smoke": Settings(
        Network(data=FewDigits(200), steps=60, probes=(replace(LAYERS, m=50),)),
        CNN(2, 1, shape=(8, 8, 1)),
        MLP(16, 1),
        (1.0,),
        small_steps=60,
        seeds=2,
    ),
    "cpu": Settings(),
    "paper": Settings(
        Network(data=mnist(), steps=100_000, probes=(replace(LAYERS, m=10_000, few=10_000),)),
        cnn=CNN(width=32, depth=4, shape=(28, 28, 1)),
        mlp=MLP(width=512, depth=3),
        small_steps=300_000,
    ),
}
scale = all_arms

# What was fixed when: statistics and thresholds before any run of these presets; none was moved
# after. Before that, single runs with other seeds, on other subsets of digits and at other step
# sizes, were looked at for whether random labels are fitted. They showed the transient, from a
# tenth of m at most; m-coherence of 4 to 15 in the middle of training on random labels, at small
# steps, too; and with true labels no clear second rise. That layers of convolutions are above those
# of an MLP looked doubtful. The preset `cpu` first took 2,500, then 4,000 steps, in which two, then
# one of eight networks had not fitted random labels; it took 5,000 for that, in vain (the loss of
# one bounces). Claims on a whole course first asked it of every noise; each noise's rise and fall
# now asks it of its own runs. With 4,000 steps, other points of measurement, convolutions were
# barely above the MLP's layers (+0.18 doublings, p 0.046); the other verdicts were the same. A run
# at two thirds of the step size was stopped for time at a fifth of its way; what it had measured
# was not looked at.


def _hump(noise):
    return f"coherence rises, peaks and falls, {noise:.0%} noise"


def arms(settings):
    run, sgd = settings.run, settings.run.optimizer
    grid = {
        f"{name}-{noise:g}": replace(run, model=model, noise=label_noise(noise))
        for name, model in {"cnn": settings.cnn, "mlp": settings.mlp}.items()
        for noise in settings.noise
    }
    small = replace(
        run,
        model=settings.cnn,
        noise=label_noise(1.0),
        optimizer=replace(sgd, learning_rate=sgd.learning_rate / SMALLER),
        steps=settings.small_steps,
    )
    return {**grid, "cnn-1-small": small}


def record(settings, runs):
    rate = settings.run.optimizer.learning_rate
    arrays = {
        "noise": np.array(settings.noise),
        "m": settings.run.probes[0].m,
        "arms": np.array(list(runs)),
        "middle": np.array(MIDDLE),
        "learning_rates": np.array([rate, rate / SMALLER]),
    }
    for arm, seeds in runs.items():
        names = ("train_loss", "train_accuracy", "test_accuracy", "train/m_coherence")
        step, loss, train, test, whole = stacked(seeds, *names).values()
        layers, coherence = stacked_parts(seeds, "train/m_coherence_by_layer")
        _, squares = stacked_parts(seeds, "train/squared_norm_by_layer")
        shares = squares / squares.sum(-1, keepdims=True)
        measured = {
            "loss": loss,
            "accuracy": np.stack([train, test])[..., -1],
            "m_coherence": whole,
            "by_layer": coherence,
            "shares": shares.mean(0),
            "deviation": np.abs((shares * coherence).sum(-1) / whole - 1).max(-1),
            "step": step,
            "layers": np.array(layers),
        }
        arrays |= under(arm, single(measured))
    return arrays


def smoothed(values):
    """The median of every point and its neighbours; at the ends, of those there are.

    The last axis is that of the points.
    """
    half = WINDOW // 2
    padded = np.pad(values, [*[(0, 0)] * (values.ndim - 1), (half, half)], constant_values=np.nan)
    return np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=-1), -1)


def peak(curve):
    """Where a curve is highest above both its lowest before and its last point.

    Returns:
        The index, and log2 of the lesser of these heights.
    """
    logs = np.log2(curve)
    height = np.minimum(logs - np.minimum.accumulate(logs), logs - logs[-1])
    return int(np.argmax(height)), float(height.max())


def peaks(recorded, arm):
    """Step, value and height of the peak of the smoothed m-coherence: three [seed]."""
    curves = smoothed(recorded[f"{arm}/m_coherence"].astype(float))
    places, heights = zip(*map(peak, curves))
    values = np.array([curve[i] for curve, i in zip(curves, places)])
    return recorded[f"{arm}/step"][list(places)], values, np.array(heights)


def middle(loss, values):
    """The mean of `values` over the points at which the loss is in the middle: [seed, ...].

    `loss` is [seed, step], `values` [seed, step, ...].
    """
    inside = (loss <= MIDDLE[0] * loss[:, :1]) & (loss >= MIDDLE[1] * loss[:, :1])
    missing = np.full(values.shape[2:], np.nan)
    return np.array(
        [row[points].mean(0) if points.any() else missing for row, points in zip(values, inside)]
    )


def judge(recorded):
    noise, arms = recorded["noise"], list(map(str, recorded["arms"]))
    grid, cnns = arms[:-1], [f"cnn-{level:g}" for level in noise]
    whole = {arm: recorded[f"{arm}/m_coherence"].astype(float) for arm in arms}
    memorized = _unfitted(recorded, cnns)
    when, values, heights = zip(*(peaks(recorded, arm) for arm in cnns))
    dense, hidden = zip(*(_above_dense(recorded, level) for level in noise))
    early = {arm: recorded[f"{arm}/step"] <= TRANSIENT for arm in grid}
    falls = [np.log2(whole[a][:, 0] / whole[a][:, early[a]].min(1)) for a in grid]
    later = _smallest_rise(np.log2(np.maximum(when, 1)))
    last = [np.log2(smoothed(whole[arm])[:, -1]) for arm in cnns]
    tested = {
        "a first transient": np.min(falls, 0),
        "it starts from nearly m": np.min([whole[a][:, 0] for a in grid], 0) / recorded["m"],
        "more noise, later peak": (later, memorized),
        "more noise, lower peak": (_smallest_rise(-np.log2(values)), memorized),
        "convolutions above the dense layer": np.min(dense, 0),
        "convolutions above an MLP's layers": np.min(hidden, 0),
        "back to the orthogonal limit": (np.max(last, 0), memorized),
        "layers recombine to the whole": np.max([recorded[f"{a}/deviation"] for a in arms], 0),
    }
    for level, arm, height in zip(noise, cnns, heights):
        tested[_hump(level)] = height, _unfitted(recorded, [arm])
    for name, arm in NOTHING.items():
        tested[f"coherence out of nothing, {name}"] = _middle(recorded, arm)
    return tested


def _unfitted(recorded, arms):
    """What is missing for a whole course to have been seen, or None."""
    accuracies = [recorded[f"{arm}/accuracy"][0].min() for arm in arms]
    return too_low(accuracies, MEMORIZED, "a run did not fit its labels: training accuracy")


def _smallest_rise(values):
    """From one share of noise to the next, the smallest: [seed] of [noise, seed]."""
    return np.diff(values, axis=0).min(0) if len(values) > 1 else np.array([])


def _middle(recorded, arm, name="m_coherence"):
    """log2 of m-coherence in the middle of training: [seed], by layer [seed, layer]."""
    return middle(recorded[f"{arm}/loss"], np.log2(recorded[f"{arm}/{name}"].astype(float)))


def _above_dense(recorded, level):
    """How far the convolutions are above their network's dense layer, and above an MLP's layers.

    The hidden ones; two of [seed].
    """
    cnn, mlp = (_middle(recorded, f"{name}-{level:g}", "by_layer") for name in ("cnn", "mlp"))
    convolutions = cnn[:, :-1].mean(1)  # the output layer comes last
    return convolutions - cnn[:, -1], convolutions - mlp[:, :-1].mean(1)


def table(recorded):
    rows = []
    for arm in recorded["arms"]:
        curve = recorded[f"{arm}/m_coherence"].astype(float)
        steps, values, _ = peaks(recorded, arm)
        layers = zip(recorded[f"{arm}/layers"], _middle(recorded, arm, "by_layer").T)
        rows.append(
            {
                "network-noise": arm,
                "start": curve[:, 0],
                "peak": values,
                "at step": steps,
                "middle": 2 ** _middle(recorded, arm),
                "end": curve[:, -1],
                "layers, middle": ", ".join(f"{name} {2 ** v.mean():.1f}" for name, v in layers),
                "fitted": recorded[f"{arm}/accuracy"][0],
            }
        )
    middle_of = "middle: training loss 75 to 25 % of the initial"
    return tabulate(rows, f"m-coherence, m = {recorded['m']}; {middle_of}")
