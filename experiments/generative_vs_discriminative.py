"""Naive Bayes gets to its own, higher, error with a third of the examples; with the very fewest it
need not lead logistic regression.

On eight data sets Gaussian naive Bayes and logistic regression learn from the same growing training
sets, a mean over many random splits a seed. Both are linear here, and differ only in what they fit:
naive Bayes, each class's mean and one variance a feature for all classes, so p(x, y); logistic
regression, p(y | x). One data set is the tutorial's: sex from weight and foot size, drawn from
normal distributions whose errors are known by algebra. Controls: a variance of its own for every
class, and an L2 penalty for logistic regression.

Beside it, the kinds of classifiers: that example drawn as p(x, y), as p(y | x) and as the decision
alone, and the place of every model of the catalogue in both definitions of "generative". What they
all do with digits, `classifiers_compared` shows.
"""

import math
from dataclasses import dataclass

import numpy as np

from coherence.lab.analysis import computed, first_at, tabulate, under

PEOPLE = "weight and foot size"
SETS = (
    *(PEOPLE, "iris", "wine", "breast cancer", "digits 3 | 8", "digits 1 | 9"),
    *("digits odd | even", "MNIST 4 | 9"),
)
MODELS = (
    *("naive Bayes", "naive Bayes, own variances"),
    *("logistic regression", "logistic regression, L2"),
)
NB, OWN, LR, L2 = range(4)
# scikit-learn's C: the inverse of the penalty, of standardized features.
PENALTY = {LR: 1e4, L2: 1.0}
# Of the way from the error of the most frequent class to a model's own last one: nearly there.
FALL = 0.9
MEANS = np.array([[64.0, 24.5], [76.0, 26.9]])  # kg and cm, of women and men
SPREADS = np.array([10.0, 1.2])
CORRELATION = 0.6


@dataclass(frozen=True)
class Settings:
    sets: tuple[str, ...] = SETS
    splits: int = 30
    """Random splits of every data set, a seed."""
    largest: int = 4096
    """Training examples at most; three quarters of a data set where it has fewer."""
    seeds: int = 8


PRESETS = {
    "smoke": Settings(sets=(PEOPLE, "iris"), splits=2, largest=64, seeds=2),
    "cpu": Settings(),
    "paper": Settings(splits=1000, largest=8192),
}

# What was fixed when: statistics and thresholds before any run of these presets with their seeds;
# none was moved after. Before that, the learning curves of six splits of one other seed were looked
# at, on all sets but the first and the last of digits, for penalties (C) of 1e4, 100 and 1 and for
# variance floors of 1e-9 and 0.01. They showed logistic regression ahead at the largest sizes by 1
# to 9 points; at the smallest, naive Bayes ahead on breast cancer and iris, level on wine and
# MNIST, and behind on digits: so no claim is made of each data set alone. The least penalty and
# floor were taken, as the nearest to the source's unpenalized pair.


def people(examples, rng):
    """Weight (kg) and foot size (cm) of made-up women (0) and men (1), equally many on average.

    One covariance for both.
    """
    sex = rng.integers(0, 2, examples)
    first, second = rng.normal(size=(2, examples))
    foot = CORRELATION * first + math.sqrt(1 - CORRELATION**2) * second
    return MEANS[sex] + SPREADS * np.stack([first, foot], 1), sex


def known_errors():
    r"""Of naive Bayes and of logistic regression with any number of examples.

    The best threshold along w has the error :math:`\Phi(-w'\delta / 2 \sqrt{w' R w})`: with w the
    difference of the means in standard deviations, :math:`\delta`, if the correlations R are
    ignored, else with :math:`R^{-1} \delta`.
    """
    apart = (MEANS[1] - MEANS[0]) / SPREADS
    correlations = np.array([[1, CORRELATION], [CORRELATION, 1]])
    error = lambda w: math.erfc(w @ apart / math.sqrt(8 * w @ correlations @ w)) / 2
    return error(apart), error(np.linalg.solve(correlations, apart))


