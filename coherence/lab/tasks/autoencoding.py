r"""Autoencoding: the loss of one image and its noise, and means over many.

**Which gradients.** A tutorial's loss of a batch sums or averages over pixels, then over examples.
Over pixels that changes the loss of one example, here by `pixels`. Over the m examples it does not:
with l_i the loss and g_i the gradient of example i,

.. math:: L = R_i\, l_i \;\Rightarrow\; \nabla L = c\,\frac1m\sum_i g_i, \qquad
          c = 1 \text{ for the mean, } m \text{ for the sum}

so that `batch_factor` c turns means into sums, of losses and of gradients alike. A step of SGD on
the sum is one on the mean at m times the learning rate; Adam, but for its epsilon, takes the same
step on both. Coherence is that of the g_i in either case. What does change the learned network is
reducing the two *terms* differently: their ratio is `factor`, and a mean over P pixels is a
`factor` of 1 / P.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from coherence.lab.tasks.chunks import sum_over_chunks

Error = Literal["squared", "cross_entropy"]
Reduction = Literal["sum", "mean"]
Sampling = Literal["reparametrized", "plain"]


class Terms(NamedTuple):
    """The parts of a loss: of the image, of the distribution of z (nats), and the `total`.

    The total is factor times the first plus the second.
    """

    reconstruction: jax.Array
    kl: jax.Array
    total: jax.Array


def reconstruction_error(
    model, *, error: Error = "squared", pixels: Reduction = "mean"
) -> Callable[[Any, Any], jax.Array]:
    r"""The loss of one image x with an `AE`, or with anything that reconstructs without noise.

    .. math:: \ell = \frac1P \sum_p (\hat x_p - x_p)^2

    `pixels="sum"` leaves the 1/P away. `error="cross_entropy"` is
    :math:`-\sum_p x_p \log \hat x_p + (1 - x_p) \log(1 - \hat x_p)` with the network's
    outputs as logits, for images in [0, 1] and a network with a sigmoid; at grey levels
    its least value is not 0 but x's own entropy. An example is an image, or a tuple that begins
    with one, of which the rest is not looked at.

    >>> from coherence.lab.models import AE
    >>> model, x = AE(width=4, depth=1, shape=(2, 2, 1)), jnp.ones((2, 2, 1))
    >>> params = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> jax.eval_shape(reconstruction_error(model), params, x).shape
    ()
    """
    compare = _comparison(model, error, pixels)

    def loss(params, example):
        x = example[0] if isinstance(example, tuple) else example
        return compare(params, model.apply(params, x, method="encode"), x)

    return loss


def elbo_terms(
    model,
    *,
    factor: float = 1.0,
    error: Error = "squared",
    pixels: Reduction = "sum",
    sampling: Sampling = "reparametrized",
) -> Callable[[Any, tuple], Terms]:
    """`(params, example) -> Terms` of a variational autoencoder; `negative_elbo` is their total.

    For coherence of one term alone: `lambda params, example: elbo_terms(model)(params,
        example).kl`.
    """
    if sampling not in ("reparametrized", "plain"):
        raise ValueError(f"sampling is reparametrized or plain, got {sampling!r}.")
    compare = _comparison(model, error, pixels)

    def terms(params, example):
        x, *labels, key = example
        mu, log_var = model.apply(params, x, *labels, method="encode")
        z = mu + jax.random.normal(key, mu.shape, mu.dtype) * jnp.exp(log_var / 2)
        z = jax.lax.stop_gradient(z) if sampling == "plain" else z
        reconstruction, kl = compare(params, z, x, *labels), kl_from_standard_normal(mu, log_var)
        return Terms(reconstruction, kl, factor * reconstruction + kl)

    return terms


def negative_elbo(
    model,
    *,
    factor: float = 1.0,
    error: Error = "squared",
    pixels: Reduction = "sum",
    sampling: Sampling = "reparametrized",
) -> Callable[[Any, tuple], jax.Array]:
    r"""The loss of one example `(x, key)`, or `(x, y, key)` with a network that takes labels.

    .. math:: \ell = factor \cdot \sum_p (\hat x_p - x_p)^2 + \mathrm{KL}(q \,\|\, N(0, 1)), \qquad
              \hat x = f(z), \quad z = \mu + \varepsilon\, e^{\log \sigma^2 / 2},
              \quad \varepsilon \sim N(0, 1)

    With factor 1/2 minus the evidence lower bound, but for a constant, of normal pixels of variance
    1; with `error="cross_entropy"` and factor 1 that of black and white pixels. A beta-VAE has
    factor 1 / beta, and beta times this loss. Small: KL rules, every image comes out alike; large:
    an autoencoder.

    The key is what :math:`\varepsilon` is drawn from: one a step and example, and the same for two
    gradients that are to be compared. `sampling="plain"` draws z as a value that the encoder has no
    part in: its gradient from the reconstruction is then exactly 0.
    """
    terms = elbo_terms(model, factor=factor, error=error, pixels=pixels, sampling=sampling)
    return lambda params, example: terms(params, example).total


def kl_from_standard_normal(mu: jax.Array, log_var: jax.Array) -> jax.Array:
    r"""KL divergence (nats) of a normal distribution from the standard one.

    Its coordinates, the last axis, are independent.

    .. math:: \mathrm{KL} = -\tfrac12 \sum_j (1 + \log\sigma_j^2 - \mu_j^2 - \sigma_j^2) \ge 0

    >>> float(kl_from_standard_normal(jnp.ones(2), jnp.zeros(2)))
    1.0
    """
    mu, log_var = _at_least_float32(mu), _at_least_float32(log_var)
    return -0.5 * jnp.sum(1 + log_var - mu**2 - jnp.exp(log_var), -1)


def evaluate(loss: Callable, *, batch_size: int = 1000) -> Callable:
    """`(params, examples, weights=None) ->` the means of `loss(params, example)` over examples.

    Exact for any number of examples in memory for `batch_size` of them; can be jitted. `examples`
    is a tuple of arrays with a leading axis, keys among them. `weights` `[n]` (bool or real) make
    it a weighted mean, nan where they sum to 0; an example of weight 0 does not matter, whatever
    its loss.
    """

    def sums(params, weights, *examples):
        values = jax.vmap(loss, (None, 0))(params, examples)
        summed = lambda x: jnp.sum(jnp.where(weights == 0, 0, x) * weights)
        return jax.tree.map(summed, values), jnp.sum(weights)

    def means(params, examples, weights=None):
        examples = tuple(examples)
        weights = (
            jnp.ones(len(examples[0])) if weights is None else jnp.asarray(weights, jnp.float32)
        )
        values, count = sum_over_chunks(
            lambda *chunk: sums(params, *chunk), (weights, *examples), batch_size
        )
        return jax.tree.map(lambda value: value / count, values)

    return means


def batch_factor(batch: Reduction, m: int) -> int:
    """What the mean over m examples is multiplied by to get their mean (1) or their sum (m)."""
    if batch not in ("sum", "mean"):
        raise ValueError(f"batch_factor(batch): sum or mean, got {batch!r}.")
    return m if batch == "sum" else 1


def _comparison(model, error, pixels):
    """`(params, z, x, *labels) -> scalar`: how far the image that z stands for is from x."""
    if error not in ("squared", "cross_entropy") or pixels not in ("sum", "mean"):
        raise ValueError(
            f"error is squared or cross_entropy and pixels sum or mean, got error={error!r}, "
            f"pixels={pixels!r}."
        )
    if error == "cross_entropy" and not model.sigmoid:
        raise ValueError(
            "error='cross_entropy' reads outputs as logits of grey levels, and "
            f"{type(model).__name__} shows them as grey levels: "
            "give it sigmoid=True."
        )
    method = "logits" if error == "cross_entropy" else "decode"
    each = (
        optax.losses.sigmoid_binary_cross_entropy
        if error == "cross_entropy"
        else lambda output, x: jnp.square(output - x)
    )
    reduce = jnp.sum if pixels == "sum" else jnp.mean

    def compare(params, z, x, *labels):
        output = model.apply(params, z, *labels, method=method)
        if output.size != jnp.size(x):
            raise ValueError(
                f"the model puts out shape {output.shape} for one image of shape {jnp.shape(x)}; "
                "they need equal sizes."
            )
        return reduce(
            each(_at_least_float32(output), _at_least_float32(jnp.reshape(x, output.shape)))
        )

    return compare


def _at_least_float32(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
