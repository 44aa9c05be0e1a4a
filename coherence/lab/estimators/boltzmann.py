"""A restricted Boltzmann machine with units for the label as a generative classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from coherence.lab.training.boltzmann import RBM, binary
from coherence.lab.training.programs import PROGRAMS

from .generative import Sampling
from .trained import Parts, Probabilistic


@dataclass(eq=False, repr=False, kw_only=True)
class RBMClassifier(Sampling, Probabilistic):
    r"""A joint model p(x, y) of features that are 0 or 1, trained by contrastive divergence.

    .. math:: p(y \mid x) = \mathrm{softmax}_y(-F(x, y))

    with F the free energy: exact, though p(x, y) itself is known but for a constant. `sample` draws
    zeros and ones from p(x | y) by Gibbs sampling with the label held.

    >>> RBMClassifier(hidden=16).get_params()["hidden"]
    16
    """

    hidden: int = 128
    """Hidden units."""
    threshold: float | None = 0.5
    """A feature above it is 1, any other 0; None: they are zeros and ones already."""
    k: int = 1
    """Sweeps of Gibbs sampling for the negative phase."""
    sweeps: int = 500
    """Of Gibbs sampling for a draw."""
    optimizer: Any = "sgd(learning_rate=0.1, momentum=0.9)"

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True  # as of any classifier of zeros and ones
        return tags

    def _check(self):
        super()._check()
        if self.k < 1 or self.sweeps < 1:
            raise ValueError(
                "RBMClassifier: k and sweeps are at least 1 sweep of sampling, "
                f"got k={self.k}, sweeps={self.sweeps}."
            )

    def _settings(self):
        return RBM(self.n_features_in_, self.hidden, len(self.classes_))

    def _parts(self):
        return PROGRAMS.get(_machine, self._settings(), self.k)

    def _inputs(self, X):
        return binary(X, self.threshold, type(self).__name__)

    def _draw(self, places, rng):
        import jax

        from coherence.lab.tasks.boltzmann import conditional_draws

        draw = PROGRAMS.get(conditional_draws, self._parts().model, self.sweeps)
        key = jax.random.key(rng.randint(2**31 - 1))
        return np.asarray(draw(self.params_, places, key), float)


def _machine(settings, k) -> Parts:
    import jax

    from coherence.lab.tasks.boltzmann import contrastive_divergence

    model = settings.build()
    scores = lambda params, x: model.apply(params, x, method="label_logits")
    return Parts(model, contrastive_divergence(model, k), jax.jit(scores), draws=True)
