"""Bayes' rule with one multivariate normal a class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import softmax
from scipy.stats import multivariate_normal
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.covariance import empirical_covariance, ledoit_wolf, shrunk_covariance
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from .sampling import Sampling


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
        self.means_ = np.array([one.mean(0) for one in members])
        self.priors_ = np.bincount(labels) / len(labels)
        deviations = [one - mean for one, mean in zip(members, self.means_)]
        if self.covariance == "shared":
            self.covariances_ = [self._shrunk(np.concatenate(deviations))] * len(members)
        else:
            self.covariances_ = [self._shrunk(one) for one in deviations]
        self._normals()  # a singular one is said now
        return self

    def predict(self, X):
        """The most probable label of each example."""
        most = self._joint(X).argmax(1)
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
                f"NormalBayes(covariance={self.covariance!r}, shrinkage={self.shrinkage}): the covariance of a class is singular. Each "
                "class needs two different examples at least; more shrinkage helps where features depend on each other or never change."
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
            rows[places == k] = normal.rvs((places == k).sum(), random_state=rng).reshape(
                -1, self.n_features_in_
            )
        return rows
