"""A Boltzmann machine learns from what is left of two directions that nearly all examples share.

Black and white digits, labels among the visible units, trained by contrastive divergence (CD): each
example's gradient is that of its free energy minus that of a state sampled from it. Gradients of
the two phases are measured apart and together, on true and on permuted labels; machines of 16
hidden units, whose likelihood is exact, show how well CD-1, CD-5 and persistent chains follow it;
winsorizing and a median of means stand between examples and steps. At the end the machine
classifies by p(y | x) and draws from p(x | y).
"""

from dataclasses import dataclass, replace

import numpy as np

from coherence.lab.analysis import stacked, tabulate, too_low, under
from coherence.lab.report.tables import plus_minus
from coherence.lab.settings import digits, label_noise, median_of_means, mnist, sgd, winsorize
from coherence.lab.training.boltzmann import ContrastiveDivergence, binary

PHASES = ("positive", "negative", "difference")
FOLLOWED = (10, 100, 1000)  # steps at which CD-1 is compared with the exact gradient
EARLY = (10, 300)  # steps between which true and permuted labels are compared
RECOGNIZES = 0.9  # accuracy of a classifier whose word counts
LIKE = ("bernoulli_nb", "normal_bayes_shared", "knn", "kernel_svm")  # of the catalogue
ROBUST = {"winsorized": winsorize(c=2), "median of means": median_of_means(3)}


@dataclass(frozen=True)
class ByPhase(ContrastiveDivergence):
    """A machine, the phases of whose gradients are probed: same examples, same draws."""

    data: digits | mnist = digits(examples=1200)
    optimizer: sgd = sgd(0.1, momentum=0.5)
    steps: int = 3000
    points_per_decade: int = 4
    probes: tuple = ()
    track_batches: bool = False
    sample: int = 300
    """m: training examples whose gradients are looked at, the same ones throughout; 0: none."""
    exact: bool = False
    """Measure log-likelihoods, and the cosine of CD's gradient with the exact one: 20 hidden units
    at most."""

    def build(self, seed):
        from coherence.lab.training.programs import PROGRAMS

        problem = super().build(seed)
        model = self.machine(problem.data["train"][0].shape[1], 10).build()
        if self.exact:
            problem = problem.extended(measure=PROGRAMS.get(_exactly, model, self.k))
        if not self.sample:
            return problem
        train = (*problem.data["train"], *problem.data["keys"]["train"])
        chosen = np.sort(np.random.default_rng([seed, 7]).permutation(len(train[0]))[: self.sample])
        probes = tuple(
            PROGRAMS.get(_prober, model, self.k, name)(tuple(x[chosen] for x in train))
            for name in PHASES
        )
        return replace(problem, probes=probes)


def _prober(model, k, name):
    """`sample -> Probe` of one phase's gradients, by leaf."""
    import functools

    from coherence.lab.tasks.boltzmann import contrastive_divergence, phases
    from coherence.metrics import moments
    from coherence.probes import LogSpaced, Probe, Quantity

    both = phases(model, k)
    loss = {
        "positive": lambda params, example: both(params, example)[0],
        "negative": lambda params, example: both(params, example)[1],
        "difference": contrastive_divergence(model, k),
    }[name]
    sums = Quantity("moments", functools.partial(moments, by="leaf"))
    return lambda sample: Probe(
        loss, sample, name=name, quantities=(sums,), when=LogSpaced(6), few=len(sample[0])
    )


def _exactly(model, k):
    """`(params, data) -> {name: number}`: what only a small machine can be asked."""
    import jax
    import jax.numpy as jnp

    from coherence.lab.tasks.boltzmann import contrastive_divergence, log_likelihood

    likelihood, loss = log_likelihood(model), contrastive_divergence(model, k)

    def measure(params, data):
        states = {part: model.joined(*data[part]) for part in ("train", "test")}
        value, exact = jax.value_and_grad(likelihood)(params, states["train"])
        examples = (*data["train"], *data["keys"]["train"])
        mean_loss = lambda params: jnp.mean(jax.vmap(loss, (None, 0))(params, examples))
        return {
            "train_log_likelihood": value,
            "test_log_likelihood": likelihood(params, states["test"]),
            "cosine": -cosine(jax.grad(mean_loss)(params), exact),
        }

    def cosine(a, b):
        dot = lambda a, b: sum(map(jnp.vdot, jax.tree.leaves(a), jax.tree.leaves(b)))
        return dot(a, b) / jnp.sqrt(dot(a, a) * dot(b, b))

    return measure


@dataclass(frozen=True)
class Settings:
    run: ByPhase = ByPhase()
    small: int = 16
    """Hidden units of the machines whose likelihood is exact."""
    small_steps: int = 1000
    """Of these machines, whose likelihood takes longer than their training."""
    draws: int = 20
    """Images of each digit drawn from p(x | y)."""
    sweeps: int = 500
    """Of Gibbs sampling for each of them."""
    seeds: int = 5


