"""Examples learned early generalize among themselves, those learned late less: what is easy is what others help to learn.

A network is trained briefly; the examples of a pool that it then gets right are the easy ones, the
others the hard ones. From each kind, and at random from the pool, equally many examples are drawn
for training and for testing, the same number of every class. Networks are trained on each from
scratch until the training loss is near zero, and tested on examples of all three kinds. Whether
difficulty depends on the network's start is asked of several initializations, and whether easy
examples' gradients are more coherent of a probe.
"""

import dataclasses
import functools
import typing

import numpy as np

from coherence.lab.analysis import first_at, stacked
from coherence.lab.claims import Source, above
from coherence.lab.report.tables import aligned, plus_minus
from coherence.lab.settings import CNN, MLP, Probing, digits, mnist, npz, sgd
from coherence.lab.training.classification import Classification
from coherence.probes.schedules import Log

KINDS = ("easy", "random", "hard")
FITTED = 0.02  # nats: training loss at which parts are compared
LEVELS = (1.0, 0.5, 0.2, 0.1)  # nats: training losses at which gradients are compared
TRAINING_SHARE = 2 / 3  # of the pool: training examples come from it, test examples from the rest
EXAMPLES_SHOWN = 2  # of every class, easiest and hardest
CURVES = (
    "train_loss",
    "test_loss",
    "test_accuracy",
    "train/m_coherence",
    *(f"on_{kind}" for kind in KINDS),
)


@dataclasses.dataclass(frozen=True)
class Brief:
    """A pool of examples, and a brief training on all of it from several initializations."""

    data: digits | mnist | npz = mnist()
    model: MLP | CNN = MLP(width=128)
    pool: int = 30_000
    """Drawn from the training examples, anew for every seed."""
    learning_rate: float = 0.01
    batch_size: int = 100
    steps: int = 60
    initializations: int = 8
    """The first decides which examples are easy; the others whether it could have been otherwise."""


@dataclasses.dataclass(frozen=True)
class Settings:
    brief: Brief = Brief()
    """Its network is also the one that is trained on each kind."""
    train: int = 1000
    """Training examples of each kind, as many of every class."""
    test: int = 500
    learning_rate: float = 0.1
    batch_size: int = 100
    steps: int = 2000
    points_per_decade: int = 10
    sample: int = 500
    """Training examples whose gradients are compared."""
    seeds: int = 8


PRESETS = {
    "smoke": Settings(
        brief=Brief(
            digits(),
            MLP(width=64),
            pool=1400,
            learning_rate=0.05,
            steps=40,
            initializations=3,
        ),
        train=50,
        test=20,
        batch_size=25,
        steps=600,
        points_per_decade=4,
        sample=50,
        seeds=2,
    ),
    "cpu": Settings(),
    # ImageNet (500,000 and 100,000 of each kind) with a ResNet-18 is out of reach: as many of MNIST
    # as there are.
    "paper": Settings(
        brief=Brief(model=MLP(width=2048), pool=60_000),
        train=2000,
        test=1000,
        steps=20_000,
    ),
}

# What was fixed when: statistics, thresholds and levels before any network was trained on a part;
# none was moved after. Before that, it was looked at for other pools how many examples of each
# class a brief training gets right, to choose its length (about half learned, as in the source);
# then, for one seed, training losses alone, to choose the number of steps. That examples which a
# longer brief training has not learned are another matter (the figure's caption) was looked at
# after the verdicts.
_STUDY = "Zielinski, Krishnan & Chatterjee, Weak and Strong Gradient Directions (arXiv:2003.07422)"
_STUDY_REMEMBERED = Source(_STUDY, "remembered")
_SURVEY = "Chatterjee & Zielinski, On the Generalization Mystery (arXiv:2203.10036), Section 8"
_SURVEY_SECOND_HAND = Source(_SURVEY, "second-hand")
_AT = f"at a training loss of {FITTED:g} nats"


