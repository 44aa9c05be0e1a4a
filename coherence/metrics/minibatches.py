"""Coherence from mini-batch gradients, for networks whose examples have none (batch norm)."""

import jax

from coherence.gradients.reductions import size
from coherence.trees import PyTree

from .coherence import alpha


def alpha_from_minibatches(
    batch_gradients: PyTree, batch_size: int, m: int | None = None
) -> jax.Array:
    r"""Alpha of the examples, from the gradients of mini-batches that partition a sample.

    The weights are the same for all of them. Averaging k examples amplifies coherence; the paper
    inverts that, with :math:`A` the alpha of the batch gradients:

    .. math:: A = \frac{k\alpha}{1 + (k-1)\alpha} \quad\Longleftrightarrow\quad
              \alpha = \frac{A}{k - (k-1)A}

    which holds for infinitely many independent batches. With `m`, the finite sample is taken into
    account: averaged over random partitions of m examples into batches of k,

    .. math:: A = \frac{k\,\alpha_m (m-1)}{(m-1) + (k-1)(m\alpha_m-1)}
              \quad\Longleftrightarrow\quad
              \alpha_m = \frac{A\,(m-k)}{k(m-1) - (k-1)\,m\,A}

    so that orthogonal examples give 1/m exactly (the first form gives 1/(m-k+1)); both agree as m/k
    grows. Range [0, 1], landmarks as for `alpha`. Ill-conditioned as A approaches 1: batches so
    large that their gradients agree tell little.

    Chatterjee & Zielinski (arXiv:2203.10036), Section 4 and property P2; the finite-sample form is
    ours.

    Args:
        batch_gradients: a tree whose leaves are [batches, ...]: the gradient of each batch's *mean*
            loss (or sum: alpha has no scale).
        batch_size: k, examples in each batch.
        m: batches x batch_size, the size of the sample; `None` for the paper's formula.

    Raises:
        ValueError: one batch only, `batch_size` < 1, or `m` that is not batches x batch_size.
    """
    batches = size(batch_gradients)
    if batches < 2:
        raise ValueError(
            f"alpha_from_minibatches needs the gradients of at least 2 batches, got {batches}."
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1 example, got {batch_size}.")
    if m is not None and m != batches * batch_size:
        raise ValueError(
            f"m is the size of the sample, batches x batch_size = {batches} x {batch_size} = "
            f"{batches * batch_size}, got {m}."
        )
    k, a = batch_size, alpha(batch_gradients)
    if m is None:
        return a / (k - (k - 1) * a)
    return a * (m - k) / (k * (m - 1) - (k - 1) * m * a)
