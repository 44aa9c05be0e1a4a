"""Examples learned early generalize among themselves, those learned late less: what is easy is what
others help to learn.

A network is trained briefly; the examples of a pool that it then gets right are the easy ones, the
others the hard ones. From each kind, and at random from the pool, equally many examples are drawn
for training and for testing, the same number of every class. Networks are trained on each from
scratch until the training loss is near zero, and tested on examples of all three kinds. How long
the brief training is decides what hard means, so that is varied. Whether difficulty depends on the
network's start is asked of several initializations, and of starts that fit random labels first;
whether easy examples' gradients are more coherent, of a probe.
"""

import functools
import typing
from dataclasses import dataclass, replace

import numpy as np

from coherence.lab.analysis import (
    alpha_ratio,
    computed,
    first_at,
    given,
    single,
    stacked_arms,
    tabulate,
    too_low,
    under,
)
from coherence.lab.settings import MLP, Probing, digits, mnist
from coherence.lab.training.classification import Classification
from coherence.probes.schedules import LogSpaced

KINDS = ("easy", "random", "hard")
ENDS = ("easy", "hard")
EPOCHS = 1000  # steps of a brief training: 1.7 epochs
RANDOM_FITTED = 0.95  # of the random labels, by an adversarial start
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
class Adversary:
    """Brief trainings from starts that fit random labels of the pool first, beside ordinary ones.

    They end after as many steps, and go on until as many examples are right.
    """

    brief: Brief = Brief(pool=2000, initializations=3)
    steps: int = 6000
    """On random labels."""
    learning_rate: float = 0.1
    longest: int = 100
    """At most so many times the brief training, until as many are right."""

    def describe(self):
        return f"{_load(self.brief.data).name} ({self.brief.pool:,} examples), random labels first"

    def compute(self, seed):
        return adversarial_starts(self, seed)


@dataclass(frozen=True)
class Settings:
    run: OnPart = OnPart()
    lengths: tuple[int, ...] = (30, 100, 300, 1000)
    """Steps of the brief training in the sweep, whose pool is larger: else hard ones run out."""
    pool: int = 60_000
    adversary: Adversary = Adversary()
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
    "smoke": Settings(
        _SMALL, (30,), 1400, Adversary(replace(_BRIEF, pool=100, initializations=2), 30), seeds=2
    ),
    "cpu": Settings(),
    "paper": Settings(replace(_LARGE, steps=20_000)),
}

# What was fixed when: statistics, thresholds and levels before any network was trained on a part;
# none was moved after. Before that, it was looked at for other pools how many examples of each
# class a brief training gets right, to choose its length (about half learned, as in the source);
# then, for one seed, training losses alone, to choose the number of steps. That examples which a
# longer brief training has not learned are another matter was looked at after the verdicts: after
# 300 steps the hard rest gave 72 % on random test examples and the easy ones 86 %; in equal parts
# 74 against 66 %; and correlations were 0.57. The sweep over lengths and the adversarial starts,
# with their thresholds, came after that, and before any run of theirs; one other seed was looked at
# for how many examples of each class are left as hard.
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


def adversarial_starts(adversary, seed):
    """What brief trainings learn from ordinary and from adversarial starts, as arrays.

    `fitted` [start]: random labels fitted by adversarial starts. `wrong` [2]: of the examples that
    an ordinary start learns, the share that another ordinary one, and that adversarial ones get
    wrong after as many steps. `agreement` [2]: correlations, class means taken out, of which
    examples have the lowest loss, as many as ordinary starts learn: among ordinary starts, and
    between the two kinds, where adversarial ones have trained until as many are right, which takes
    `longer` [start] times as many steps. `right` [2, start]: the share that is right then.
    """
    import jax

    brief = adversary.brief
    pool = brief_training(brief, seed)
    x, y = pool.examples(slice(None))
    longer = replace(brief, learning_rate=adversary.learning_rate, steps=adversary.steps)
    _, memorize, _ = _programs(longer, pool.data.outputs)
    net, train, judged = _programs(brief, pool.data.outputs)
    rng = np.random.default_rng([seed, 0xAD])
    wanted = pool.right.mean()
    fitted, early, matched, times, shares = [], [], [], [], []
    for start in range(brief.initializations):
        params = net.init(jax.random.key(seed * 1000 + 100 + start), x[:1])
        labels = rng.permutation(y)
        batches = lambda steps: rng.integers(0, len(y), (steps, brief.batch_size))
        params = memorize(params, x, labels, batches(adversary.steps))
        fitted.append(judged(params, x, labels)[0].mean())
        for taken in range(1, adversary.longest + 1):
            params = train(params, x, y, batches(brief.steps))
            right, loss = map(np.asarray, judged(params, x, y))
            if taken == 1:
                early.append(right)
            if right.mean() >= wanted:
                break
        matched.append(loss)
        times.append(taken)
        shares.append(right.mean())
    starts = len(pool.right)
    pairs = [(a, b) for a in range(starts) for b in range(starts) if a != b]
    wrong = [
        np.mean([1 - pool.right[b][pool.right[a]].mean() for a, b in pairs]),
        np.mean([1 - right[easy].mean() for easy in pool.right for right in early]),
    ]
    ordinary, other = (lowest(losses, y, wanted) for losses in (pool.loss, np.array(matched)))
    correlations = np.corrcoef(np.concatenate([ordinary, other]))
    among = correlations[:starts, :starts][np.triu_indices(starts, 1)].mean()
    return {
        "fitted": np.array(fitted),
        "wrong": np.array(wrong),
        "agreement": np.array([among, correlations[:starts, starts:].mean()]),
        "longer": np.array(times),
        "right": np.array([pool.right.mean(1), shares]),
    }


