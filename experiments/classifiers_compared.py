"""Every classifier on the same digits: wrong labels cost one neighbour, a full tree and networks
that memorize most, averages least.

All models of the catalogue learn from 500 digits, of whose labels a growing share is permuted, and
are tested on the other 1,297 with true labels. Beside accuracy: calibration (how often the most
probable label is right, against how probable it is said to be), and, of those trained by gradients,
m-coherence where training loss first falls to the same level. Variants that ask what averages: 1
nearest neighbour beside 5, a tree with large leaves beside a full one and a forest, an MLP that
steps along the median of three groups' mean gradients (M3) beside a plain one and plain ones
stopped early. The generative ones draw digits of every label, which a classifier of other digits
has to recognize. The tutorial's two features (sex from weight and foot size, as in
`generative_vs_discriminative`) show regions of decision.
"""

from dataclasses import dataclass, replace

import numpy as np

from coherence.lab.analysis import (
    alpha_ratio,
    first_at,
    single,
    tabulate,
    too_low,
    under,
)

MOST = 0.4  # of the labels permuted: where drops of accuracy are judged
LEVEL = 1.6  # nats; log 10 = 2.3 at chance, and softmax regression ends near 1.1 with most noise
BINS = 10
MEMORIZED = 0.9
STOPPED = {"mlp_stopped_30": 30, "mlp_stopped_100": 100}  # of 1,000 steps
# Of one loss, cross-entropy, as are the MLP's variants: only of these is coherence compared.
NETWORKS = ("softmax_regression", "mlp", "cnn", "rnn")


@dataclass(frozen=True)
class Settings:
    models: tuple[str, ...] | None = None
    """Names in the catalogue, or of the variants; None: all."""
    noise: tuple[float, ...] = (0.0, 0.1, 0.2, MOST)
    """Shares of the training labels that are permuted."""
    examples: int = 500
    sample: int = 300
    """m: training examples whose gradients are looked at."""
    drawn: int = 50
    """Images of each digit that every generative model draws."""
    by_two: tuple[str, ...] | None = None
    """Models that also learn weight and foot size; None: all that need no image."""
    people: int = 120
    """To learn from, of the two-feature set."""
    grid: int = 36
    seeds: int = 8


_SMALL = (
    *("gaussian_nb", "normal_bayes_full", "softmax_regression", "one_neighbour", "knn", "tree"),
    "random_forest",
)
PRESETS = {
    "smoke": Settings(_SMALL, (0.0, MOST), 120, 40, 2, _SMALL[:2], people=40, grid=8, seeds=2),
    "cpu": Settings(),
    "paper": Settings(examples=1200, sample=1000),
}

# What was fixed when: statistics and thresholds before any run of these presets with their seeds;
# none was moved after. Before that, one split of another seed was looked at without noise and with
# most of it, for what each model costs and whether it trains at all. It showed the tree losing 26
# points, the forest 6, AdaBoost of deeper trees 15, five neighbours 10, the MLP 25 while it
# memorized, one winsorized at 2 % as many, at 8 % 13 (too slow to be compared here); softmax
# regression below 1.2 nats with most noise; m-coherence of batches at some steps. The preset
# `smoke` had run once, its verdicts on 120 digits and two seeds were seen. Stopped networks and M3
# had not been.
# Claim: the row that loses more accuracy to wrong labels, the other one, in words, source.
LOSES_MORE = {
    "one neighbour loses more than five": ("one_neighbour", "knn"),
    "a tree loses more than a forest": ("tree", "random_forest"),
    "leaves with few examples lose more": ("tree", "large_leaves"),
    "boosting loses more than bagging": ("adaboost", "random_forest"),
    "the median of means loses less": ("mlp", "mlp_m3"),
}


def every_row():
    """The catalogue's rows, then variants of some."""
    from coherence.lab.estimators import catalogue
    from coherence.lab.settings import median_of_means

    rows = {row.name: row for row in catalogue((8, 8, 1))}

    def variant(original, name, label, **changes):
        make = rows[original].make
        varied = lambda seed: make(seed).set_params(**changes)
        rows[name] = replace(rows[original], name=name, label=label, make=varied)

    variant("knn", "one_neighbour", "1 nearest neighbour", model__n_neighbors=1)
    variant("tree", "large_leaves", "tree, 10 or more a leaf", min_samples_leaf=10)
    variant("mlp", "mlp_m3", "MLP, median of 3 means", model__aggregator=median_of_means(3))
    for name, steps in STOPPED.items():
        variant("mlp", name, f"MLP, {steps} steps", model__steps=steps)
    return rows


