"""Scaler and classifier as one, with what the classifier can do beyond a pipeline."""

from __future__ import annotations

from sklearn.pipeline import Pipeline
from sklearn.utils.metaestimators import available_if


def _last_has(name):
    return lambda self: hasattr(self.steps[-1][1], name)


class Scaled(Pipeline):
    """A pipeline that can draw: `sample` of the last step, back through the scalers; and `coherence_` of the last step."""

    @available_if(_last_has("sample"))
    def sample(self, y, random_state=None, **options):
        """An example of each of the labels `y`, as the last step draws it, in the units of the data."""
        drawn = self[-1].sample(y, random_state, **options)
        for _, step in reversed(self.steps[:-1]):
            drawn = step.inverse_transform(drawn)
        return drawn

    @property
    def coherence_(self):
        """What the last step measured while it was trained, where it did."""
        return self[-1].coherence_
