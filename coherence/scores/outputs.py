"""Scores that read a classifier's outputs: margin, confidence, EL2N. No gradient is taken."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from coherence.gradients.factors import accumulator, largest


def margin(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    r"""The logit of the given label, less the largest of the others.

    .. math:: z_y - \max_{j \ne y} z_j

    Above 0 where the label is predicted. Its mean over training is the area under the margin.
    In units of the logits, which grow with training: compare examples of one checkpoint. A network
    that has memorized a wrong label gives it a margin like any other.

    Pleiss, Zhang, Elenberg & Weinberger, Identifying Mislabeled Data using the Area Under the
    Margin Ranking (arXiv:2001.10528), Section 3.

    Args:
        logits: [m, classes], at least two classes.
        labels: int [m].

    Returns:
        [m]; free beside a forward pass.

    Raises:
        ValueError: shapes that do not fit, or one class, which has no rival.

    >>> margin(jnp.array([[2.0, 0.5, -1.0]]), jnp.array([1]))
    Array([-1.5], dtype=float32)
    """
    logits, labels = _checked(logits, labels, "margin")
    own = jax.nn.one_hot(labels, logits.shape[1], dtype=bool)
    of_label = jnp.take_along_axis(logits, labels[:, None], 1)[:, 0]
    return of_label - largest(jnp.where(own, -jnp.inf, logits), 1)


def confidence(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    r"""The probability of the given label, :math:`p_y = \mathrm{softmax}(z)_y \in [0, 1]`.

    exp(-loss) of a cross-entropy. Its mean over training is a data map's confidence. Late in
    training nearly all examples have 1: it tells them apart early, or over a whole run.

    Swayamdipta et al., Dataset Cartography (arXiv:2009.10795), Section 2. Arguments and errors as
    for `margin`.

    >>> confidence(jnp.zeros((1, 4)), jnp.array([2]))
    Array([0.25], dtype=float32)
    """
    logits, labels = _checked(logits, labels, "confidence")
    return jnp.take_along_axis(jax.nn.softmax(logits), labels[:, None], 1)[:, 0]


def el2n(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    r"""The length of the error of the probabilities, :math:`\|p - e_y\|_2 \in [0, \sqrt 2]`.

    0 where the label is certain, near sqrt(2) where another one is. The gradient norm (`grand`) of
    a network whose logits have orthogonal gradients of equal length. The source takes the mean over
    ten networks early in training: a single one late in training is noise.

    Paul, Ganguli & Dziugaite, Deep Learning on a Data Diet (arXiv:2107.07075), Definition 2.2.
    Arguments and errors as for `margin`.

    >>> el2n(jnp.zeros((1, 2)), jnp.array([0])).round(3)
    Array([0.707], dtype=float32)
    """
    logits, labels = _checked(logits, labels, "el2n")
    error = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    known = labels < logits.shape[1]
    return jnp.where(known, jnp.sqrt(jnp.sum(jnp.square(error), 1)), jnp.nan)


def _checked(logits: ArrayLike, labels: ArrayLike, name: str) -> tuple[jax.Array, jax.Array]:
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"{name} needs logits [m, classes] and labels [m], got {list(logits.shape)} and "
            f"{list(labels.shape)}."
        )
    if logits.shape[1] < 2:
        raise ValueError(f"{name} compares classes: it needs at least two logits, got one.")
    # A negative label would count from the end: like one beyond the last it is of no class.
    labels = jnp.where(labels < 0, logits.shape[1], labels)
    return logits.astype(accumulator(logits.dtype)), labels
