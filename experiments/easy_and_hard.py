"""Examples learned early generalize among themselves, those learned late less: what is easy is what
others help to learn.

A network is trained briefly; the examples of a pool that it then gets right are the easy ones, the
others the hard ones. From each kind, and at random from the pool, equally many examples are drawn
for training and for testing, the same number of every class. Networks are trained on each from
scratch until the training loss is near zero, and tested on examples of all three kinds. Whether
difficulty depends on the network's start is asked of several initializations, and whether easy
examples' gradients are more coherent of a probe.
"""

import functools
import typing
from dataclasses import dataclass, replace

import numpy as np

from coherence.lab.analysis import (
    alpha_ratio,
    first_at,
    given,
    single,
    stacked_arms,
    tabulate,
)
from coherence.lab.settings import MLP, Probing, digits, mnist
from coherence.lab.training.classification import Classification
from coherence.probes.schedules import LogSpaced

KINDS = ("easy", "random", "hard")
FITTED = 0.02  # nats: training loss at which parts are compared
LEVELS = (1.0, 0.5, 0.2, 0.1)  # nats: training losses at which gradients are compared
TRAINING_SHARE = 2 / 3  # of the pool: training examples come from it, test examples from the rest
EXAMPLES_SHOWN = 2  # of every class, easiest and hardest
DRAWN = ("learned", "agreement", "times_learned", "by_chance")


@dataclass(frozen=True)
class Brief:
    """A pool of examples, and a brief training on all of it from several initializations."""

    data: digits | mnist = mnist()
    model: MLP = MLP(width=128)
    pool: int = 30_000
    """Drawn from the training examples, anew for every seed."""
    learning_rate: float = 0.01
    batch_size: int = 100
    steps: int = 60
    initializations: int = 8
    """The first decides which examples are easy, the others whether that is by chance."""


@dataclass(frozen=True)
class Part:
    """Easy, hard or random examples of a pool, to train and to test on."""

    brief: Brief = Brief()
    kind: str = "easy"
    train: int = 1000
    """Training examples of each kind, as many of every class."""
    test: int = 500
    seed: int = 0
    """Of pool and brief training; a run puts its own here."""

    def build(self):
        from coherence.lab.data.dataset import Dataset

        pool = brief_training(self.brief, self.seed)
        train, test = chosen(pool.right[0], pool.y, self.kind, self.train, self.test)
        name = f"{self.kind} of {pool.data.name}"
        return Dataset(name, *pool.examples(train), *pool.examples(test), pool.data.classes)


@dataclass(frozen=True)
class OnPart(Classification):
    """A classifier of one kind of examples, tested on all three."""

    data: Part = Part()
    model: MLP = MLP(width=128)
    points_per_decade: int = 10
    probes: tuple[Probing, ...] = (
        Probing(m=500, quantities="light", groups="none", when=LogSpaced(10)),
    )
    track_batches: bool = False

    def describe(self):
        brief, net = self.data.brief, super().describe().rpartition(", ")[-1]
        data = f"{self.data.train:,} easy, hard or random of {brief.pool:,} examples"
        return f"{_load(brief.data).name} ({data}), {net}"

    def build(self, seed):
        from coherence.lab.tasks.classification import evaluate

        parts = {kind: replace(self.data, kind=kind, seed=seed) for kind in KINDS}
        problem = Classification.build(replace(self, data=parts[self.data.kind]), seed)
        pool = brief_training(self.data.brief, seed)
        score = evaluate(self.model.build(pool.data.outputs))
        sets = {kind: part.build() for kind, part in parts.items()}
        tests = {kind: (data.x_test, data.y_test) for kind, data in sets.items()}

        def measure(params, arrays):
            scores = {kind: score(params, *arrays["tests"][kind]) for kind in KINDS}
            return {f"on_{kind}": each.accuracy for kind, each in scores.items()}

        drawn = {**problem.drawn, **seen(pool)}
        return problem.extended(measure=measure, data={"tests": tests}, drawn=drawn)


@dataclass(frozen=True)
class Settings:
    run: OnPart = OnPart()
    seeds: int = 8


_BRIEF = Brief(
    digits(),
    MLP(width=64),
    pool=1400,
    learning_rate=0.05,
    steps=40,
    initializations=3,
)
_SMALL = OnPart(
    data=Part(_BRIEF, train=50, test=20),
    model=_BRIEF.model,
    batch_size=25,
    steps=600,
    points_per_decade=4,
    probes=(replace(OnPart.probes[0], m=50, when=LogSpaced(4)),),
)
# ImageNet (500,000 and 100,000 of each kind) with a ResNet-18 is out of reach: as many of MNIST as
# there are.
_WIDE = MLP(width=2048)
_LARGE = OnPart(data=Part(Brief(model=_WIDE, pool=60_000), train=2000, test=1000), model=_WIDE)
PRESETS = {
    "smoke": Settings(_SMALL, seeds=2),
    "cpu": Settings(),
    "paper": Settings(replace(_LARGE, steps=20_000)),
}

