r"""Diffusion: noise is added to an example, a network learns to tell it, and draws by removing it.

.. math:: x_t = \sqrt{\bar\alpha_t}\, x + \sqrt{1 - \bar\alpha_t}\,\varepsilon, \qquad
          \ell = \mathrm{mean}\,(\varepsilon_\theta(x_t, t, y) - \varepsilon)^2

Ho, Jain & Abbeel, Denoising Diffusion Probabilistic Models (arXiv:2006.11239), Equations 4 and 14.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from coherence.gradients.jax_internals import is_traced
from coherence.lab.tasks.noise_schedules import NoiseSchedule

Levels = Literal["drawn", "given"]


def noised(x: jax.Array, noise: jax.Array, abar: Any) -> jax.Array:
    """An example with noise: `abar` is the share of its variance that is left, a scalar.

    >>> float(noised(jnp.array(3.0), jnp.array(1.0), 1.0))  # all of the variance is left
    3.0
    """
    return jnp.sqrt(abar) * x + jnp.sqrt(1 - abar) * noise


def noise_prediction_error(
    model, schedule: NoiseSchedule, *, label_dropout: float = 0.1, levels: Levels = "drawn"
) -> Callable[[Any, tuple], jax.Array]:
    """The loss of one example `(x, key)`, or `(x, y, key)` of a network that takes labels.

    The mean over the numbers of x of the squared error of the predicted noise: 1 if nothing is
    predicted. Noise, its level, uniform, and whether the label is dropped come from the key.

    Args:
        model: a `coherence.lab.models.Denoiser`.
        schedule: the noise of each level.
        label_dropout: how often the network is not told the label, so that it can be guided.
        levels: "given" takes `(x, t, key)` or `(x, y, t, key)`: the error at the level t.

    Raises:
        ValueError: a share outside [0, 1], or labels that the network does not take.

    Ho & Salimans, Classifier-Free Diffusion Guidance (arXiv:2207.12598), Algorithm 1.
    """
    if not 0 <= label_dropout <= 1:
        raise ValueError(f"label_dropout: a share in [0, 1], got {label_dropout}.")
    if levels not in ("drawn", "given"):
        raise ValueError(f"levels is drawn or given, got {levels!r}.")
    abar = np.asarray(schedule.abar, np.float32)

    def loss(params, example):
        x, *labels, key = example
        of_noise, of_level, of_label = jax.random.split(key, 3)
        if levels == "given":
            *labels, t = labels
        else:
            t = jax.random.randint(of_level, (), 0, schedule.levels)
        dropped = jax.random.bernoulli(of_label, float(label_dropout))
        labels = [jnp.where(dropped, model.classes, y) for y in labels]
        noise = jax.random.normal(of_noise, jnp.shape(x), jnp.result_type(x))
        predicted = model.apply(params, noised(x, noise, jnp.asarray(abar)[t]), t, *labels)
        return jnp.mean(jnp.square(predicted - noise))

    return loss


def ddim(predict: Callable, schedule: NoiseSchedule, steps: int, noise: jax.Array) -> jax.Array:
    r"""An example from pure noise: the noise is removed in few deterministic steps.

    .. math:: \hat x = \frac{x_t - \sqrt{1 - \bar\alpha_t}\,\hat\varepsilon}{\sqrt{\bar\alpha_t}},
              \qquad x_s = \sqrt{\bar\alpha_s}\,\hat x + \sqrt{1 - \bar\alpha_s}\,\hat\varepsilon

    from each of `schedule.spaced(steps)` to the next; the last one gives :math:`\hat x`. With the
    true noise for the predicted one that is the example itself, in any number of steps.

    Args:
        predict: `(x_t, t) -> noise`, t an integer.
        noise: normal numbers; what is returned is a function of them.

    Song, Meng & Ermon, Denoising Diffusion Implicit Models (arXiv:2010.02502), Equation 12, with
    their eta = 0.

    >>> from coherence.lab.tasks.noise_schedules import cosine_schedule
    >>> predict = lambda x, t: jnp.zeros_like(x)  # a network that finds no noise
    >>> ddim(predict, cosine_schedule(), 2, jnp.ones(3)).shape
    (3,)
    """
    levels = schedule.spaced(steps)
    left = np.append(schedule.abar[levels], 1.0).astype(np.float32)

    def remove(x, step):
        t, abar, abar_next = step
        guess = predict(x, t)
        clean = (x - jnp.sqrt(1 - abar) * guess) / jnp.sqrt(abar)
        return noised(clean, guess, abar_next), None

    return jax.lax.scan(remove, noise, (jnp.asarray(levels), left[:-1], left[1:]))[0]


def sampler(
    model, schedule: NoiseSchedule, *, steps: int = 50, guidance: float = 0.0
) -> Callable[..., jax.Array]:
    r"""`sample(params, noise, *labels)` draws examples by `ddim`: `[m, *shape]` from normal noise.

    With `guidance` w, which has labels count for more,

    .. math:: \hat\varepsilon = (1 + w)\,\varepsilon_\theta(x_t, t, y)
              - w\,\varepsilon_\theta(x_t, t)

    A network with classes that is given no labels draws from all. Compiled once for each m.

    Raises:
        ValueError: guidance of a network without classes or, when it draws, without labels; labels
            of a network without classes, or out of range.

    Ho & Salimans, Classifier-Free Diffusion Guidance (arXiv:2207.12598), Equation 6.
    """
    if guidance and not model.classes:
        raise ValueError(
            f"sampler(guidance={guidance:g}): guidance is toward a label, and the network has "
            "classes=0. Train one with classes, or leave guidance at 0."
        )
    schedule.spaced(steps)  # refuses what cannot be

    @jax.jit
    def draw(params, noise, *labels):
        def predict(x, t):
            level = jnp.broadcast_to(t, len(x))
            predicted = model.apply(params, x, level, *labels)
            if not guidance:
                return predicted
            return (1 + guidance) * predicted - guidance * model.apply(params, x, level)

        return ddim(predict, schedule, steps, noise)

    def sample(params: Any, noise: jax.Array, *labels: Any) -> jax.Array:
        if guidance and not labels:
            raise ValueError(
                f"sampler(guidance={guidance:g}): guidance is toward a label: sample(params, "
                "noise, labels)."
            )
        for y in labels:
            check_labels(y, model.classes, len(noise))
        return draw(params, noise, *map(jnp.asarray, labels))

    return sample


def check_labels(labels: Any, classes: int, m: int | None = None) -> None:
    """Refuse labels that are no integers from 0 to `classes` - 1, or not m of them.

    Raises:
        ValueError: as said. Under `jit` values are not looked at.
    """
    if not classes:
        raise ValueError("labels were given to a network with classes=0: it takes none.")
    if m is not None and np.shape(labels) != (m,):
        raise ValueError(f"labels: one an example, {m} of them, got shape {np.shape(labels)}.")
    if is_traced(labels):
        return
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" or not ((labels >= 0) & (labels < classes)).all():
        given = np.unique(labels)[:5].tolist()
        raise ValueError(f"labels: integers from 0 to {classes - 1}, got {given} among others.")
