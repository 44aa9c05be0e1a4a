"""Wrong labels found by a classifier, cross-fitted, with scikit-learn's interface."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import StratifiedKFold
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_X_y

from .trained import Trained


class LabelAudit(BaseEstimator):
    """How suspicious each label is, by classifiers that were trained without the example.

    The examples are cut into folds, with as many of each class. Each fold is judged by a clone of
    the estimator trained on the others, so that no network has memorized what it judges. Of this
    package's networks with `predict_proba` the judge is the gradient: under which label would it
    agree most with that label's other examples (`coherence.scores.label_agreement`)? Of any other
    classifier, one that draws or one in a pipeline, it is log p(y | x). Cost: `folds` trainings.
    Along a single training `coherence.audit` needs one.

    After `fit`:

    * `scores_` [n]: the best other label's agreement (or log-probability) less the given one's;
      above 0: another label is argued for. The most suspicious are the largest.
    * `labels_` [n]: the label argued for.
    * `order_` [n]: numbers of examples, most suspicious first.

    >>> from sklearn.naive_bayes import GaussianNB
    >>> X = np.array([[0.0], [0.1], [0.2], [0.3], [1.0], [1.1], [1.2], [1.3], [1.25]])
    >>> y = ["low"] * 4 + ["high"] * 4 + ["low"]
    >>> int(LabelAudit(GaussianNB(), folds=3).fit(X, y).order_[0])
    8
    """

    def __init__(self, estimator: Any, folds: int = 5, random_state: int = 0):
        self.estimator = estimator
        self.folds = folds
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> LabelAudit:
        """Judge the labels `y` of `X` [n, features].

        Raises:
            ValueError: one class only, a class with fewer examples than folds, or an estimator
                without probabilities.
        """
        X, y = check_X_y(X, y, accept_sparse="csr")
        check_classification_targets(y)
        classes, labels, counts = np.unique(y, return_inverse=True, return_counts=True)
        if len(classes) < 2:
            raise ValueError(
                f"LabelAudit: all labels are {classes[0]!r}; of one class there is nothing to "
                "compare."
            )
        if counts.min() < self.folds:
            raise ValueError(
                f"LabelAudit(folds): class {classes[counts.argmin()]!r} has {counts.min()} "
                f"examples, fewer than {self.folds} folds. Take fewer folds, or leave it out."
            )
        if not hasattr(self.estimator, "predict_proba"):
            raise ValueError(
                f"LabelAudit(estimator): {type(self.estimator).__name__} has no predict_proba; "
                "wrap it in sklearn.calibration.CalibratedClassifierCV."
            )
        values = np.zeros((len(labels), len(classes)))
        folds = StratifiedKFold(self.folds, shuffle=True, random_state=self.random_state)
        for inside, outside in folds.split(X, labels):
            fitted = clone(self.estimator).fit(X[inside], y[inside])
            values[outside] = _argued(fitted, X, labels, outside)
        each = np.arange(len(labels))
        given = values[each, labels]
        others = values.copy()
        others[each, labels] = -np.inf
        self.scores_ = others.max(1) - given
        self.classes_ = classes
        self.labels_ = classes[values.argmax(1)]
        self.order_ = np.argsort(-self.scores_, kind="stable")
        return self


def _argued(fitted: Any, X: Any, labels: Any, outside: Any) -> Any:
    """How much speaks for each class, of examples that the estimator was not trained on."""
    if not isinstance(fitted, Trained) or (parts := fitted._parts()).draws:
        with np.errstate(divide="ignore"):
            return np.log(np.maximum(fitted.predict_proba(X[outside]), 1e-300))
    from coherence.scores import label_agreement

    dense = X.toarray() if hasattr(X, "toarray") else X
    data = fitted._inputs(dense.astype(np.float32)), labels.astype(np.int32)
    under = label_agreement(parts.loss, fitted.params_, data, outside)
    return np.nan_to_num(under, nan=-1.0)