_SMALL = ByPhase(data=digits(examples=200), hidden=16, steps=1000, batch_size=20, sample=20)
PRESETS = {
    "smoke": Settings(_SMALL, small=4, draws=2, sweeps=20, seeds=2),
    "cpu": Settings(),
    "mnist": Settings(
        ByPhase(
            data=mnist(examples=20_000),
            hidden=500,
            optimizer=sgd(0.05, momentum=0.5),
            steps=20_000,
            sample=1000,
        ),
        small_steps=5000,
    ),
}

# What was fixed when: statistics and thresholds before any run of these presets. Seen before: one
# seed outside the project (accuracy 0.951 beside 0.968 of an SVM, 0.92 of draws recognized, gap of
# free energies 0.07 to 1.37, m-coherence of both phases 167 falling to some 113 and of their
# difference 0.6, 3.2, 1.1), and losses of one run of 300 steps with seed 99. Not seen before:
# permuted labels, likelihoods of small machines, robust means.


def arms(settings):
    """The plain machine first, then what differs from it."""
    run = settings.run
    options = {"steps": settings.small_steps, "points_per_decade": 1}
    small = replace(run, hidden=settings.small, exact=True, sample=0, **options)
    noisy = replace(run, noise=label_noise(1.0))
    robust = {
        f"{labels}{name}": replace(base, aggregator=aggregator, sample=0)
        for labels, base in (("", run), ("permuted, ", noisy))
        for name, aggregator in ROBUST.items()
    }
    return {
        "plain": run,
        "permuted": noisy,
        **robust,
        "small": small,
        "small, CD-5": replace(small, k=5),
        "small, persistent": replace(small, persistent=True),
    }


def record(settings, runs):
    """Curves [seed, step] of each arm; of plain machines what they classify and draw."""
    arrays = {"m": settings.run.sample, "arms": np.array(list(runs))}
    for arm, seeds in runs.items():
        names = ["test_accuracy", "corrupt_accuracy", "train_free_energy", "test_free_energy"]
        if arm.startswith("small"):
            names = ["test_log_likelihood", "train_log_likelihood", "cosine"]
        curves = stacked(seeds, *names)
        arrays |= under(arm, {name: _brief(values) for name, values in curves.items()})
    for arm in ("plain", "permuted"):
        arrays |= under(arm, _coherence(runs[arm], settings.run.sample))
    measured = [_measured(settings, run) for run in runs["plain"]]
    arrays |= {name: np.array([seed[name] for seed in measured]) for name in measured[0]}
    return arrays | _pictures(settings, runs["plain"][0])


def _brief(values):
    return values if values.dtype.kind == "i" else values.astype(np.float32)


def _coherence(runs, m):
    """m-coherence [phase, seed, step], of all weights and of those of the label."""
    records = [[r for r in run.records() if "positive/moments" in r] for run in runs]
    leaves = list(records[0][0]["positive/moments"])
    sums = np.array(
        [
            [[list(r[f"{phase}/moments"].values()) for r in history] for history in records]
            for phase in PHASES
        ]
    )[..., :2]  # [phase, seed, step, leaf, 2]
    label = sums[..., leaves.index("params/label_kernel"), :]
    whole = sums.sum(-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "probed": np.array([r["step"] for r in records[0]]),
            "coherence": np.float32(m * whole[..., 0] / whole[..., 1]),
            "label_coherence": np.float32(m * label[..., 0] / label[..., 1]),
        }


def _data(settings, run):
    """The images a run learned from and the others, black and white: two `(x, y)`."""
    data = replace(settings.run.data, examples=None).build()
    taken = run.load("drawn")["examples"]
    left = np.setdiff1d(np.arange(len(data.x_train)), taken)
    x, y = binary(data.x_train, 0.5, data.name), data.y_train
    others = np.concatenate([x[left], binary(data.x_test, 0.5, data.name)])
    return (x[taken], y[taken]), (others, np.concatenate([y[left], data.y_test]))