CLAIMS = (
    Source(f"{_STUDY}, abstract", "read").claim(
        "easy generalize better than hard",
        "Easy examples generalize better among themselves than hard ones do.",
        f"accuracy on test examples of the same kind {_AT}, easy minus hard",
        above(0, "accuracy"),
    ),
    _STUDY_REMEMBERED.claim(
        "random in between",
        "A random part generalizes less well than the easy examples and better than the hard ones.",
        f"accuracy on test examples of the same kind {_AT}, easy minus random or random minus "
        "hard, whichever is less",
        above(0, "accuracy"),
    ),
    _STUDY_REMEMBERED.claim(
        "gaps in reverse order",
        "The generalization gap of the loss is smallest for easy examples, and larger for hard "
        "than for random ones.",
        f"test minus training loss, each on its own kind, {_AT}: hard minus random or random "
        "minus easy, whichever is less",
        above(0, "nats"),
    ),
    _SURVEY_SECOND_HAND.claim(
        "hard ones do not define the boundary",
        "Hard examples by themselves are insufficient to define the decision boundary to the "
        "extent that easy ones do.",
        f"accuracy on random test examples {_AT}, trained on easy minus trained on hard",
        above(0, "accuracy"),
    ),
    Source(
        "a control of ours: random test examples may be easy for the most part", "derived"
    ).claim(
        "nor that of easy and hard alike",
        "Tested on as many hard as easy examples, too, training on easy ones gives more than "
        "training on hard ones.",
        f"mean of the accuracies on easy and on hard test examples {_AT}, trained on easy minus "
        "trained on hard",
        above(0, "accuracy"),
    ),
    Source(f"{_SURVEY}, after Arpit et al. 2017", "second-hand").claim(
        "reliably learned early",
        "From different initializations and batch orders, the same examples are learned early.",
        "correlation between two initializations of which examples are learned, class means "
        "taken out, mean over all pairs",
        above(0.2, "correlation"),
    ),
    Source(f"{_SURVEY}: what the theory says is easy", "derived").claim(
        "easy are more coherent",
        "At equal training loss the gradients of easy examples are more coherent than those of "
        "hard ones.",
        "log2 of m-coherence, easy over hard, mean over training losses of "
        f"{', '.join(f'{level:g}' for level in LEVELS)} nats",
        above(0, "doublings"),
    ),
)


@dataclasses.dataclass(frozen=True)
class Part:
    """Easy, hard or random examples of a pool, as a data set; test examples are of the same kind."""

    brief: Brief = Brief()
    kind: str = "easy"
    train: int = 1000
    test: int = 500
    seed: int = 0
    """Of pool and brief training; a run puts its own here."""

    def build(self):
        from coherence.lab.data.dataset import Dataset

        pool = brief_training(self.brief, self.seed)
        train, test = chosen(pool.right[0], pool.y, self.kind, self.train, self.test)
        return Dataset(
            f"{self.kind} of {pool.data.name}",
            *pool.examples(train),
            *pool.examples(test),
            pool.data.classes,
        )


