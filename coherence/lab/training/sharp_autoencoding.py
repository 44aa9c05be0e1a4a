"""The settings of an autoencoder whose images are also compared by features and a discriminator.

The settings are plain values (no JAX here); `build` imports what it needs.
"""

from __future__ import annotations

import dataclasses
import functools

from coherence.lab.settings import Autoencoders, Optimizers, SpatialVAE, adam, digits, mnist

from .generative import GenerativeRun
from .programs import PROGRAMS


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharpAutoencoding(GenerativeRun):
    """Settings of a run: images, autoencoder, weights of the terms, optimizer, measurements.

    The first stage of diffusion in a latent space. Features are the last hidden layer of a digit
    classifier fitted to the training images. Recorded are means over examples of `squared`,
    `perceptual`, `adversarial`, `kl` and `discriminator`, without their weights, and of `loss`.

    >>> SharpAutoencoding(steps=10).batch_size
    32
    """

    data: digits | mnist = digits()
    """Folded into the shape of the model's images."""
    model: Autoencoders = SpatialVAE(patches=16)
    factor: float = 40.0
    """What reconstruction counts for, beside KL: large, and KL is weak."""
    perceptual: float = 0.02
    adversarial: float = 0.1
    optimizer: Optimizers = adam(2e-3)
    batch_size: int = 32
    steps: int = 1500

    def _takes_labels(self):
        return False

    def _terms(self, model, data):
        classifier = _classifier(data)
        weights = (self.factor, self.perceptual, self.adversarial)
        return PROGRAMS.get(_sharp_terms, model, classifier, *weights)


@functools.lru_cache(maxsize=4)
def _classifier(data):
    from coherence.lab.sample_quality import DigitClassifier

    return DigitClassifier.fit(data.x_train, data.y_train, hidden=(64, 32), seed=1)


def _sharp_terms(model, classifier, factor, perceptual, adversarial):
    from coherence.lab.tasks.sharp_autoencoding import SharpTerms, features_of, sharp_terms

    features = features_of(classifier.weights, classifier.biases)
    of = sharp_terms(model, features, factor=factor, perceptual=perceptual, adversarial=adversarial)

    def terms(params, example):
        *values, total = of(params, example)
        return {**dict(zip(SharpTerms._fields, values)), "loss": total}

    return terms
