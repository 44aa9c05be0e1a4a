"""Drawing examples of a class: what makes a classifier generative by the second definition."""

from __future__ import annotations

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted


class Sampling:
    """Adds `sample` to a classifier that has `classes_`; a subclass says how rows are drawn from its p(x | y)."""

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
                f"sample(y): {unknown[0]!r} is none of the labels it was fitted on, {self.classes_.tolist()}."
            )
        return np.searchsorted(self.classes_, y)
