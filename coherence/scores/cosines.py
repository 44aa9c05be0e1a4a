"""Agreement of one example's gradient with those of others: its mean cosine with them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from coherence.gradients.reductions import dot, mask, squared_norms, wide_weighted_sum
from coherence.metrics.pooling import check_examples, check_size, group_numbers
from coherence.trees import PyTree


class ClassAgreement(NamedTuple):
    """Mean cosines [m] with the others of one's own class, and with all other classes' examples."""

    own: jax.Array
    rivals: jax.Array


def agreement(gradients: PyTree) -> jax.Array:
    r"""The mean cosine between each gradient and those of all *other* examples.

    .. math:: a_i = \frac1{m-1}\sum_{j\ne i} \frac{g_i\cdot g_j}{\|g_i\|\,\|g_j\|} \in [-1, 1]

    1: whatever helps one of the others helps this example. 0: they are unrelated, or as many are
    against it as with it. Its mean over examples is `coherence.metrics.cosine_stiffness`. All
    directions count alike: in the mean *gradient*, which `contributions` compares with, the few
    longest ones outweigh the rest, and late in training those are the wrong and the hard ones. With
    many classes most others are of another class, and 0 is what one expects: `class_agreement`
    tells wrong labels apart. Price: one weighted sum and one inner product, no pairs.

    Fort et al., Stiffness (arXiv:1901.09491), of one example; this form is ours.

    Args:
        gradients: from `per_example_value_and_grad`, or a plain tree whose leaves have a leading
            axis of m examples.

    Returns:
        [m]; nan for a gradient of zero or that is masked.

    Raises:
        ValueError: one example only.

    >>> agreement({"w": jnp.array([[2.0], [1.0], [-1.0]])})
    Array([ 0.,  0., -1.], dtype=float32)
    """
    check_examples(gradients, "agreement")
    check_size(gradients, "agreement")
    inverse, directed = _inverse_norms(gradients)
    products = dot(gradients, wide_weighted_sum(gradients, inverse)) * inverse
    return mean_cosine(products, jnp.sum(directed), directed, True)


def class_agreement(
    gradients: PyTree, labels: ArrayLike, *, num_classes: int | None = None
) -> ClassAgreement:
    r"""`agreement` with the other examples of one's class, and with all other classes' examples.

    .. math:: \frac1{n_y - 1}\sum_{j\ne i,\,y_j=y_i} \cos(g_i, g_j), \qquad
              \frac1{m - n_y}\sum_{y_j\ne y_i} \cos(g_i, g_j)

    Examples of a class pull alike: of right labels the first is well above 0. A wrong label pulls
    unlike the class that it was given to; it is the lowest of its class. Classes differ: compare
    within one where they are unequally hard. Price: a weighted sum and an inner product for each
    class here; in `score`, whose batches are of one class, for one.

    Ours, after Fort et al. (arXiv:1901.09491).

    Args:
        gradients: as for `agreement`.
        labels: int [m] with `num_classes` (static), or bool [m].

    Returns:
        `ClassAgreement(own, rivals)`, each [m]; nan where there is no such example.

    Raises:
        ValueError: labels of the wrong shape or type, or integers without `num_classes`.

    >>> g = {"w": jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, -1.0], [-3.0, 0.0]])}
    >>> class_agreement(g, jnp.array([False, False, True, True])).own
    Array([1., 1., 0., 0.], dtype=float32)
    """
    check_examples(gradients, "class_agreement")
    inverse, directed = _inverse_norms(gradients)
    numbers, count = group_numbers(labels, num_classes, len(inverse))
    members = (numbers == jnp.arange(count)[:, None]) & directed  # [classes, m]
    products = jnp.stack(
        [dot(gradients, wide_weighted_sum(gradients, inverse * of)) * inverse for of in members]
    )
    counts, each = jnp.sum(members, 1), jnp.arange(len(inverse))
    own, total = products[numbers, each], jnp.sum(products, 0)
    own = jnp.where((numbers >= 0) & (numbers < count), own, jnp.nan)  # of no class
    own_count = counts[numbers]
    return ClassAgreement(
        mean_cosine(own, own_count, directed, True),
        mean_cosine(total - own, jnp.sum(counts) - own_count, directed, False),
    )


def mean_cosine(products: Any, count: Any, directed: Any, among: Any) -> Any:
    """The mean cosine with `count` examples, from the product with the sum of their directions.

    Args:
        products: [m], direction of g_i . sum of directions.
        directed: bool [m], whether g_i has a direction; nan where not.
        among: whether example i is one of those counted; its cosine of 1 with itself is left out.
    """
    others = count - jnp.where(among, 1, 0)
    mean = (products - jnp.where(among, 1, 0)) / jnp.where(others > 0, others, jnp.nan)
    return jnp.where(directed, jnp.clip(mean, -1, 1), jnp.nan)


def _inverse_norms(gradients: PyTree) -> tuple[jax.Array, jax.Array]:
    """1 / ||g_i||, 0 for one without a direction, and whether it has one."""
    squares, keep = squared_norms(gradients), mask(gradients)
    directed = squares != 0  # a nan must show
    directed = directed if keep is None else directed & keep
    return jnp.where(directed, 1 / jnp.sqrt(jnp.where(directed, squares, 1)), 0), directed