# What was fixed when: statistics, thresholds and levels before any network was trained on a part;
# none was moved after. Before that, it was looked at for other pools how many examples of each
# class a brief training gets right, to choose its length (about half learned, as in the source);
# then, for one seed, training losses alone, to choose the number of steps. That examples which a
# longer brief training has not learned are another matter (the figure's caption) was looked at
# after the verdicts.
_AT = f"at a training loss of {FITTED:g} nats"


def chosen(right, labels, kind, train, test):
    """Indices of training and of test examples of one kind, the first so many of every class.

    A pool comes in random order. No test example of any kind is a training example of any other:
    they come from two sides of a border.
    """
    of_kind = {"easy": right, "hard": ~right, "random": np.ones(len(right), bool)}[kind]
    before = np.arange(len(right)) < round(TRAINING_SHARE * len(right))
    classes, indices = labels.max() + 1, []
    for side, count in ((before, train), (~before, test)):
        each = [
            np.flatnonzero(of_kind & side & (labels == k))[: count // classes]
            for k in range(classes)
        ]
        scarcest = min(range(classes), key=lambda k: len(each[k]))
        if len(each[scarcest]) < count // classes:
            raise ValueError(
                f"Part: {count // classes} {kind} examples of class {scarcest} are needed, of "
                f"which there are {len(each[scarcest])}. Take fewer (train, test), a larger pool, "
                "or another number of steps of the brief training."
            )
        indices.append(np.sort(np.concatenate(each)))
    return indices


class Pool(typing.NamedTuple):
    """Training examples of a data set in random order, and how brief trainings do on them."""

    data: typing.Any
    index: np.ndarray
    y: np.ndarray
    right: np.ndarray
    """Which ones they get right: [start, example]."""
    loss: np.ndarray
    """[start, example]."""

    def examples(self, chosen):
        return self.data.x_train[self.index[chosen]], self.y[chosen]


@functools.lru_cache(maxsize=32)
def brief_training(brief, seed):
    """The `Pool` of one seed; once for all that is done with it."""
    import jax

    data = _load(brief.data)
    rng = np.random.default_rng([seed, 0xEA])
    index = rng.permutation(len(data.y_train))[: brief.pool]
    x, y = data.x_train[index], data.y_train[index]
    net, train, judged = _programs(brief, data.outputs)
    results = []
    for start in range(brief.initializations):
        params = net.init(jax.random.key(seed * 1000 + 100 + start), x[:1])
        batches = rng.integers(0, len(y), (brief.steps, brief.batch_size))
        results.append(judged(train(params, x, y, batches), x, y))
    return Pool(data, index, y, *map(np.array, zip(*results)))


_load = functools.lru_cache(maxsize=1)(lambda data: data.build())


@functools.lru_cache(maxsize=1)
def _programs(brief, outputs):
    """The network, `train(params, x, y, batches)` and `judged(params, x, y)`, for all seeds.

    `judged` gives what is right, and losses.
    """
    import jax

    from coherence.lab.tasks.classification import cross_entropy

    net = brief.model.build(outputs)
    losses = jax.vmap(cross_entropy(net), (None, 0))
    mean = lambda params, batch: losses(params, batch).mean()

    @jax.jit
    def train(params, x, y, batches):
        def step(params, batch):
            gradient = jax.grad(mean)(params, (x[batch], y[batch]))
            return jax.tree.map(lambda p, g: p - brief.learning_rate * g, params, gradient), None

        return jax.lax.scan(step, params, batches)[0]

    @jax.jit
    def judged(params, x, y):
        return net.apply(params, x).argmax(-1) == y, losses(params, (x, y))

    return net, train, judged


def seen(pool):
    """What a pool's brief trainings show: how reliably the same examples are learned.

    And which are the easiest and the hardest.
    """
    classes = range(pool.data.outputs)
    means = np.array([pool.right[:, pool.y == k].mean(1) for k in classes])  # [class, start]
    correlations = np.corrcoef(pool.right - means[pool.y].T)
    counts = np.bincount(pool.y, minlength=len(means))
    chance = np.average([poisson_binomial(p) for p in means], axis=0, weights=counts)
    order = np.argsort(pool.loss.mean(0), kind="stable")
    ranked = [order[pool.y[order] == k] for k in classes]
    ends = [[r[:EXAMPLES_SHOWN] for r in ranked], [r[::-1][:EXAMPLES_SHOWN] for r in ranked]]
    pictures = pool.examples(np.array(ends))[0] / pool.data.x_train.max()
    times = np.bincount(pool.right.sum(0), minlength=len(pool.right) + 1)
    return {
        "learned": means[:, 0],
        "agreement": correlations[np.triu_indices(len(pool.right), 1)].mean(),
        "times_learned": times / len(pool.y),
        "by_chance": chance,
        "pictures": np.round(255 * pictures).astype(np.uint8),
    }


def poisson_binomial(probabilities):
    """The distribution of how many of independent events happen: [events + 1]."""
    return functools.reduce(np.convolve, [[1 - p, p] for p in probabilities], np.ones(1))


def arms(settings):
    """One a kind."""
    run = settings.run
    return {kind: replace(run, data=replace(run.data, kind=kind)) for kind in KINDS}


def record(settings, runs):
    """Curves as [kind, seed, step], values at training losses, and what the brief training showed.

    Pictures of the first seed.
    """
    names = ("train_loss", "test_loss", "test_accuracy", "train/m_coherence")
    curves = stacked_arms([runs[k] for k in KINDS], *names, *(f"on_{kind}" for kind in KINDS))
    curves["m_coherence"], loss = curves.pop("train/m_coherence"), curves["train_loss"]
    at = lambda name, level: at_loss(loss, curves[name], level)
    drawn = [run.load("drawn") for run in runs[KINDS[0]]]
    return {
        "step": curves["step"],
        "levels": np.array(LEVELS),
        "m": settings.run.probes[0].m,
        "brief_steps": settings.run.data.brief.steps,
        **single({name: curves[name] for name in ("train_loss", "test_accuracy", "m_coherence")}),
        "accuracy": np.stack([at(f"on_{kind}", FITTED) for kind in KINDS], 1),
        "gap": at("test_loss", FITTED) - FITTED,
        "steps": at("step", FITTED),
        "coherence": np.array([at("m_coherence", level) for level in LEVELS]),
        **{name: np.array([seed[name] for seed in drawn]) for name in DRAWN},
        "pictures": drawn[0]["pictures"],
    }


def at_loss(loss, values, level):
    """Values when the loss is first down at a level, by interpolation over log loss: [...].

    Of curves [..., step]; nan where it never is.
    """
    return first_at(np.log(loss), values, np.log(level), falling=True)


def judge(recorded):
    words = f"a run never got down to a training loss of {FITTED:g} nats"
    unfitted = words if np.isnan(recorded["steps"]).any() else None
    easy, random, hard = range(len(KINDS))
    on, gap = recorded["accuracy"], recorded["gap"]
    coherence = recorded["coherence"].mean(0)
    own = [on[kind, kind] for kind in range(len(KINDS))]
    pairs = {"easy and random": (easy, random), "random and hard": (random, hard)}
    between = {name: own[a] - own[b] for name, (a, b) in pairs.items()}
    reverse = {name: gap[b] - gap[a] for name, (a, b) in pairs.items()}
    fitted = {
        "easy generalize better than hard": own[easy] - own[hard],
        "random in between": between,
        "gaps in reverse order": reverse,
        "hard ones do not define the boundary": on[easy, random] - on[hard, random],
        "nor that of easy and hard alike": (on[easy] - on[hard])[[easy, hard]].mean(0),
    }
    return {
        **given(unfitted, fitted),
        "reliably learned early": recorded["agreement"],
        "easy are more coherent": alpha_ratio(coherence[easy], coherence[hard], int(recorded["m"])),
    }


def table(recorded):
    rows = []
    for i, kind in enumerate(KINDS):
        levels = zip(recorded["levels"], recorded["coherence"][:, i])
        rows.append(
            {
                "trained on": kind,
                "steps": recorded["steps"][i],
                **{f"on {other}": recorded["accuracy"][i, k] for k, other in enumerate(KINDS)},
                "gap": recorded["gap"][i],
                **{f"m-coherence at {level:g}": values for level, values in levels},
            }
        )
    learned = recorded["learned"].mean(0)
    note = (
        f"{learned.mean():.0%} were learned in {recorded['brief_steps']} steps of brief training; "
        f"of a class {learned.min():.0%} to {learned.max():.0%};\n"
        f"test accuracy and gap (nats) {_AT}, m-coherence (m = {recorded['m']}) at others"
    )
    return tabulate(rows, note)
