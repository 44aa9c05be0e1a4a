"""scikit-learn's naive Bayes classifiers, which model p(x | y) and so can draw from it."""

from __future__ import annotations

import numpy as np
from sklearn import naive_bayes
from sklearn.utils import check_random_state

from .sampling import Sampling


class GaussianNB(Sampling, naive_bayes.GaussianNB):
    """scikit-learn's, with `sample`: independent features, each normal with the class's mean and variance."""

    def _draw(self, places, rng):
        return rng.normal(self.theta_[places], np.sqrt(self.var_[places]))


class BernoulliNB(Sampling, naive_bayes.BernoulliNB):
    """scikit-learn's, with `sample`: independent features that are 0 or 1."""

    def _draw(self, places, rng):
        return (
            rng.random_sample((len(places), self.n_features_in_))
            < np.exp(self.feature_log_prob_[places])
        ).astype(float)


class MultinomialNB(Sampling, naive_bayes.MultinomialNB):
    """scikit-learn's, with `sample`: so many words, each drawn from the class's frequencies."""

    def sample(self, y, random_state=None, total=None):
        """Counts drawn from p(x | y, total) for each of the labels `y` [m]: `[m, features]`.

        The model says nothing about how long a message is. `total`, a number or one a label, is
        given; `None` takes the mean total of the class's training examples, rounded, and 1 at
        least.
        """
        places = self._places(y)
        if total is None:
            total = np.maximum(np.rint(self.feature_count_.sum(1) / self.class_count_), 1)[places]
        return self._draw(
            places,
            check_random_state(random_state),
            np.broadcast_to(np.asarray(total, int), places.shape),
        )

    def _draw(self, places, rng, total):
        frequencies = np.exp(self.feature_log_prob_)
        frequencies /= frequencies.sum(
            1, keepdims=True
        )  # within rounding already, but numpy is strict
        return np.array(
            [rng.multinomial(n, frequencies[k]) for n, k in zip(total, places)], float
        ).reshape(-1, self.n_features_in_)
