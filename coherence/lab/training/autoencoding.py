"""The settings of an autoencoder trained on images, of which some may be garbage.

The settings are plain values (no JAX here); `build` imports what it needs.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from coherence.lab.settings import (
    AE,
    VAE,
    Autoencoders,
    ConditionalVAE,
    Optimizers,
    adam,
    circles,
    digits,
    mnist,
)

from .generative import GenerativeRun
from .programs import PROGRAMS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoencoding(GenerativeRun):
    """Settings of a run: images, network, objective, aggregator, optimizer, length, measurements.

    Recorded are the means over examples of `reconstruction`, `kl` (not of an `AE`) and
    `loss`, each as `train_...`, `test_...` and, where some images are garbage, `pristine_...`,
    `corrupt_...` and `fresh_...`: the test images all made garbage in the same way. What a network
    reconstructs worse of fresh garbage than of that it was trained on, it has memorized.
    """

    data: circles | mnist | digits = circles()
    """Folded into the shape of the model's images."""
    model: Autoencoders = VAE()
    factor: float = 1.0
    """What the reconstruction error is multiplied by, beside KL."""
    pixels: Literal["sum", "mean"] = "sum"
    """How the errors of an image's pixels are reduced."""
    error: Literal["squared", "cross_entropy"] = "squared"
    """Of a pixel; cross-entropy wants a model with a sigmoid."""
    optimizer: Optimizers = adam(3e-4)
    batch_size: int = 32
    steps: int = 930

    def __post_init__(self):
        super().__post_init__()
        if not self.factor >= 0:
            raise ValueError(
                f"Autoencoding(factor): reconstruction counts at least 0 times, got {self.factor}."
            )

    def _takes_labels(self):
        return isinstance(self.model, ConditionalVAE)

    def _draws(self):
        return not isinstance(self.model, AE)

    def _terms(self, model, data):
        """`(params, example) -> {term: number}`; what is trained on is `loss`."""
        options = (self.factor, self.error, self.pixels)
        return PROGRAMS.get(_drawn_terms if self._draws() else _plain_terms, model, *options)


def _drawn_terms(model, factor, error, pixels):
    from coherence.lab.tasks.autoencoding import elbo_terms

    elbo = elbo_terms(model, factor=factor, error=error, pixels=pixels)

    def terms(params, example):
        reconstruction, kl, total = elbo(params, example)
        return {"reconstruction": reconstruction, "kl": kl, "loss": total}

    return terms


def _plain_terms(model, factor, error, pixels):
    from coherence.lab.tasks.autoencoding import reconstruction_error

    reconstruction = reconstruction_error(model, error=error, pixels=pixels)

    def terms(params, example):
        value = reconstruction(params, example)
        return {"reconstruction": value, "loss": factor * value}

    return terms