def lowest(losses, labels, share):
    """Which examples are of the share with the lowest loss, class means taken out: as `losses`,
    [start, example]."""
    chosen = losses <= np.quantile(losses, share, axis=1, keepdims=True)
    means = np.array([chosen[:, labels == k].mean(1) for k in range(labels.max() + 1)])
    return chosen - means[labels].T


@functools.lru_cache(maxsize=3)
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
    """One a kind, easy and hard ones of each length of the brief training, and the adversary."""
    run = settings.run
    of_kind = {kind: replace(run, data=replace(run.data, kind=kind)) for kind in KINDS}
    swept = {
        f"{kind}-{steps}": replace(
            run,
            data=replace(
                run.data,
                kind=kind,
                brief=replace(run.data.brief, steps=steps, pool=settings.pool, initializations=2),
            ),
            probes=(),
            steps=run.steps * 3 // 2,
        )
        for steps in settings.lengths
        for kind in ENDS
    }
    return {**of_kind, **swept, "adversary": settings.adversary}


def record(settings, runs):
    """Curves as [kind, seed, step], values at training losses, and what the brief training showed.

    Pictures of the first seed. Of the sweep [length, trained on, tested on, seed].
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
        "lengths": np.array(settings.lengths),
        **_sweep(settings.lengths, runs),
        **under("adversary", computed(runs["adversary"])),
    }


def _sweep(lengths, runs):
    """Accuracies at a training loss near zero, and what each length of brief training showed."""
    accuracy, learned, agreement = [], [], []
    for steps in lengths:
        arms = [runs[f"{kind}-{steps}"] for kind in ENDS]
        curves = stacked_arms(arms, "train_loss", *(f"on_{kind}" for kind in KINDS))
        loss = curves["train_loss"]
        accuracy.append(np.stack([at_loss(loss, curves[f"on_{k}"], FITTED) for k in KINDS], 1))
        drawn = [run.load("drawn") for run in arms[0]]
        learned.append([seed["learned"].mean() for seed in drawn])
        agreement.append([seed["agreement"] for seed in drawn])
    arrays = {"accuracy": accuracy, "learned": learned, "agreement": agreement}
    return under("sweep", {name: np.array(values) for name, values in arrays.items()})


def at_loss(loss, values, level):
    """Values when the loss is first down at a level, by interpolation over log loss: [...].

    Of curves [..., step]; nan where it never is.
    """
    return first_at(np.log(loss), values, np.log(level), falling=True)


def judge(recorded):
    unfitted = _unfitted(recorded["steps"])
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
    swept = recorded["sweep/accuracy"]  # [length, trained on, tested on, seed]
    lack = swept[:, 0, random] - swept[:, 1, random]  # [length, seed]
    change = lack[-1] - lack[0]
    boundary = {
        f"hard ones do not define the boundary, {steps} steps": (values, _unfitted(values))
        for steps, values in zip(recorded["lengths"], lack)
    }
    wrong, agreement = recorded["adversary/wrong"].T, recorded["adversary/agreement"].T
    unfit = too_low(recorded["adversary/fitted"], RANDOM_FITTED, "random labels fitted")
    reliable = dict(zip(recorded["lengths"], recorded["sweep/agreement"]))
    return {
        **given(unfitted, fitted),
        **boundary,
        "a longer brief training leaves harder ones": (change, _unfitted(change)),
        "an adversarial start makes easy ones hard": (wrong[1] - wrong[0], unfit),
        "what is easy depends on the start": (agreement[0] - agreement[1], unfit),
        "reliably learned early": recorded["agreement"],
        **{
            f"reliably learned, {steps} steps": values
            for steps, values in reliable.items()
            if steps == EPOCHS
        },
        "easy are more coherent": alpha_ratio(coherence[easy], coherence[hard], int(recorded["m"])),
    }


def _unfitted(values):
    """The precondition that what is read at a training loss could be: nan where it never was."""
    words = f"a run never got down to a training loss of {FITTED:g} nats"
    return words if np.isnan(values).any() else None


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
    swept = recorded["lengths"], recorded["sweep/learned"], recorded["sweep/accuracy"][:, :, 1]
    lengths = "; ".join(
        f"{steps} steps ({share.mean():.0%}) {easy.mean():.2f} and {hard.mean():.2f}"
        for steps, share, (easy, hard) in zip(*swept)
    )
    wrong, agreement = (recorded[f"adversary/{n}"].mean(0) for n in ("wrong", "agreement"))
    note = (
        f"by length of the brief training (share learned), trained on easy and on hard, on random: "
        f"{lengths};\nof easy ones another start gets {wrong[0]:.0%} wrong, an adversarial one "
        f"{wrong[1]:.0%}; correlation {agreement[0]:.2f} and {agreement[1]:.2f};\n"
        f"{learned.mean():.0%} were learned in {recorded['brief_steps']} steps of brief training; "
        f"of a class {learned.min():.0%} to {learned.max():.0%};\n"
        f"test accuracy and gap (nats) {_AT}, m-coherence (m = {recorded['m']}) at others"
    )
    return tabulate(rows, note)
