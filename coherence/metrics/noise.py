"""The gradient noise scale: from which batch size on larger batches stop paying."""

from typing import NamedTuple

import jax

from coherence.trees import PyTree

from .pooling import one_set


class NoiseMoments(NamedTuple):
    """Unbiased estimates of the population's ||G||^2 and tr Sigma.

    Average each of them over steps, divide last (`scale`).

    >>> from coherence.metrics import noise_moments
    >>> moments = noise_moments({"w": jnp.array([[1.0], [3.0]])})
    >>> float(moments.squared_norm), float(moments.trace)
    (3.0, 2.0)
    """

    squared_norm: jax.Array
    trace: jax.Array

    @property
    def scale(self) -> jax.Array:
        """tr Sigma / ||G||^2, in examples."""
        return self.trace / self.squared_norm


def noise_scale(gradients: PyTree) -> jax.Array:
    r"""Batch size at which the noise of a batch's gradient is as large as its signal.

    .. math:: B_{simple} = \frac{\mathrm{tr}\,\Sigma}{\|G\|^2} = \frac1\alpha - 1

    with both estimated without bias, so that alpha is `alpha_unbiased`. In examples. Small: few
    examples agree already. It is also the normalized variance of per-example gradients (Faghri et
    al. 2020). The trap: where :math:`\|G\|^2` is within its noise the estimate of it crosses zero,
    and the ratio is huge or negative; average `noise_moments` over steps and divide last.

    McCandlish et al., An Empirical Model of Large-Batch Training (arXiv:1812.06162), the "simple"
    noise scale; read in an account.

    Args:
        gradients: per-example gradients of at least 2 examples, or what `pool` made of them.

    >>> float(noise_scale({"w": jnp.array([[1.0], [3.0]])}))  # variance 2, squared mean 4 - 2/2
    0.6666666865348816
    """
    return noise_moments(gradients).scale


def noise_moments(gradients: PyTree) -> NoiseMoments:
    """The two numbers that `noise_scale` is a ratio of, from one sample's per-example gradients.

    Source and arguments as for `noise_scale`.
    """
    pooled = one_set(gradients, "the noise scale", at_least=2)
    trace = pooled.variance
    return NoiseMoments(pooled.squared_norm_of_mean - trace / pooled.m, trace)


def noise_moments_of_batches(
    small: jax.Array | float, large: jax.Array | float, small_size: int, large_size: int
) -> NoiseMoments:
    r"""The same two numbers from gradients of two batch sizes: for networks with batch norm.

    .. math:: \widehat{\|G\|^2} = \frac{B_l\|G_l\|^2 - B_s\|G_s\|^2}{B_l - B_s}, \qquad
              \widehat{\mathrm{tr}\Sigma} = \frac{\|G_s\|^2 - \|G_l\|^2}{1/B_s - 1/B_l}

    Far noisier than `noise_moments`, which is the same with :math:`B_s = 1`, averaged over the
    batch: average over many steps.

    McCandlish et al. (arXiv:1812.06162), Appendix A; read in an account.

    Args:
        small, large: squared norm of the gradient of the mean loss of a batch of each size, scalars
            or [steps].
        small_size, large_size: B_s < B_l, in examples.

    Raises:
        ValueError: the sizes are not 1 <= small < large.

    >>> noise_moments_of_batches(5.0, 4.0, 1, 2)
    NoiseMoments(squared_norm=3.0, trace=2.0)
    """
    if not 1 <= small_size < large_size:
        raise ValueError(
            f"noise_moments_of_batches needs 1 <= small_size < large_size, got {small_size} "
            f"and {large_size}."
        )
    squared_norm = (large_size * large - small_size * small) / (large_size - small_size)
    trace = (small - large) / (1 / small_size - 1 / large_size)
    return NoiseMoments(squared_norm, trace)  # type: ignore[arg-type]  # plain floats stay so