def chosen(right, labels, kind, train, test):
    """Indices of training and of test examples of one kind, the first so many of every class: a pool comes in random order.

    No test example of any kind is a training example of any other: they come from two sides of a
        border.
    """
    of_kind = {"easy": right, "hard": ~right, "random": np.ones(len(right), bool)}[kind]
    before = np.arange(len(right)) < round(TRAINING_SHARE * len(right))
    classes, found = labels.max() + 1, []
    for side, count in ((before, train), (~before, test)):
        each = [
            np.flatnonzero(of_kind & side & (labels == k))[: count // classes]
            for k in range(classes)
        ]
        scarcest = min(range(classes), key=lambda k: len(each[k]))
        if len(each[scarcest]) < count // classes:
            raise ValueError(
                f"Part: {count // classes} {kind} examples of class {scarcest} are needed, of which there are {len(each[scarcest])}. "
                "Take fewer (train, test), a larger pool, or another number of steps of the brief training."
            )
        found.append(np.sort(np.concatenate(each)))
    return found


class Pool(typing.NamedTuple):
    """Training examples of a data set in random order; what brief trainings get right of them, and their losses [start, example]."""

    data: typing.Any
    index: np.ndarray
    y: np.ndarray
    right: np.ndarray
    loss: np.ndarray

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
    found = []
    for start in range(brief.initializations):
        params = net.init(jax.random.key(seed * 1000 + 100 + start), x[:1])
        found.append(
            judged(
                train(params, x, y, rng.integers(0, len(y), (brief.steps, brief.batch_size))), x, y
            )
        )
    return Pool(data, index, y, *map(np.array, zip(*found)))


_load = functools.lru_cache(maxsize=1)(lambda data: data.build())


@functools.lru_cache(maxsize=1)
def _programs(brief, outputs):
    """The network, `train(params, x, y, batches)`, and `judged(params, x, y)`: what is right, and losses. Compiled for all seeds."""
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

    judged = jax.jit(
        lambda params, x, y: (net.apply(params, x).argmax(-1) == y, losses(params, (x, y)))
    )
    return net, train, judged


@dataclasses.dataclass(frozen=True)
class OnPart(Classification):
    """A classifier of one kind of examples, tested on all three."""

    data: Part = Part()

    def describe(self):
        brief, net = self.data.brief, super().describe().rpartition(", ")[-1]
        return f"{_load(brief.data).name} ({self.data.train:,} easy, hard or random of {brief.pool:,} examples), {net}"

    def build(self, seed):
        from coherence.lab.tasks.classification import evaluate

        parts = {kind: dataclasses.replace(self.data, kind=kind, seed=seed) for kind in KINDS}
        problem = Classification.build(dataclasses.replace(self, data=parts[self.data.kind]), seed)
        pool = brief_training(self.data.brief, seed)
        score = evaluate(self.model.build(pool.data.outputs))
        tests = {
            kind: (data.x_test, data.y_test)
            for kind, part in parts.items()
            for data in [part.build()]
        }

        def measure(params, arrays):
            on = {
                f"on_{kind}": score(params, *examples).accuracy
                for kind, examples in arrays["tests"].items()
            }
            return {**problem.measure(params, arrays), **on}

        drawn = {**problem.drawn, **seen(pool)}
        return dataclasses.replace(
            problem, data={**problem.data, "tests": tests}, measure=measure, drawn=drawn
        )


def seen(pool):
    """What a pool's brief trainings show: how reliably the same examples are learned, and which are the easiest and the hardest."""
    classes = range(pool.data.outputs)
    means = np.array([pool.right[:, pool.y == k].mean(1) for k in classes])  # [class, start]
    correlations = np.corrcoef(pool.right - means[pool.y].T)
    chance = np.average(
        [poisson_binomial(p) for p in means],
        axis=0,
        weights=np.bincount(pool.y, minlength=len(means)),
    )
    order = np.argsort(pool.loss.mean(0), kind="stable")
    ranked = [order[pool.y[order] == k] for k in classes]
    shown = np.array(
        [[r[:EXAMPLES_SHOWN] for r in ranked], [r[::-1][:EXAMPLES_SHOWN] for r in ranked]]
    )
    return {
        "learned": means[:, 0],
        "agreement": correlations[np.triu_indices(len(pool.right), 1)].mean(),
        "times_learned": np.bincount(pool.right.sum(0), minlength=len(pool.right) + 1)
        / len(pool.y),
        "by_chance": chance,
        "pictures": np.round(255 * pool.examples(shown)[0] / pool.data.x_train.max()).astype(
            np.uint8
        ),
    }


def poisson_binomial(probabilities):
    """The distribution of how many of independent events happen: [events + 1]."""
    return functools.reduce(np.convolve, [[1 - p, p] for p in probabilities], np.ones(1))


def arms(settings):
    """One a kind."""
    probing = Probing(
        m=settings.sample, quantities="light", groups="none", when=Log(settings.points_per_decade)
    )
    return {
        kind: OnPart(
            data=Part(settings.brief, kind, settings.train, settings.test),
            model=settings.brief.model,
            optimizer=sgd(settings.learning_rate),
            batch_size=settings.batch_size,
            steps=settings.steps,
            points_per_decade=settings.points_per_decade,
            probes=(probing,),
            track_batches=False,
        )
        for kind in KINDS
    }


def record(settings, runs):
    """Curves as [kind, seed, step], what they are at training losses, what the brief training showed; pictures of the first seed."""
    rows = [stacked(runs[kind], *CURVES) for kind in KINDS]
    step, curves = (
        rows[0]["step"],
        {name.removeprefix("train/"): np.array([row[name] for row in rows]) for name in CURVES},
    )
    at = lambda name, level: at_loss(curves["train_loss"], curves[name], level)
    drawn = [run.load("drawn") for run in runs[KINDS[0]]]
    return {
        "step": step,
        "levels": np.array(LEVELS),
        "m": settings.sample,
        "brief_steps": settings.brief.steps,
        **{
            name: curves[name].astype(np.float32)
            for name in ("train_loss", "test_accuracy", "m_coherence")
        },
        "accuracy": np.stack([at(f"on_{kind}", FITTED) for kind in KINDS], 1),
        "gap": at("test_loss", FITTED) - FITTED,
        "steps": at_loss(curves["train_loss"], step, FITTED),
        "coherence": np.array([at("m_coherence", level) for level in LEVELS]),
        **{
            name: np.array([one[name] for one in drawn])
            for name in ("learned", "agreement", "times_learned", "by_chance")
        },
        "pictures": drawn[0]["pictures"],
    }


def at_loss(loss, values, level):
    """Values when the loss is first down at a level, by interpolation over log loss, nan if it never is: [..., step] to [...]."""
    if loss.ndim > 1:
        return np.array(
            [at_loss(*pair, level) for pair in zip(loss, np.broadcast_to(values, loss.shape))]
        )
    return first_at(np.log(loss), values, np.log(level), falling=True)


def judge(recorded):
    unfitted = (
        f"a run never got down to a training loss of {FITTED:g} nats"
        if np.isnan(recorded["steps"]).any()
        else None
    )
    easy, random, hard = range(len(KINDS))
    on, gap, coherence = (
        recorded["accuracy"],
        recorded["gap"],
        np.log2(recorded["coherence"]).mean(0),
    )
    own = [on[kind, kind] for kind in range(len(KINDS))]
    return {
        "easy generalize better than hard": (own[easy] - own[hard], unfitted),
        "random in between": (
            np.minimum(own[easy] - own[random], own[random] - own[hard]),
            unfitted,
        ),
        "gaps in reverse order": (
            np.minimum(gap[hard] - gap[random], gap[random] - gap[easy]),
            unfitted,
        ),
        "hard ones do not define the boundary": (on[easy, random] - on[hard, random], unfitted),
        "nor that of easy and hard alike": ((on[easy] - on[hard])[[easy, hard]].mean(0), unfitted),
        "reliably learned early": (recorded["agreement"], None),
        "easy are more coherent": (coherence[easy] - coherence[hard], None),
    }


def table(recorded):
    columns = (
        recorded["steps"],
        *np.moveaxis(recorded["accuracy"], 1, 0),
        recorded["gap"],
        *recorded["coherence"],
    )
    rows = [[kind, *(plus_minus(column[i]) for column in columns)] for i, kind in enumerate(KINDS)]
    coherences = (f"m-coherence at {level:g}" for level in recorded["levels"])
    learned = recorded["learned"].mean(0)
    return (
        f"{aligned(['trained on', 'steps', *(f'on {kind}' for kind in KINDS), 'gap', *coherences], rows)}\n"
        f"test accuracy and gap (nats) {_AT}, m-coherence (m = {recorded['m']}) at others; mean ± half of the 95 % interval over seeds\n"
        f"{learned.mean():.0%} were learned in a brief training of {recorded['brief_steps']} steps; of a class {learned.min():.0%} "
        f"to {learned.max():.0%}"
    )
