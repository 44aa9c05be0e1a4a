r"""Two players and one loss of one example; what each is trained on does not move the other.

With D the discriminator's log odds that an example is real, G the generator, z normal, sp softplus,

.. math:: \ell_D = \mathrm{sp}(-D(x)) + \mathrm{sp}(D(G(z))), \qquad
          \ell_G = \mathrm{sp}(-D(G(z)))

`adversarial_loss` is their sum, with the fake a constant in the first and D one in the second: its
gradient is that of :math:`\ell_D` for the discriminator's parameters and that of :math:`\ell_G` for
the generator's, exactly. So two players are one `Problem`, one trace and one pass over the batch.

Goodfellow et al., Generative Adversarial Nets (arXiv:1406.2661).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from coherence.lab.tasks.diffusion import check_labels

PLAYERS = ("generator", "discriminator")
Objective = Literal["non_saturating", "saturating", "wasserstein"]


class Losses(NamedTuple):
    """Of one example: what each player is trained on, and how real x and the fake look (D)."""

    generator: jax.Array
    discriminator: jax.Array
    real_score: jax.Array
    fake_score: jax.Array

    @property
    def total(self) -> jax.Array:
        return self.generator + self.discriminator


def adversarial_losses(
    model, objective: Objective = "non_saturating", *, penalty: float = 10.0
) -> Callable[[Any, tuple], Losses]:
    r"""`(params, example) -> Losses` of one example `(x, key)`, or `(x, y, key)` with labels.

    "saturating" is the minimax game, :math:`\ell_G = -\mathrm{sp}(D(G(z)))`: its derivative by D is
    :math:`-\sigma(D)`, which vanishes where D is sure of fakes, as that of the other,
    :math:`-\sigma(-D)`, does not. "wasserstein" has

    .. math:: \ell_D = D(G(z)) - D(x) + \lambda (|\nabla_{\hat x} D(\hat x)| - 1)^2, \qquad
              \ell_G = -D(G(z)), \qquad \hat x = u x + (1 - u) G(z)

    with u uniform: the gradient of a gradient, for each example by itself. z and u come from the
    key.

    Args:
        model: a `coherence.lab.models.GAN`, or what has `generate` and `discriminate`, `latents`
            and parameters `{"params": {"generator": ..., "discriminator": ...}}`.
        penalty: lambda, at least 0; of "wasserstein" alone.

    Raises:
        ValueError: another objective, or a negative penalty.

    Gulrajani et al., Improved Training of Wasserstein GANs (arXiv:1704.00028), Algorithm 1.

    >>> from coherence.lab.models import GAN
    >>> losses = adversarial_losses(GAN(), "wasserstein", penalty=1.0)
    >>> callable(losses)  # losses(params, (x, key))
    True
    """
    if objective not in ("non_saturating", "saturating", "wasserstein"):
        raise ValueError(
            f"objective is non_saturating, saturating or wasserstein, got {objective!r}."
        )
    if not penalty >= 0:
        raise ValueError(f"penalty: what the gradient's length costs, at least 0, got {penalty}.")

    def losses(params, example):
        x, *labels, key = example
        of_z, of_place = jax.random.split(key)
        z = jax.random.normal(of_z, (model.latents,))
        fake = model.apply(params, z, *labels, method="generate")
        score = lambda params, x: model.apply(params, x, *labels, method="discriminate")
        held, x = jax.lax.stop_gradient(fake), jnp.reshape(x, fake.shape)
        real_score, held_score = score(params, x), score(params, held)
        fake_score = score(_stopped(params, "discriminator"), fake)
        if objective == "wasserstein":
            u = jax.random.uniform(of_place)
            slope = jax.grad(score, argnums=1)(params, u * x + (1 - u) * held)
            # The root has no derivative at 0, where D is flat: the penalty's is 0 there.
            length = jnp.sqrt(jnp.maximum(jnp.sum(slope**2), 1e-24))
            discriminator = held_score - real_score + penalty * (length - 1) ** 2
            return Losses(-fake_score, discriminator, real_score, held_score)
        softplus = jax.nn.softplus
        saturating = objective == "saturating"
        generator = -softplus(fake_score) if saturating else softplus(-fake_score)
        discriminator = softplus(-real_score) + softplus(held_score)
        return Losses(generator, discriminator, real_score, held_score)

    return losses


def adversarial_loss(
    model, objective: Objective = "non_saturating", *, penalty: float = 10.0
) -> Callable[[Any, tuple], jax.Array]:
    """The sum of both players' losses: what moves each of them is its own loss alone."""
    losses = adversarial_losses(model, objective, penalty=penalty)
    return lambda params, example: losses(params, example).total


def player(path: tuple) -> str:
    """Whose parameter a leaf is, `generator` or `discriminator`: a `by=` for metrics.

    >>> player((jax.tree_util.DictKey("params"), jax.tree_util.DictKey("generator")))
    'generator'
    """
    names = [str(getattr(key, "key", key)) for key in path]
    return next(name for name in names if name in PLAYERS)


def generated(
    model,
    params: Any,
    key: jax.Array,
    *,
    labels: ArrayLike | None = None,
    examples: int | None = None,
) -> np.ndarray:
    """Examples drawn by the generator in a single pass, [n, ...].

    Args:
        labels: [n], one an example, of a model that takes labels.
        examples: n, of a model that does not.

    Raises:
        ValueError: labels out of range; labels of a model that takes none, or none of one that
            does.
    """
    if (labels is None) != (model.classes == 0) or (labels is None) == (examples is None):
        wanted = "labels, one an example" if model.classes else "examples, how many"
        raise ValueError(f"generated: of a model with classes={model.classes} give {wanted}.")
    told = () if labels is None else (np.asarray(labels),)
    for y in told:
        check_labels(y, model.classes, len(y))
    number = len(told[0]) if told else int(examples or 0)
    z = jax.random.normal(key, (number, model.latents))
    return np.asarray(model.apply(params, z, *told, method="generate"))


def _stopped(params, name):
    """The parameters, those of one player as constants."""
    players = params["params"]
    return {"params": {**players, name: jax.lax.stop_gradient(players[name])}}
