"""The usual textbooks' classifiers as rows of one table: what it models, what it can do, and how to make it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

GENERATIVE = ("generative", "p(x, y)")
PROBABILISTIC = ("discriminative, probabilistic", "p(y | x)")
DECISION = ("discriminative, non-probabilistic", "x to y")


@dataclass(frozen=True)
class Row:
    """One classifier.

    name: to be written in code.  label: to be read.
    how: the first definition, how it is built: generative; discriminative, probabilistic;
    discriminative, non-probabilistic.
    models: what it models thereby: p(x, y), p(y | x), x to y.
    generates: the second definition, whether it has p(x | y) to draw from: `sample`.
    gradients: whether it is trained from gradients of examples here, so that their coherence can be
    measured.
    make: `make(random_state)` gives a fresh estimator.
    """

    name: str
    label: str
    how: str
    models: str
    generates: bool
    gradients: bool
    make: Callable[[int], Any]


def catalogue(shape: tuple[int, int, int] | None = None) -> tuple[Row, ...]:
    """All rows for images of `shape` (height, width, channels), flat in the data; without one, those that need no image.

    Settings are for some hundreds to thousands of examples and seconds of training. Where scale
    matters, `make` gives a `Scaled` with the classifier as its step `model`:
    `row.make(0).set_params(model__measure_coherence=500)`, and `fit(X, y, model__corrupt=corrupt)`.

    Sorted as textbooks do: gradient boosting stands with the trees it is made of, though it fits
        p(y | x).
    """
    return (*_generative(shape), *_probabilistic(shape), *_decisions())


def _generative(shape):
    from .naive_bayes import BernoulliNB, GaussianNB, MultinomialNB
    from .normal_bayes import NormalBayes
    from .variational import ConditionalVAEClassifier

    row = lambda name, label, make, gradients=False: Row(
        name, label, *GENERATIVE, True, gradients, make
    )
    return [
        row(
            "gaussian_nb",
            "Gaussian naive Bayes",
            lambda seed: _scaled(GaussianNB(var_smoothing=1e-2)),
        ),
        # Features as counts of up to 16: what a pixel of the digits is.
        row(
            "multinomial_nb",
            "multinomial naive Bayes",
            lambda seed: _scaled(MultinomialNB(), feature_range=(0, 16), clip=True),
        ),
        row(
            "bernoulli_nb", "Bernoulli naive Bayes", lambda seed: _scaled(BernoulliNB(binarize=0.5))
        ),
        row(
            "normal_bayes_full",
            "normal Bayes, a covariance a class",
            lambda seed: _scaled(NormalBayes(covariance="full")),
        ),
        row(
            "normal_bayes_shared",
            "normal Bayes, shared covariance (LDA)",
            lambda seed: _scaled(NormalBayes(covariance="shared")),
        ),
        row(
            "conditional_vae",
            "class-conditional VAE",
            lambda seed: _scaled(ConditionalVAEClassifier(shape=shape, random_state=seed)),
            gradients=True,
        ),
    ]


def _probabilistic(shape):
    from .networks import CNNClassifier, MLPClassifier, RNNClassifier, SoftmaxRegression

    row = lambda name, label, model, **kwargs: Row(
        name,
        label,
        *PROBABILISTIC,
        False,
        True,
        lambda seed: _scaled(model(random_state=seed, **kwargs)),
    )
    rows = [
        row("softmax_regression", "softmax regression", SoftmaxRegression),
        row("mlp", "MLP", MLPClassifier),
    ]
    if shape is not None:
        height, width, channels = shape
        rows += [
            row("cnn", "CNN", CNNClassifier, shape=tuple(shape)),
            row("rnn", "RNN over rows", RNNClassifier, shape=(height, width * channels)),
        ]
    return rows


def _decisions():
    from sklearn.ensemble import (
        AdaBoostClassifier,
        HistGradientBoostingClassifier,
        RandomForestClassifier,
    )
    from sklearn.linear_model import Perceptron
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC, LinearSVC
    from sklearn.tree import DecisionTreeClassifier

    from .extras import xgboost_classifier

    row = lambda name, label, make: Row(name, label, *DECISION, False, False, make)
    # Trees so shallow as to err together are raised by boosting only if each beats chance clearly:
    # of ten classes a stump tells two.
    weak = lambda seed: DecisionTreeClassifier(max_depth=3, random_state=seed)
    return [
        row(
            "perceptron",
            "perceptron",
            lambda seed: _scaled(Perceptron(max_iter=100, tol=None, random_state=seed)),
        ),
        row(
            "linear_svm",
            "linear SVM",
            lambda seed: _scaled(LinearSVC(random_state=seed, max_iter=10_000)),
        ),
        row("kernel_svm", "kernel SVM", lambda seed: _scaled(SVC(random_state=seed))),
        row("knn", "k nearest neighbours", lambda seed: _scaled(KNeighborsClassifier())),
        row("tree", "decision tree", lambda seed: DecisionTreeClassifier(random_state=seed)),
        row(
            "random_forest", "random forest", lambda seed: RandomForestClassifier(random_state=seed)
        ),
        row(
            "adaboost",
            "AdaBoost of trees",
            lambda seed: AdaBoostClassifier(weak(seed), n_estimators=100, random_state=seed),
        ),
        row(
            "gradient_boosting",
            "gradient boosting",
            lambda seed: HistGradientBoostingClassifier(max_iter=50, random_state=seed),
        ),
        row(
            "xgboost",
            "xgboost",
            lambda seed: xgboost_classifier(n_estimators=50, random_state=seed, n_jobs=1),
        ),
    ]


def _scaled(model, **settings):
    from sklearn.preprocessing import MinMaxScaler

    from .scaling import Scaled

    return Scaled([("scaler", MinMaxScaler(**settings)), ("model", model)])