@dataclass(frozen=True)
class Digits:
    """One model, learned from so many digits with so many permuted labels, tested on all others."""

    model: str
    noise: float
    examples: int
    sample: int
    drawn: int

    def describe(self):
        return f"{self.examples} digits, the others to test on"

    def compute(self, seed):
        from sklearn.datasets import load_digits

        from coherence.lab.data.labels import corrupt_labels

        (x, y), row = load_digits(return_X_y=True), every_row()[self.model]
        x, order = x / 16, np.random.default_rng([seed, 1]).permutation(len(y))
        train, test = order[: self.examples], order[self.examples :]
        labels, corrupt = corrupt_labels(y[train], self.noise, seed=seed)
        model = row.make(seed)
        if row.gradients:
            model.set_params(model__measure_coherence=self.sample)
        model.fit(x[train], labels)
        right = model.predict(x[test]) == y[test]
        fitted = model.predict(x[train]) == labels
        results = {
            "accuracy": right.mean(),
            "fitted": fitted.mean(),
            "wrong_fitted": fitted[corrupt].mean() if corrupt.any() else np.nan,
        }
        if hasattr(model, "predict_proba"):
            results |= calibration(model.predict_proba(x[test]).max(1), right)
        if row.gradients:
            results |= model[-1].coherence_
        if row.generates and not self.noise:
            results |= drawn(model, x[test], y[test], self.drawn, seed)
        return results


def calibration(confidence, right):
    r"""How often the most probable label is right, against how probable it is said to be.

    Per bin of that probability: how many, their sum, how many right. The expected calibration
    error, :math:`\sum_b |\sum_{i \in b} (p_i - r_i)| / n`, and how much too sure the model is on
    average, :math:`\sum_i (p_i - r_i) / n`.
    """
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    sums = (np.ones(len(place)), confidence, right)
    bins = np.stack([np.bincount(place, weights, BINS) for weights in sums], 1)
    gaps = (bins[:, 1] - bins[:, 2]) / len(place)
    return {"bins": bins, "calibration_error": np.abs(gaps).sum(), "too_sure": gaps.sum()}


def drawn(model, x, y, each, seed):
    """Digits drawn by a model, the first two of every label to look at.

    And the share that a support vector machine takes for their label; it learned from digits that
    the model has not seen.
    """
    from sklearn.svm import SVC

    labels = np.tile(np.arange(10), each)
    made = np.clip(model.sample(labels, seed), 0, 1)
    recognized = SVC(C=10).fit(x, y).predict(made) == labels
    return {"recognized": recognized.mean(), "pictures": np.round(255 * made[:20]).astype(np.uint8)}


@dataclass(frozen=True)
class Regions:
    """Decisions on a grid of weight and foot size, and errors on other people.

    Of every model that needs no image.
    """

    models: tuple[str, ...] | None
    people: int
    grid: int

    def describe(self):
        return f"{self.people} people"

    def compute(self, seed):
        from coherence.lab.estimators import catalogue

        rng = np.random.default_rng([seed, 2])
        (x, y), (more, sex) = weights_and_feet(self.people, rng), weights_and_feet(4000, rng)
        axes = [np.linspace(38, 102, self.grid), np.linspace(20.9, 30.5, self.grid)]
        grid = np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)
        rows = [row for row in catalogue() if self.models is None or row.name in self.models]
        models = [row.make(seed).fit(x, y) for row in rows]
        regions = np.array([model.predict(grid) for model in models])
        return {
            "people": x,
            "sex": y,
            "axes": np.array(axes),
            "regions": regions.reshape(-1, self.grid, self.grid).astype(np.uint8),
            "errors": np.array([np.mean(model.predict(more) != sex) for model in models]),
        }


def weights_and_feet(people, rng):
    """Of made-up women (0) and men (1), in kg and cm: normal, correlated by 0.6 in both.

    No classifier errs in less than 15.9 %.
    """
    sex = rng.integers(0, 2, people)
    deviations = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], people)
    return np.array([[64.0, 24.5], [76.0, 26.9]])[sex] + np.array([10.0, 1.2]) * deviations, sex


def _rows(settings):
    rows = every_row().values()
    return [row for row in rows if settings.models is None or row.name in settings.models]


def arms(settings):
    sizes = (settings.examples, settings.sample, settings.drawn)
    learned = {
        f"{row.name},{noise:g}": Digits(row.name, noise, *sizes)
        for row in _rows(settings)
        for noise in settings.noise
    }
    return learned | {"regions": Regions(settings.by_two, settings.people, settings.grid)}