def _measured(settings, run):
    """What one seed's machine draws, and what other classifiers make of the same images."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    from coherence.lab.estimators import catalogue
    from coherence.lab.sample_quality import DigitClassifier, recognized_share

    (x, y), others = _data(settings, run)
    recognizer = DigitClassifier.fit(*others, seed=run.seed)
    asked = np.repeat(np.arange(10), settings.draws)
    labels = recognizer.labels(_drawn(settings, run, asked))
    data = settings.run.data.build()
    tests = binary(data.x_test, 0.5, data.name), data.y_test
    rows = {row.name: row for row in catalogue()}
    with threadpool_limits(1):
        others = [rows[name].make(run.seed).fit(x, y) for name in LIKE]
        others.append(LogisticRegression(max_iter=1000).fit(x, y))
        accuracy = [model.score(*tests) for model in others]
    return {
        "recognized": recognized_share(labels, asked),
        "recognizer": np.mean(recognizer.labels(x) == y),
        "others": np.array(accuracy, np.float32),
    }


def _drawn(settings, run, asked):
    import jax

    from coherence.lab.tasks.boltzmann import conditional_draws
    from coherence.lab.training.programs import PROGRAMS

    parameters = _parameters(run)
    model = settings.run.machine(len(parameters["params"]["bias"]), 10).build()
    draw = PROGRAMS.get(conditional_draws, model, settings.sweeps)
    return np.asarray(draw(parameters, asked, jax.random.key(run.seed)))


def _parameters(run):
    return {"params": {name.split("/")[1]: leaf for name, leaf in run.load("params").items()}}


def _pictures(settings, run):
    """Of one seed: draws by digit, and the hidden units whose weights are largest."""
    drawn = _drawn(settings, run, np.repeat(np.arange(10), 6))
    kernel = _parameters(run)["params"]["kernel"]
    largest = np.argsort(-np.square(kernel).sum(0))[:24]
    side = round(len(kernel) ** 0.5)
    return {
        "drawn": drawn.reshape(10, -1, side, side).astype(bool),
        "filters": kernel[:, largest].T.reshape(-1, side, side).astype(np.float16),
    }


def gap(recorded, arm):
    """Free energy of test minus training images, [seed, step]."""
    return recorded[f"{arm}/test_free_energy"] - recorded[f"{arm}/train_free_energy"]


def at(recorded, arm, name, step):
    """Values [seed] at a step that was measured."""
    place = np.flatnonzero(recorded[f"{arm}/step"] == step)
    return recorded[f"{arm}/{name}"][:, place[0]]


def judge(recorded):
    blind = too_low(recorded["recognizer"], RECOGNIZES, "the classifier is right on")
    fitted = recorded["permuted/corrupt_accuracy"][:, -1]
    idle = too_low(fitted, 0.2, "permuted labels fitted")  # chance is 0.1
    last = {
        phase: np.log2(recorded["plain/coherence"][i, :, -1].astype(float))
        for i, phase in enumerate(PHASES)
    }
    steps = recorded["plain/probed"]
    early = (steps >= EARLY[0]) & (steps <= EARLY[1])
    on_labels = [
        np.log2(recorded[f"{arm}/label_coherence"][2][:, early].astype(float)).mean(1)
        for arm in ("plain", "permuted")
    ]
    likelihood = {
        arm: recorded[f"{arm}/test_log_likelihood"][:, -1].astype(float)
        for arm in ("small", "small, CD-5", "small, persistent")
    }
    followed = {
        f"step {step}": at(recorded, "small", "cosine", step).astype(float) for step in FOLLOWED
    }
    end = gap(recorded, "plain")[:, -1].astype(float)
    return {
        "p(y | x) classifies": recorded["plain/test_accuracy"][:, -1].astype(float),
        "draws are recognized": (recorded["recognized"], blind),
        "CD-1 follows the likelihood": followed,
        "longer chains fit better": {
            name.removeprefix("small, "): likelihood[name] - likelihood["small"]
            for name in ("small, persistent", "small, CD-5")
        },
        "free energies move apart": end - gap(recorded, "plain")[:, 0],
        "learning is a difference of two shared directions": {
            phase: last[phase] - last["difference"] for phase in PHASES[:2]
        },
        "true labels agree more": on_labels[0] - on_labels[1],
        "robust means memorize fewer permuted labels": (
            {
                name: fitted - recorded[f"permuted, {name}/corrupt_accuracy"][:, -1]
                for name in ROBUST
            },
            idle,
        ),
        "robust means keep free energies together": {
            name: end - gap(recorded, name)[:, -1] for name in ROBUST
        },
    }


def table(recorded):
    big = [str(arm) for arm in recorded["arms"] if not str(arm).startswith("small")]
    rows = [
        {
            "machine": arm,
            "test accuracy": recorded[f"{arm}/test_accuracy"][:, -1],
            "permuted labels fitted": recorded[f"{arm}/corrupt_accuracy"][:, -1]
            if "permuted" in arm
            else "",
            "gap of free energies": gap(recorded, arm)[:, -1],
        }
        for arm in big
    ]
    small = [
        {
            "small machine": arm,
            "log-likelihood, test": recorded[f"{arm}/test_log_likelihood"][:, -1],
            "training": recorded[f"{arm}/train_log_likelihood"][:, -1],
            "cosine with exact gradient, step 100": at(recorded, arm, "cosine", 100),
        }
        for arm in map(str, recorded["arms"])
        if arm.startswith("small")
    ]
    phases = [
        {
            "gradients of": phase,
            "at first": recorded["plain/coherence"][i, :, 0],
            "at the end": recorded["plain/coherence"][i, :, -1],
        }
        for i, phase in enumerate(PHASES)
    ]
    note = (
        f"m-coherence, m = {recorded['m']}; draws recognized: {plus_minus(recorded['recognized'])}"
    )
    return "\n\n".join([tabulate(rows), tabulate(small), tabulate(phases, note)])
