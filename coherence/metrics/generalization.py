"""The bound of the generalization gap by coherence: its integrand, and its sum over training."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike


class GapBound(NamedTuple):
    """The bound, inf where it overflows, and its decimal logarithm, which does not. Scalars.

    >>> GapBound(value=jnp.inf, log10=400.0).log10
    400.0
    """

    value: jax.Array
    log10: jax.Array


def gap_integrand(alpha: ArrayLike) -> jax.Array:
    r"""Largest mean distance between two fresh examples' gradients, over their r.m.s. length.

    .. math:: \sqrt{2\,(1-\alpha)} \in [0, \sqrt2]

    0 when all gradients are equal: such a step does not depend on the sample, so it cannot open a
    gap. :math:`\sqrt2` when they are unrelated. What one step adds to `gap_bound`, but for the step
    size and the constants. Dimensionless.

    Alpha is the *data distribution's*: pass `alpha_unbiased`, on examples not trained on. A
    sample's own `alpha` has a floor of 1/m, which makes the bound too small. Estimates above 1 give
    0; those below 0 a little more than :math:`\sqrt2`.

    Chatterjee & Zielinski, On the Generalization Mystery in Deep Learning (arXiv:2203.10036),
    Section 5: property P5 within the theorem, from accounts of it.

    >>> float(gap_integrand(0.5))
    1.0
    """
    return jnp.sqrt(2 * jnp.maximum(1 - jnp.asarray(alpha), 0))


def gap_bound(
    alphas: ArrayLike,
    learning_rates: ArrayLike,
    *,
    lipschitz: ArrayLike,
    smoothness: ArrayLike,
    m: ArrayLike,
) -> GapBound:
    r"""Largest gap between test and training loss that training can open, by coherence.

    .. math:: |\mathrm{gap}| \le \frac{L^2}{m}\sum_{t=1}^{T}\ \prod_{k=t+1}^{T}(1+\eta_k\beta)\
              \cdot\ \eta_t\,\sqrt{2\,(1-\alpha(w_{t-1}))}

    In the units of the loss where L and beta are the loss's own constants. 0 for alpha = 1
    throughout; grows with training length, falls as 1/m. The product weighs early steps most,
    exponentially: high coherence early on counts, late hardly. For the same reason it is vacuous
    for any real training (10^1000 and more): compare its *order* between runs of equal L, beta,
    steps and step sizes, in `log10`.

    The theorem is for SGD without momentum, and L and beta hold for every example everywhere;
    measured along a path they are estimates from below, and then this is no bound.

    Chatterjee & Zielinski, On the Generalization Mystery in Deep Learning (arXiv:2203.10036),
    Section 5; the statement agrees in two accounts of it, the paper's own text was not at hand.

    Args:
        alphas: [T], alpha of the data distribution at the weights *before* each step (see
            `gap_integrand`).
        learning_rates: eta_t, [T] or one for all steps.
        lipschitz: L, a bound of the length of every example's gradient.
        smoothness: beta, a bound of the rate at which any example's gradient changes.
        m: number of training examples.

    Returns:
        `GapBound(value, log10)`.

    Raises:
        ValueError: `alphas` is not [T] with at least one step, or `learning_rates` does not fit it.

    >>> bound = gap_bound([0.5, 0.5], 1.0, lipschitz=2.0, smoothness=1.0, m=4)
    >>> float(bound.value)  # 4 / 4 (2 * 1 + 1)
    3.0
    """
    alphas, rates = jnp.asarray(alphas), jnp.asarray(learning_rates)
    if alphas.ndim != 1 or not alphas.size:
        raise ValueError(
            f"alphas must be [T], one a step and at least one, got {list(alphas.shape)}."
        )
    if rates.shape not in ((), alphas.shape):
        raise ValueError(
            f"learning_rates must be one number or one a step, {list(alphas.shape)}, "
            f"got {list(rates.shape)}."
        )
    rates = jnp.broadcast_to(rates, alphas.shape)
    growth = jnp.log1p(rates * smoothness)
    later = jnp.cumsum(growth[::-1])[::-1] - growth
    terms = later + jnp.log(rates) + jnp.log(gap_integrand(alphas))
    log = logsumexp(terms) + 2 * jnp.log(lipschitz) - jnp.log(m)
    return GapBound(jnp.exp(log), log / jnp.log(10.0))
