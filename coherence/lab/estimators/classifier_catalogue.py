"""The usual textbooks' classifiers: what each models, what it can do, and how to make one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import (
    AdaBoostClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import Perceptron
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelEncoder, MinMaxScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from .boltzmann import RBMClassifier
from .generative import BernoulliNB, GaussianNB, MultinomialNB, NormalBayes
from .network_classifiers import (
    CNNClassifier,
    HingeClassifier,
    MLPClassifier,
    RNNClassifier,
    SoftmaxRegression,
)
from .variational import ConditionalVAEClassifier

GENERATIVE = ("generative", "p(x, y)")
PROBABILISTIC = ("discriminative, probabilistic", "p(y | x)")
DECISION = ("discriminative, non-probabilistic", "x to y")


@dataclass(frozen=True)
class Entry:
    """A classifier of the catalogue.

    Args:
        name: as written in code.
        label: as read.
        how: how it is built, the first definition: generative; discriminative, probabilistic;
            discriminative, non-probabilistic.
        models: what it models thereby: p(x, y), p(y | x), x to y.
        generates: whether it has p(x | y) to draw from, the second definition: `sample`.
        gradients: whether it is trained from gradients of examples here, so that their coherence
            can be measured.
        make: `make(random_state)` is a fresh estimator.

    >>> from coherence.lab.estimators import catalogue
    >>> catalogue()[0].name
    'gaussian_nb'
    """

    name: str
    label: str
    how: str
    models: str
    generates: bool
    gradients: bool
    make: Callable[[int], Any]


def catalogue(shape: tuple[int, int, int] | None = None) -> tuple[Entry, ...]:
    """All classifiers, for flat images of `shape` or without one for features in a row.

    Their settings suit some hundreds to thousands of examples and seconds of training. Where scale
    matters, `make` gives a `ScaledPipeline` with the classifier as its step `model`:
    `entry.make(0).set_params(model__measure_coherence=500)`, and `fit(X, y, model__corrupt=...)`.

    Sorted as textbooks do: gradient boosting stands with the trees it is made of, though it fits
    p(y | x).

    Args:
        shape: height, width and channels of an image. Networks that read images are listed only
            with one.
    """
    return (*_generative(shape), *_probabilistic(shape), *_decisions())


def _generative(shape):
    entry = lambda name, label, make, gradients=False: Entry(
        name, label, *GENERATIVE, True, gradients, make
    )
    vae = lambda seed: _scaled(ConditionalVAEClassifier(shape=shape, random_state=seed))
    return [
        entry(
            "gaussian_nb",
            "Gaussian naive Bayes",
            lambda seed: _scaled(GaussianNB(var_smoothing=1e-2)),
        ),
        # Features as counts of up to 16: what a pixel of the digits is.
        entry(
            "multinomial_nb",
            "multinomial naive Bayes",
            lambda seed: _scaled(MultinomialNB(), feature_range=(0, 16), clip=True),
        ),
        entry(
            "bernoulli_nb",
            "Bernoulli naive Bayes",
            lambda seed: _scaled(BernoulliNB(binarize=0.5)),
        ),
        entry(
            "normal_bayes_full",
            "normal Bayes, a covariance a class",
            lambda seed: _scaled(NormalBayes(covariance="full")),
        ),
        entry(
            "normal_bayes_shared",
            "normal Bayes, shared covariance (LDA)",
            lambda seed: _scaled(NormalBayes(covariance="shared")),
        ),
        entry("conditional_vae", "class-conditional VAE", vae, gradients=True),
        entry(
            "rbm",
            "classification RBM",
            lambda seed: _scaled(RBMClassifier(random_state=seed)),
            gradients=True,
        ),
    ]


def _probabilistic(shape):
    def entry(name, label, model, **options):
        make = lambda seed: _scaled(model(random_state=seed, **options))
        return Entry(name, label, *PROBABILISTIC, False, True, make)

    entries = [
        entry("softmax_regression", "softmax regression", SoftmaxRegression),
        entry("mlp", "MLP", MLPClassifier),
    ]
    if shape is None:
        return entries
    height, width, channels = shape
    rows = (height, width * channels)
    return [
        *entries,
        entry("cnn", "CNN", CNNClassifier, shape=tuple(shape)),
        entry("rnn", "RNN over rows", RNNClassifier, shape=rows),
    ]


def _decisions():
    entry = lambda name, label, make, gradients=False: Entry(
        name, label, *DECISION, False, gradients, make
    )
    # Trees so shallow as to err together are raised by boosting only if each beats chance clearly:
    # of ten classes a stump tells two.
    weak = lambda seed: DecisionTreeClassifier(max_depth=3, random_state=seed)
    return [
        entry(
            "perceptron",
            "perceptron",
            lambda seed: _scaled(Perceptron(max_iter=100, tol=None, random_state=seed)),
        ),
        entry(
            "linear_svm",
            "linear SVM",
            lambda seed: _scaled(LinearSVC(random_state=seed, max_iter=10_000)),
        ),
        entry("kernel_svm", "kernel SVM", lambda seed: _scaled(SVC(random_state=seed))),
        entry(
            "hinge_mlp",
            "MLP, hinge loss",
            lambda seed: _scaled(HingeClassifier(random_state=seed)),
            gradients=True,
        ),
        entry("knn", "k nearest neighbours", lambda seed: _scaled(KNeighborsClassifier())),
        entry("tree", "decision tree", lambda seed: DecisionTreeClassifier(random_state=seed)),
        entry(
            "random_forest",
            "random forest",
            lambda seed: RandomForestClassifier(random_state=seed),
        ),
        entry(
            "adaboost",
            "AdaBoost of trees",
            lambda seed: AdaBoostClassifier(weak(seed), n_estimators=100, random_state=seed),
        ),
        entry(
            "gradient_boosting",
            "gradient boosting",
            lambda seed: HistGradientBoostingClassifier(max_iter=50, random_state=seed),
        ),
        entry(
            "xgboost",
            "xgboost",
            lambda seed: xgboost_classifier(n_estimators=50, random_state=seed, n_jobs=1),
        ),
    ]


def _scaled(model, **options):
    return ScaledPipeline([("scaler", MinMaxScaler(**options)), ("model", model)])


def _last_has(name):
    return lambda self: hasattr(self.steps[-1][1], name)


class ScaledPipeline(Pipeline):
    """A scikit-learn pipeline that passes on its last step's `sample` and `coherence_`.

    >>> from coherence.lab.estimators import GaussianNB
    >>> from sklearn.preprocessing import StandardScaler
    >>> x, y = np.array([[0.0], [1.0], [5.0], [6.0]]), np.array([0, 0, 1, 1])
    >>> pipeline = ScaledPipeline([("scale", StandardScaler()), ("classify", GaussianNB())])
    >>> pipeline.fit(x, y).predict([[4.0]])
    array([1])
    """

    @available_if(_last_has("sample"))
    def sample(self, y, random_state=None, **options):
        """An example of each label in `y`, as the last step draws it, in the units of the data."""
        drawn = self[-1].sample(y, random_state, **options)
        for _, step in reversed(self.steps[:-1]):
            drawn = step.inverse_transform(drawn)
        return drawn

    @property
    def coherence_(self) -> dict[str, np.ndarray]:
        """What the last step measured while it was trained, where it did."""
        return self[-1].coherence_


def xgboost_classifier(**options: Any) -> NumberedLabels:
    """`xgboost.XGBClassifier`, for any labels.

    Raises:
        ImportError: the extra is not installed.
    """
    try:
        from xgboost import XGBClassifier
    except ImportError:
        raise ImportError("xgboost is not installed: pip install -e '.[classical]'.") from None
    return NumberedLabels(XGBClassifier(**options))


class NumberedLabels(ClassifierMixin, BaseEstimator):
    """A wrapper that gives any labels to a classifier that knows only 0, 1, 2, ...

    >>> from sklearn.linear_model import LogisticRegression
    >>> x, y = np.array([[0.0], [1.0]]), np.array(["ham", "spam"])
    >>> NumberedLabels(LogisticRegression()).fit(x, y).predict([[1.0]])
    array(['spam'], dtype='<U4')
    """

    def __init__(self, classifier):
        self.classifier = classifier

    def fit(self, X, y):
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        encoder = LabelEncoder()
        self.classifier_ = clone(self.classifier).fit(X, encoder.fit_transform(y))
        self.classes_ = encoder.classes_
        return self

    def predict(self, X):
        """The most probable label of each example."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        return self.classes_[np.asarray(self.classifier_.predict(X), int)]

    @available_if(lambda self: hasattr(self.classifier, "predict_proba"))
    def predict_proba(self, X):
        """The probabilities of `classes_`, [m, classes]."""
        check_is_fitted(self)
        return self.classifier_.predict_proba(validate_data(self, X, reset=False))
