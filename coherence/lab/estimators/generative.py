"""Classical generative classifiers: they model p(x, y), and so can draw x for a label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import softmax
from scipy.stats import multivariate_normal
from sklearn import naive_bayes
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.covariance import empirical_covariance, ledoit_wolf, shrunk_covariance
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data


class Sampling:
    """Adds `sample` to a classifier that has `classes_`; a subclass draws from its p(x | y)."""

    classes_: np.ndarray

    def sample(self, y, random_state=None):
        """An example drawn from p(x | y) for each of the labels `y` [m]: `[m, features]`.

        Args:
            random_state: a seed, a numpy `RandomState`, or `None` for other draws each time.
        """
        return self._draw(self._places(y), check_random_state(random_state))

    def _draw(self, places, rng):
        """Rows of the classes at these places of `classes_`."""
        raise NotImplementedError

    def _places(self, y):
        """Where in `classes_` each label is."""
        check_is_fitted(self)
        y = np.asarray(y)
        if y.ndim != 1:
            raise ValueError(
                f"sample(y): labels in one row, as ['spam', 'spam'], got shape {list(y.shape)}."
            )
        if unknown := sorted(set(y.tolist()) - set(self.classes_.tolist()), key=str):
            raise ValueError(
                f"sample(y): {unknown[0]!r} is none of the labels it was fitted on, "
                f"{self.classes_.tolist()}."
            )
        return np.searchsorted(self.classes_, y)


class GaussianNB(Sampling, naive_bayes.GaussianNB):
    """scikit-learn's, with `sample`: independent normal features.

    >>> x, y = np.array([[0.0], [0.1], [1.0], [1.1]]), np.array([0, 0, 1, 1])
    >>> classifier = GaussianNB().fit(x, y)
    >>> classifier.predict([[0.2]]), classifier.sample([1, 1]).shape
    (array([0]), (2, 1))
    """

    def _draw(self, places, rng):
        return rng.normal(self.theta_[places], np.sqrt(self.var_[places]))


class BernoulliNB(Sampling, naive_bayes.BernoulliNB):
    """scikit-learn's, with `sample`: independent features that are 0 or 1."""

    def _draw(self, places, rng):
        probabilities = np.exp(self.feature_log_prob_[places])
        return (rng.random_sample(probabilities.shape) < probabilities).astype(float)


class MultinomialNB(Sampling, naive_bayes.MultinomialNB):
    """scikit-learn's, with `sample`: so many words, each drawn from the class's frequencies.

    >>> counts, y = np.array([[3, 0], [0, 3]]), np.array([0, 1])
    >>> MultinomialNB().fit(counts, y).predict([[2, 0]])
    array([0])
    """

    def sample(self, y, random_state=None, total=None):
        """Counts drawn from p(x | y, total) for each of the labels `y` [m]: `[m, features]`.

        The model says nothing about how long a message is. `total`, a number or one a label, is
        given; `None` takes the mean total of the class's training examples, rounded, and 1 at
        least.
        """
        places = self._places(y)
        if total is None:
            total = np.maximum(np.rint(self.feature_count_.sum(1) / self.class_count_), 1)[places]
        total = np.broadcast_to(np.asarray(total, int), places.shape)
        rng = check_random_state(random_state)
        frequencies = np.exp(self.feature_log_prob_)
        # Sums are 1 within rounding already, but numpy is strict.
        frequencies /= frequencies.sum(1, keepdims=True)
        rows = [rng.multinomial(n, frequencies[k]) for n, k in zip(total, places)]
        return np.array(rows, float).reshape(-1, self.n_features_in_)


@dataclass(eq=False, repr=False, kw_only=True)
class NormalBayes(Sampling, ClassifierMixin, BaseEstimator):
    r"""Each class a normal distribution of its own mean; classified by Bayes' rule, and drawn from.

    .. math:: p(y \mid x) \propto p(y)\, N(x; \mu_y, (1 - s) \Sigma_y + s \bar\sigma^2_y I)

    with p(y) the class's share of the examples, the maximum-likelihood covariance and its mean
    variance. With `covariance="shared"` one for all classes, of the examples' deviations from their
    class's mean: the boundaries are then linear, and this is linear discriminant analysis; `"full"`
    is quadratic discriminant analysis. Without shrinkage a pixel that never changes makes a
    covariance singular. Shrinkage adds the same variance to every feature: they should be of one
    scale.
    """

    covariance: Literal["full", "shared"] = "full"
    shrinkage: float | Literal["auto"] = 0.1
    """s, in [0, 1]; "auto": Ledoit and Wolf's."""

    def fit(self, X, y):
        self._check()
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        members = [X[labels == k] for k in range(len(self.classes_))]
        self.means_ = np.array([examples.mean(0) for examples in members])
        self.priors_ = np.bincount(labels) / len(labels)
        deviations = [examples - mean for examples, mean in zip(members, self.means_)]
        if self.covariance == "shared":
            self.covariances_ = [self._shrunk(np.concatenate(deviations))] * len(members)
        else:
            self.covariances_ = [self._shrunk(part) for part in deviations]
        self._normals()  # refuses a singular covariance now
        return self

    def predict(self, X):
        """The most probable label of each example."""
        most = self._joint(X).argmax(1)  # first, for it says where nothing is fitted yet
        return self.classes_[most]

    def predict_proba(self, X):
        """The probabilities of `classes_`, [m, classes]."""
        return softmax(self._joint(X), axis=1)

    def _check(self):
        if self.covariance not in ("full", "shared"):
            raise ValueError(f"NormalBayes(covariance): full or shared, got {self.covariance!r}.")
        if self.shrinkage != "auto" and not (
            not isinstance(self.shrinkage, str) and 0 <= self.shrinkage <= 1
        ):
            raise ValueError(
                f"NormalBayes(shrinkage): a share in [0, 1], or 'auto', got {self.shrinkage!r}."
            )

    def _shrunk(self, deviations):
        if self.shrinkage == "auto":
            return ledoit_wolf(deviations, assume_centered=True)[0]
        return shrunk_covariance(
            empirical_covariance(deviations, assume_centered=True), self.shrinkage
        )

    def _normals(self):
        try:
            return [
                multivariate_normal(mean, covariance)
                for mean, covariance in zip(self.means_, self.covariances_)
            ]
        except np.linalg.LinAlgError:
            raise ValueError(
                f"NormalBayes(covariance={self.covariance!r}, shrinkage={self.shrinkage}): the "
                "covariance of a class is singular. Each class needs two different examples at "
                "least; more shrinkage helps where features depend on each other or never change."
            ) from None

    def _joint(self, X):
        """log p(x, y), [m, classes]."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        densities = [normal.logpdf(X).reshape(len(X)) for normal in self._normals()]
        return np.stack(densities, 1) + np.log(self.priors_)

    def _draw(self, places, rng):
        rows = np.empty((len(places), self.n_features_in_))
        for k, normal in enumerate(self._normals()):
            members = places == k
            drawn = normal.rvs(members.sum(), random_state=rng)
            rows[members] = drawn.reshape(-1, self.n_features_in_)
        return rows