def examples_of(name):
    """All of a real data set."""
    from sklearn import datasets

    if name in ("iris", "wine", "breast cancer"):
        return getattr(datasets, f"load_{name.replace(' ', '_')}")(return_X_y=True)
    x, y = _small_mnist() if name.startswith("MNIST") else datasets.load_digits(return_X_y=True)
    if name == "digits odd | even":
        return x, y % 2
    pair = int(name[-5]), int(name[-1])
    chosen = np.isin(y, pair)
    return x[chosen], (y[chosen] == pair[1]).astype(int)


def _small_mnist():
    """7 x 7 pixels, each the mean of 16: a covariance of 784 would make every fit slow."""
    from coherence.lab.settings import mnist

    data = mnist().build()
    blocks = np.asarray(data.x_train, float).reshape(-1, 7, 4, 7, 4)
    return blocks.mean((2, 4)).reshape(-1, 49), data.y_train


def in_proportion(y, rng):
    """A random order of the examples in which any beginning has its share of each class."""
    place = np.empty(len(y))
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        place[members] = (np.arange(len(members)) + rng.uniform()) / len(members)
    return np.argsort(place)


def sizes_of(y, largest):
    """Training examples: two a class, doubled up to all; a last step below a fifth is left out."""
    most = min(largest, len(y) * 3 // 4)
    doubled = [2**k * 2 * len(np.unique(y)) for k in range(20)]
    return [n for n in doubled if n < most / 1.2] + [most]


def fitted(model, x, y):
    """One of the four, on standardized features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB

    if model in PENALTY:
        logistic = LogisticRegression(C=PENALTY[model], solver="newton-cholesky", max_iter=1000)
        return logistic.fit(x, y)
    bayes = GaussianNB().fit(x, y)
    if model == NB:
        # One variance a feature for all classes: the boundary is linear, as logistic regression's.
        bayes.var_ = np.broadcast_to(bayes.class_prior_ @ bayes.var_, bayes.var_.shape)
    return bayes


@dataclass(frozen=True)
class LearningCurve:
    """Test error against the number of training examples: the same splits for every model."""

    data: str
    splits: int
    largest: int

    def describe(self):
        return (
            f"data sets of 2 to 64 features, up to {self.largest:,} training examples, mean over "
            f"{self.splits} splits"
        )

    def compute(self, seed):
        real = None if self.data == PEOPLE else examples_of(self.data)
        errors = []
        for split in range(self.splits):
            rng = np.random.default_rng([seed, split])
            x, y = real or people(self.largest + 4096, rng)  # the last ones to test on
            sizes = sizes_of(y, self.largest)
            errors.append(self.errors(x, y, sizes, rng))
        return {
            "sizes": np.array(sizes),
            "error": np.mean(errors, 0).T,
            "chance": 1 - np.bincount(y).max() / len(y),
            "features": x.shape[1],
        }

    def errors(self, x, y, sizes, rng):
        """Of every model trained on every size: [sizes, models]."""
        order = in_proportion(y, rng)
        test, models = order[sizes[-1] :], range(len(MODELS))
        return [[self.error(model, x, y, order[:n], test) for model in models] for n in sizes]

    def error(self, model, x, y, train, test):
        centre, spread = x[train].mean(0), x[train].std(0)
        standardized = lambda rows: (x[rows] - centre) / np.where(spread > 0, spread, 1)
        trained = fitted(model, standardized(train), y[train])
        return np.mean(trained.predict(standardized(test)) != y[test])


@dataclass(frozen=True)
class ThreeWays:
    """What a joint model, a conditional one and a mere decision say of sex on a grid."""

    examples: int = 120
    grid: int = 48

    def describe(self):
        return f"{self.examples} people"

    def compute(self, seed):
        from sklearn.linear_model import LogisticRegression
        from sklearn.naive_bayes import GaussianNB
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC

        x, y = people(self.examples, np.random.default_rng([seed, 0, 3]))
        axes = np.linspace(MEANS.min(0) - 3 * SPREADS, MEANS.max(0) + 3 * SPREADS, self.grid)
        grid = np.stack(np.meshgrid(*axes.T), -1).reshape(-1, 2)
        joint = np.exp(GaussianNB().fit(x, y).predict_joint_log_proba(grid))
        posterior, decision = (
            make_pipeline(StandardScaler(), model).fit(x, y)
            for model in (LogisticRegression(C=PENALTY[LR]), SVC())
        )
        square = lambda values: values.reshape(self.grid, self.grid)
        return {
            "people": x,
            "sex": y,
            "axes": axes,
            "joint": np.stack([square(density) for density in joint.T]),
            "posterior": square(posterior.predict_proba(grid)[:, 1]),
            "decision": square(decision.predict(grid)),
        }


def arms(settings):
    curves = {
        name: LearningCurve(name, settings.splits, settings.largest) for name in settings.sets
    }
    return curves | {"three ways": ThreeWays()}


def record(settings, runs):
    from coherence.lab.estimators import catalogue

    arrays = {"sets": np.array(settings.sets)}
    for name in settings.sets:
        curves = computed(runs[name])
        first = {key: curves[key][0] for key in ("sizes", "chance", "features")}
        arrays |= under(name, {**first, "error": np.float32(curves["error"])})
    drawings = runs["three ways"][0].load("computed")
    arrays |= {name: values.astype(np.float32) for name, values in drawings.items()}
    rows = catalogue((8, 8, 1))
    words = {
        key: np.array([str(getattr(row, key)) for row in rows])
        for key in ("label", "how", "models")
    }
    kinds = {
        key: np.array([getattr(row, key) for row in rows]) for key in ("generates", "gradients")
    }
    return arrays | under("catalogue", words | kinds)


def needed(recorded, name, model):
    """log2 of the examples with which a model is nearly at its own last error: [seed].

    It has covered `FALL` of the way there from chance.
    """
    errors, chance = recorded[f"{name}/error"][:, model], recorded[f"{name}/chance"]
    levels = errors[:, -1] + (1 - FALL) * (chance - errors[:, -1])
    return first_at(errors, np.log2(recorded[f"{name}/sizes"]), levels, falling=True)


def sooner(recorded, name):
    """Doublings of examples that logistic regression needs more than naive Bayes: [seed]."""
    return needed(recorded, name, LR) - needed(recorded, name, NB)


def leads(recorded, model, over, at):
    """Error of one model above that of the other at a size (0: first, -1: last): [set, seed]."""
    errors = [recorded[f"{name}/error"][..., at] for name in recorded["sets"]]
    return np.array([error[:, over] - error[:, model] for error in errors], float)


def judge(recorded):
    """One value a data set, its mean over seeds: the claims are about data sets."""
    few, many = leads(recorded, NB, LR, 0), leads(recorded, LR, NB, -1)
    tested = {
        "naive Bayes leads with few examples": few,
        "logistic regression leads with many": many,
        "the curves cross": ((few.mean(1) > 0) & (many.mean(1) > 0))[:, None],
        "naive Bayes gets to its own end sooner": [
            sooner(recorded, name) for name in recorded["sets"]
        ],
        "the lead outlives a penalty": leads(recorded, NB, L2, 0),
    }
    tested = {name: np.mean(values, 1) for name, values in tested.items()}
    if PEOPLE in recorded["sets"]:
        bayes, best = known_errors()
        cost = many[list(recorded["sets"]).index(PEOPLE)] - (bayes - best)
        tested["ignored correlation costs what algebra says"] = cost
    return tested


def table(recorded):
    models = {"naive Bayes": NB, "logistic": LR, "with L2": L2}
    rows = []
    for name in recorded["sets"]:
        errors, sizes = recorded[f"{name}/error"], recorded[f"{name}/sizes"]
        ends = [
            {f"{text}{end}": 100 * errors[:, model, at] for text, model in models.items()}
            for at, end in ((0, ""), (-1, ", most"))
        ]
        rows.append(
            {
                "data": name,
                "features": recorded[f"{name}/features"],
                "fewest": sizes[0],
                **ends[0],
                "most": f"{sizes[-1]:,}",
                **ends[1],
                "sooner": sooner(recorded, name),
            }
        )
    columns = {
        "model": "label",
        "first definition": "how",
        "models": "models",
        "draws x": "generates",
        "has gradients": "gradients",
    }
    kinds = [
        {text: recorded[f"catalogue/{name}"][i] for text, name in columns.items()}
        for i in range(len(recorded["catalogue/label"]))
    ]
    note = f"errors in %; sooner: doublings of examples until {FALL:.0%} of a model's own fall"
    return f"{tabulate(rows, note)}\n\n{tabulate(kinds)}"