def record(settings, runs):
    from coherence.lab.estimators import catalogue

    results = {arm: [run.load("computed") for run in seeds] for arm, seeds in runs.items()}
    regions, rows = results.pop("regions"), _rows(settings)
    by_noise = {
        row.name: [results[f"{row.name},{noise:g}"] for noise in settings.noise] for row in rows
    }
    arrays = {"noise": np.array(settings.noise), "m": settings.sample}
    for name in ("name", "label", "how"):
        arrays[name] = np.array([getattr(row, name) for row in rows])
    for name in ("accuracy", "fitted", "wrong_fitted"):
        values = [[[run[name] for run in seeds] for seeds in by_noise[row.name]] for row in rows]
        arrays[name] = np.array(values, np.float32)
    for name, levels in by_noise.items():
        arrays |= under(name, of_model(levels, name.startswith(NETWORKS)))
    arrays |= {name: regions[0][name] for name in ("people", "sex", "axes", "regions")}
    shown = [row for row in catalogue() if settings.by_two is None or row.name in settings.by_two]
    return {
        **arrays,
        "region_label": np.array([row.label for row in shown]),
        "region_error": np.array([seed["errors"] for seed in regions], np.float32),
    }


def of_model(levels, comparable):
    """What is kept of a model beside its accuracies, from what its seeds computed by noise.

    Coherence at a level of the loss, if it is comparable: of the same loss as the others'.
    """
    true = levels[0]
    stack = lambda name: np.array([seed[name] for seed in true])
    names = ("calibration_error", "too_sure", "recognized")
    arrays = single({name: stack(name) for name in names if name in true[0]})
    if "pictures" in true[0]:
        arrays["pictures"] = true[0]["pictures"]
    if "bins" in true[0]:
        arrays["bins"] = np.float32(stack("bins")).sum(0)
    if comparable:
        at_level = lambda seed: first_at(seed["loss"], seed["m_coherence"], LEVEL, falling=True)
        arrays["coherence"] = np.array([list(map(at_level, seeds)) for seeds in (true, levels[-1])])
    return arrays


def judge(recorded):
    """The claims whose models were run."""
    names = list(recorded["name"])
    accuracy = dict(zip(names, recorded["accuracy"].astype(float)))
    drop = {name: values[0] - values[-1] for name, values in accuracy.items()}
    values = lambda name, what: recorded[f"{name}/{what}"].astype(float)
    has = lambda *models: set(models) <= set(names)
    tested = {
        name: drop[first] - drop[second]
        for name, (first, second) in LOSES_MORE.items()
        if has(first, second)
    }
    if has("gaussian_nb"):
        tested["naive Bayes says more than it knows"] = values("gaussian_nb", "too_sure")
    if has("random_forest"):
        tested["a forest says less than it knows"] = -values("random_forest", "too_sure")
    if has("gaussian_nb", "softmax_regression"):
        errors = [values(name, "calibration_error") for name in ("gaussian_nb", NETWORKS[0])]
        tested["naive Bayes is worse calibrated than softmax regression"] = np.subtract(*errors)
    if has(NETWORKS[0]):
        tested["wrong labels make gradients less coherent"] = {
            name: alpha_ratio(*values(name, "coherence"), int(recorded["m"]))
            for name in NETWORKS
            if name in names
        }
    if has("mlp_m3", *STOPPED):
        tested["the median of means beats stopping early"] = {
            f"{steps} steps": accuracy["mlp_m3"][-1] - accuracy[name][-1]
            for name, steps in STOPPED.items()
        }
    unmet = lambda name: not_memorized(recorded) if name.startswith("the median of") else None
    return {name: (differences, unmet(name)) for name, differences in tested.items()}


def not_memorized(recorded):
    """What is missing where the plain MLP does not fit the noisy labels; `None` where it does."""
    fitted = recorded["fitted"][recorded["name"] == "mlp", -1].min(initial=1)
    missing = too_low(fitted, MEMORIZED, "the plain MLP did not memorize: a seed fits")
    return missing and f"{missing} of the noisy labels"


def table(recorded):
    columns = ("name", "label", "accuracy", "wrong_fitted")
    rows = []
    for name, label, accuracy, wrong in zip(*(recorded[column] for column in columns)):
        percent = {
            f"{share:.0%} noise": values for share, values in zip(recorded["noise"], accuracy)
        }
        percent |= {
            "drop": accuracy[0] - accuracy[-1],
            "wrong fitted": wrong[-1],
            "calibration error": recorded.get(f"{name}/calibration_error"),
            "too sure": recorded.get(f"{name}/too_sure"),
            "drawn recognized": recorded.get(f"{name}/recognized"),
        }
        true, noisy = recorded.get(f"{name}/coherence", ("", ""))
        cells = {text: "" if v is None else 100 * v for text, v in percent.items()}
        rows.append({"model": label, **cells, "m-coh., true": true, "most noise": noisy})
    note = (
        "test accuracy by share of permuted training labels, and what follows up to drawn digits, "
        "in %; wrong fitted:\nof those labels, most noise; m-coherence, "
        f"m = {recorded['m']}, where training loss first falls to {LEVEL:g} nats"
    )
    return tabulate(rows, note)
