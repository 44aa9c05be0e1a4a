r"""Autoencoding whose images are also compared by features, and by a discriminator of patches.

.. math:: \ell = factor\,\big(\|\hat x - x\|^2 + \lambda_p \|\phi(\hat x) - \phi(x)\|^2
          + \lambda_a\,\mathrm{mean}_j\,\mathrm{sp}(-D_j(\hat x))\big) + \mathrm{KL}
          \quad\text{(autoencoder)}, \qquad
          \mathrm{mean}_j\,[\mathrm{sp}(-D_j(x)) + \mathrm{sp}(D_j(\hat x))]
          \quad\text{(discriminator)}

with sp the softplus and j the places of an image. Both are one loss of one example, in which what
belongs to the other player is held fixed, so that each player's gradient is that of its own.

Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models (arXiv:2112.10752),
Appendix G.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from coherence.lab.tasks.autoencoding import kl_from_standard_normal


class SharpTerms(NamedTuple):
    """The parts of the loss of one image, without their factors, and the `total`."""

    squared: jax.Array
    perceptual: jax.Array
    adversarial: jax.Array
    kl: jax.Array
    discriminator: jax.Array
    total: jax.Array


def sharp_terms(
    model,
    features: Callable[[jax.Array], jax.Array],
    *,
    factor: float = 1.0,
    perceptual: float = 0.0,
    adversarial: float = 0.0,
) -> Callable[[Any, tuple], SharpTerms]:
    """`(params, (x, key)) -> SharpTerms`; z is drawn with the key.

    Args:
        model: an autoencoder; with `patches` if `adversarial` is above 0.
        features: what images are compared by, of one image [h, w, c].
        factor: what reconstruction counts for, beside KL.
        perceptual, adversarial: what these errors count for, beside the squared one.

    Raises:
        ValueError: a weight below 0, or an adversarial one without a discriminator.

    >>> from coherence.lab.models import SpatialVAE
    >>> model, x, key = SpatialVAE(width=4), jnp.ones((8, 8, 1)), jax.random.key(0)
    >>> terms = sharp_terms(model, lambda image: image.mean((0, 1)), perceptual=1.0)
    >>> callable(terms)  # terms(params, (x, key))
    True
    """
    if min(factor, perceptual, adversarial) < 0:
        raise ValueError(
            "sharp_terms: factor, perceptual and adversarial are at least 0, got "
            f"{factor}, {perceptual} and {adversarial}."
        )
    if adversarial and not model.patches:
        raise ValueError(
            f"sharp_terms(adversarial={adversarial:g}): the model has no discriminator; give it "
            "one, SpatialVAE(patches=16)."
        )

    def terms(params, example):
        x, key = example
        mu, log_var = model.apply(params, x, method="encode")
        z = mu + jax.random.normal(key, mu.shape, mu.dtype) * jnp.exp(log_var / 2)
        drawn = model.apply(params, z, method="decode")
        kl, zero = kl_from_standard_normal(mu, log_var), jnp.float32(0)
        squared = jnp.sum(jnp.square(drawn - x))
        felt, fooled, told = zero, zero, zero
        if perceptual:
            felt = jnp.sum(jnp.square(features(drawn) - features(x)))
        if adversarial:
            fixed = jax.lax.stop_gradient(params)
            judge = lambda p, image: model.apply(p, image, method="discriminate")
            fooled = jnp.mean(jax.nn.softplus(-judge(fixed, drawn)))
            real, fake = judge(params, x), judge(params, jax.lax.stop_gradient(drawn))
            told = jnp.mean(jax.nn.softplus(-real) + jax.nn.softplus(fake))
        total = factor * (squared + perceptual * felt + adversarial * fooled) + kl + told
        return SharpTerms(squared, felt, fooled, kl, told, total)

    return terms


def features_of(weights: tuple, biases: tuple) -> Callable[[jax.Array], jax.Array]:
    """The last hidden layer of a dense network with ReLU, of an image: what `sharp_terms` reads.

    Args:
        weights, biases: of all layers, the output layer's too: those of a
            `coherence.lab.sample_quality.DigitClassifier`.
    """
    layers = [
        tuple(jnp.asarray(part, jnp.float32) for part in pair) for pair in zip(weights, biases)
    ]

    def features(x):
        h = jnp.ravel(x)
        for weight, bias in layers[:-1]:
            h = jax.nn.relu(h @ weight + bias)
        return h

    return features
