"""A class-conditional variational autoencoder as a generative classifier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.utils.validation import check_is_fitted

from coherence.lab.settings import ConditionalVAE
from coherence.lab.training.programs import PROGRAMS
from coherence.lab.training.samples import stream_key

from .generative import Sampling
from .trained import Parts, Probabilistic

_DRAWS = 5  # a stream of its own, for predicting


@dataclass(eq=False, repr=False, kw_only=True)
class ConditionalVAEClassifier(Sampling, Probabilistic):
    r"""Classified by Bayes' rule, with the evidence lower bound in place of log p(x | y).

    .. math:: \log p(y \mid x) \approx \log p(y) + E_q[\log N(x; \hat x(z, y), v I)]
        - \mathrm{KL}(q(z \mid x, y) \,\|\, N(0, I)) + const

    The expectation is the mean over `draws` of z, from the same noise for every example and class:
    what is predicted of one example does not depend on the others. `sample` draws z and gives the
    pixels' means, without the noise of variance v.

    >>> ConditionalVAEClassifier(latents=4).get_params()["latents"]
    4
    """

    shape: tuple[int, int, int] | None = None
    """Height, width and channels of an image; None: features in a row."""
    latents: int = 8
    """Numbers in z."""
    width: int = 128
    """Units in each hidden layer."""
    depth: int = 1
    """Hidden layers of the encoder, and of the decoder."""
    variance: float = 0.05
    """v, of a pixel around its mean; features are of about unit scale."""
    draws: int = 16
    """Of z, for each example and class, when predicting."""

    def sample(self, y, random_state=None):
        """The mean image of a z drawn from N(0, I) for each of the labels `y` [m]: `[m, features]`.

        Args:
            random_state: a seed, a numpy `RandomState`, or `None` for other draws each time.
        """
        return super().sample(y, random_state)

    def _check(self):
        super()._check()
        if not (self.variance > 0 and self.draws >= 1):
            raise ValueError(
                "ConditionalVAEClassifier: variance is above 0 and draws at least 1, "
                f"got variance={self.variance}, draws={self.draws}."
            )

    def _settings(self):
        shape = (1, 1, self.n_features_in_) if self.shape is None else self.shape
        self._check_folding(shape)
        sizes = {"width": self.width, "depth": self.depth, "latents": self.latents}
        return ConditionalVAE(**sizes, shape=shape, classes=len(self.classes_))

    def _parts(self):
        return PROGRAMS.get(_network, self._settings(), 0.5 / self.variance)

    def _learn(self, X, labels, corrupt):
        self.class_log_prior_ = np.log(np.bincount(labels) / len(labels))
        super()._learn(X, labels, corrupt)

    def _scores(self, X):
        import jax

        check_is_fitted(self)
        keys = jax.random.split(stream_key(self._fitted_seed, _DRAWS), self.draws)
        return super()._scores(X, keys) + self.class_log_prior_

    def _draw(self, places, rng):
        z = rng.standard_normal((len(places), self.latents)).astype(np.float32)
        images = self._parts().model.apply(
            self.params_, z, places.astype(np.int32), method="decode"
        )
        return np.asarray(images).reshape(len(places), self.n_features_in_)


def _network(settings, factor) -> Parts:
    import jax
    import jax.numpy as jnp

    from coherence.lab.tasks.autoencoding import negative_elbo

    model = settings.build()
    loss = negative_elbo(model, factor=factor)

    def scores(params, x, keys):
        bound = lambda x, y: -jax.vmap(lambda key: loss(params, (x, y, key)))(keys).mean()
        classes = jnp.arange(settings.classes)
        # Examples one after the other: classes x draws images at once are enough.
        return jax.lax.map(lambda image: jax.vmap(bound, (None, 0))(image, classes), x)

    return Parts(model, loss, jax.jit(scores), draws=True)
