"""Libraries that only some want, imported where they are used; and what they need to stand beside the others."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.validation import check_is_fitted


def xgboost_classifier(**settings):
    """`xgboost.XGBClassifier`, for any labels.

    Raises:
        ImportError: the extra is not installed.
    """
    try:
        from xgboost import XGBClassifier
    except ImportError:
        raise ImportError(
            "the row xgboost needs the extra classical, which brings xgboost: pip install -e '.[classical]'."
        ) from None
    return Encoded(XGBClassifier(**settings))


class Encoded(ClassifierMixin, BaseEstimator):
    """A classifier that knows only the labels 0, 1, 2, ... made to take any."""

    def __init__(self, classifier):
        self.classifier = classifier

    def fit(self, X, y):
        encoder = LabelEncoder()
        self.classifier_ = clone(self.classifier).fit(X, encoder.fit_transform(y))
        self.classes_, self.n_features_in_ = encoder.classes_, self.classifier_.n_features_in_
        return self

    def predict(self, X):
        check_is_fitted(self)
        return self.classes_[np.asarray(self.classifier_.predict(X), int)]

    def predict_proba(self, X):
        check_is_fitted(self)
        return self.classifier_.predict_proba(X)
