"""Planted wrong labels come first, whatever judges them; bad input says so."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from coherence.lab.estimators import LabelAudit, SoftmaxRegression


def planted(seed=0, n=60):
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 3
    X = (4 * np.eye(3)[truth] + rng.normal(size=(n, 3))).astype(np.float32)
    wrong = np.zeros(n, bool)
    wrong[rng.permutation(n)[:6]] = True
    return X, np.where(wrong, (truth + 1) % 3, truth), truth, wrong


@pytest.mark.parametrize(
    "estimator", [LogisticRegression(), SoftmaxRegression(steps=60, batch_size=20)]
)
def test_planted_errors_come_first_with_their_true_label(estimator):
    X, y, truth, wrong = planted()
    names = np.array(["ant", "bee", "cat"])
    audit = LabelAudit(estimator, folds=3).fit(X, names[y])
    assert wrong[audit.order_[:6]].mean() >= 5 / 6
    assert (audit.labels_[wrong] == names[truth[wrong]]).mean() >= 5 / 6
    assert ((audit.scores_ > 0) == (audit.labels_ != names[y])).all()


@pytest.mark.parametrize(
    ("audit", "y", "message"),
    [
        (LabelAudit(LogisticRegression()), np.zeros(60, int), "all labels are"),
        (LabelAudit(LogisticRegression(), folds=25), planted()[1], "fewer than 25 folds"),
        (LabelAudit(RidgeClassifier()), planted()[1], "has no predict_proba"),
    ],
)
def test_what_cannot_be_judged_is_refused(audit, y, message):
    with pytest.raises(ValueError, match=message):
        audit.fit(planted()[0], y)
