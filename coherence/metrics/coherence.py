"""The alpha family: how far per-example gradients agree.

All of it reads two means, of g_i and of ||g_i||^2 (`pool`). Pool them over batches or steps, divide
last.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from coherence.gradients.reductions import dot, mask, squared_norms
from coherence.trees import By, KeyPath, LeafNames, PyTree, leaf_names, splits_layers

from .pooling import Pooled, check_examples, check_size, one_set, pool


class Moments(NamedTuple):
    """The two means that alpha is a ratio of. Each entry is a scalar, or [groups] with `groups=`.

    squared_norm_of_mean: ||(1/m) sum_i g_i||^2.
    mean_squared_norm: (1/m) sum_i ||g_i||^2.
    m: number of examples that count.

    >>> from coherence.metrics import moments
    >>> float(moments({"w": jnp.eye(4)}).alpha)
    0.25
    """

    squared_norm_of_mean: jax.Array
    mean_squared_norm: jax.Array
    m: jax.Array

    @property
    def alpha(self) -> jax.Array:
        return self.squared_norm_of_mean / self.mean_squared_norm


@overload
def alpha(
    gradients: PyTree,
    *,
    by: None = None,
    groups: ArrayLike | None = None,
    num_groups: int | None = None,
) -> jax.Array: ...


@overload
def alpha(
    gradients: PyTree,
    *,
    by: By,
    groups: ArrayLike | None = None,
    num_groups: int | None = None,
) -> dict[str, jax.Array]: ...


def alpha(
    gradients: PyTree,
    *,
    by: By | None = None,
    groups: ArrayLike | None = None,
    num_groups: int | None = None,
) -> Any:
    r"""Agreement of the gradients: squared norm of their mean over their mean squared norm.

    .. math:: \alpha_m = \frac{\|\frac1m\sum_i g_i\|^2}{\frac1m\sum_i\|g_i\|^2} \in [0, 1]

    1 when all gradients are equal, 1/m when they are pairwise orthogonal and of whatever lengths, 0
    at a stationary point of the mean loss, nan when every gradient is zero. Dimensionless;
    unchanged by rescaling the loss. Its floor 1/m is sampling noise: compare curves of equal m
    only.

    Chatterjee & Zielinski, On the Generalization Mystery in Deep Learning (arXiv:2203.10036),
    Section 4.

    Args:
        gradients: from `per_example_value_and_grad`, a plain tree whose leaves have a leading axis
            of m examples, or what `pool` made of them (of a tuple the result is [groups]).
        by: "layer", "leaf", or a function from a leaf's key path to a name; the result is then a
            dict. Layers that `lax.scan` goes over are NAME/0, NAME/1, ... by the
            first two; a function of your own names their leaf as a whole.
        groups: bool [m] (result [2], False first) or int [m] with `num_groups`: one alpha a group,
            each with its own m.
        num_groups: how many groups an int `groups` holds (static); entries outside are in no group.

    Returns:
        A scalar; [groups] with `groups`; `{name: ...}` with `by`. nan for an empty group.

    Raises:
        ValueError: no leaves, mismatched example axes, or `groups` of the wrong shape or without
            `num_groups`.

    >>> alpha({"w": jnp.eye(4)})
    Array(0.25, dtype=float32)
    """
    return _from_moments(lambda moments: moments.alpha, gradients, by, groups, num_groups)


@overload
def m_coherence(
    gradients: PyTree,
    *,
    by: None = None,
    groups: ArrayLike | None = None,
    num_groups: int | None = None,
) -> jax.Array: ...


@overload
def m_coherence(
    gradients: PyTree,
    *,
    by: By,
    groups: ArrayLike | None = None,
    num_groups: int | None = None,
) -> dict[str, jax.Array]: ...


def m_coherence(
    gradients: PyTree,
    *,
    by: By | None = None,
    groups: ArrayLike | None = None,
    num_groups: int | None = None,
) -> Any:
    r"""How many examples of the sample, itself included, an average example's gradient helps.

    .. math:: m\,\alpha_m = \alpha_m / \alpha_m^\perp \in [0, m]

    1 for pairwise orthogonal gradients, m for identical ones, k for k copies each of orthonormal
    gradients. Grows about linearly with m once it is well above 1: compare curves of equal m only.
    With `groups`, m is the group's own count.

    Chatterjee & Zielinski, Making Coherence Out of Nothing At All (arXiv:2008.01217). Arguments as
    for `alpha`.

    >>> m_coherence({"w": jnp.ones((4, 3))})
    Array(4., dtype=float32)
    """
    helped = lambda moments: moments.m * moments.alpha
    return _from_moments(helped, gradients, by, groups, num_groups)


@overload
def alpha_unbiased(
    gradients: PyTree,
    *,
    by: None = None,
    groups: ArrayLike | None = None,
    num_groups: int | None = None,
) -> jax.Array: ...


@overload
def alpha_unbiased(
    gradients: PyTree,
    *,
    by: By,
    groups: ArrayLike | None = None,
    num_groups: int | None = None,
) -> dict[str, jax.Array]: ...


def alpha_unbiased(
    gradients: PyTree,
    *,
    by: By | None = None,
    groups: ArrayLike | None = None,
    num_groups: int | None = None,
) -> Any:
    r"""Alpha of the population that the examples were drawn from, without the floor 1/m.

    .. math:: \hat\alpha = \frac{\|\sum_i g_i\|^2 - \sum_i\|g_i\|^2}{(m-1)\sum_i\|g_i\|^2}
              = \frac{m\alpha_m - 1}{m - 1}

    0 on average for unrelated gradients, and a little below 0 half of the time: do not clip it.
    Numerator and denominator are unbiased, the ratio is consistent; under heavy-tailed norms pool
    the `moments` of many batches and divide last.

    Arguments as for `alpha`. nan for a group of one.

    Raises:
        ValueError: the sample holds one example, of which there is no pair.

    >>> alpha_unbiased({"w": jnp.eye(4)})
    Array(0., dtype=float32)
    """
    check_size(gradients, "alpha_unbiased")
    unbiased = lambda moments: (moments.m * moments.alpha - 1) / (moments.m - 1)
    return _from_moments(unbiased, gradients, by, groups, num_groups)


@overload
def moments(
    gradients: PyTree,
    *,
    by: None = None,
    groups: ArrayLike | None = None,
    num_groups: int | None = None,
) -> Moments: ...


@overload
def moments(
    gradients: PyTree,
    *,
    by: By,
    groups: ArrayLike | None = None,
    num_groups: int | None = None,
) -> dict[str, Moments]: ...


def moments(
    gradients: PyTree,
    *,
    by: By | None = None,
    groups: ArrayLike | None = None,
    num_groups: int | None = None,
) -> Any:
    """The two means that alpha is a ratio of, for pooling over steps.

    Average each of them (weighted by m, where it varies), divide last.

    Arguments and shape of the result as for `alpha`, with a `Moments` in place of each number.
    """
    return _from_moments(lambda moments: moments, gradients, by, groups, num_groups)


def alpha_between(
    gradients: PyTree, *, groups: ArrayLike | None = None, num_groups: int | None = None
) -> jax.Array:
    r"""Alpha between groups: how far the steps of two groups of examples agree.

    .. math:: \alpha_{ab} = \frac{\bar g_a\cdot\bar g_b}{\sqrt{q_a q_b}} \in [-1, 1],
              \qquad q_a = \frac1{m_a}\sum_{i\in a}\|g_i\|^2

    The diagonal is each group's own alpha, with its floor 1/m_a; off the diagonal there is no
    floor, since no example meets itself: 0 for unrelated groups, positive where a step on one
    lowers the loss of the other, negative where it raises it. By Cauchy-Schwarz at most the
    geometric mean of the two alphas. The cross term of P6's numerator; the normalization is ours.

    Args:
        gradients, groups, num_groups: as for `alpha`; or a tuple of `Pooled`, one a group.

    Returns:
        [groups, groups], symmetric; nan in the rows and columns of empty groups.

    >>> g = {"w": jnp.array([[1.0], [1.0], [-1.0]])}
    >>> alpha_between(g, groups=jnp.array([False, False, True]))
    Array([[ 1., -1.],
           [-1.,  1.]], dtype=float32)
    """
    parts = pool(gradients, groups=groups, num_groups=num_groups)
    if isinstance(parts, Pooled):
        raise ValueError(
            "alpha_between compares groups of examples: pass groups=, or a tuple of pooled "
            "gradients, one a group."
        )
    lengths = [jnp.sqrt(part.mean_squared_norm) for part in parts]
    means = [jax.tree.leaves(part.mean) for part in parts]

    def entry(a, b):
        a, b = min(a, b), max(a, b)  # the matrix is symmetric to the last bit
        inner = sum(jnp.vdot(x, y) for x, y in zip(means[a], means[b]))
        return inner / (lengths[a] * lengths[b])

    every = range(len(parts))
    return jnp.stack([jnp.stack([entry(a, b) for b in every]) for a in every])


@overload
def alpha_without(
    gradients: PyTree,
    *,
    by: None = None,
    pooled: Pooled | None = None,
) -> jax.Array: ...


@overload
def alpha_without(
    gradients: PyTree,
    *,
    by: By,
    pooled: Pooled | None = None,
) -> dict[str, jax.Array]: ...


def alpha_without(gradients: PyTree, *, by: By | None = None, pooled: Pooled | None = None) -> Any:
    r"""Alpha without each example: of the m - 1 others.

    .. math:: \alpha_{(i)} = \frac{\|S - g_i\|^2}{(m-1)(Q - \|g_i\|^2)},
              \qquad S = \sum_i g_i, \quad Q = \sum_i\|g_i\|^2

    An example whose removal raises alpha pulls against the rest, or is long and alone; one whose
    removal lowers it is among those that carry the step. The spread of these m numbers is the
    jackknife's error bar of alpha (`measure`).

    Args:
        gradients: per-example gradients of m examples, or of some of those in `pooled`.
        by: as for `alpha`.
        pooled: the whole sample, from `pool` (default: these gradients are all of it).

    Returns:
        [m], with `by` `{name: [m]}`; nan where masked, and for the only example there is.

    >>> [round(float(a), 3) for a in alpha_without({"w": jnp.array([[1.0], [1.0], [-1.0]])})]
    [0.0, 0.0, 1.0]
    """
    check_examples(gradients, "alpha_without")
    whole = one_set(gradients if pooled is None else pooled, "alpha_without")
    names = everything if by is None else leaf_names(by)
    norms, dots = squared_norms(gradients, by=names), dot(gradients, whole.mean, by=names)
    keep, result = mask(gradients), {}
    for name, part in moments(whole, by=names).items():
        values = leave_one_out(part, norms[name], dots[name])
        result[name] = values if keep is None else jnp.where(keep, values, jnp.nan)
    return result if by is not None else result[""]


def leave_one_out(moments: Moments, norms: Any, dots: Any) -> Any:
    """Alpha without each example, from its squared norm and its inner product with the mean.

    Everything is divided by m^2, so that large samples do not overflow.
    """
    m = moments.m * 1.0
    rest = (moments.squared_norm_of_mean - 2 * dots / m + norms / m**2).clip(min=0)
    return rest / ((1 - 1 / m) * (moments.mean_squared_norm - norms / m))


def everything(path: Any) -> str:
    """One name for all leaves."""
    return ""


def _from_moments(
    quantity: Callable[[Moments], Any],
    gradients: PyTree,
    by: By | None,
    groups: ArrayLike | None,
    num_groups: int | None,
) -> Any:
    """`quantity` of the `Moments`, of all leaves or of those of each name."""
    pooled = pool(gradients, groups=groups, num_groups=num_groups)
    names = everything if by is None else leaf_names(by)
    if isinstance(pooled, Pooled):
        parts = _moments_by_name(pooled, names)
    else:
        each = [_moments_by_name(part, names) for part in pooled]
        parts = {name: _stacked([part[name] for part in each]) for name in each[0]}
    result = {name: quantity(part) for name, part in parts.items()}
    return result if by is not None else result[""]


def _stacked(moments: list[Moments]) -> Moments:
    """[groups] in place of each number."""
    return Moments._make(jnp.stack(values) for values in zip(*moments))


def _moments_by_name(pooled: Pooled, names: LeafNames) -> dict[str, Moments]:
    sums: dict[str, tuple[Any, Any]] = {}
    squares = jax.tree.leaves(pooled.mean_squared_norms)
    for (path, mean), square in zip(jax.tree.leaves_with_path(pooled.mean), squares):
        for name, *part in _parts(names, path, mean, square):
            of_mean, of_examples = sums.get(name, (0.0, 0.0))
            sums[name] = of_mean + part[0], of_examples + part[1]
    return {name: Moments(*parts, pooled.m) for name, parts in sums.items()}


def _parts(
    names: LeafNames, path: KeyPath, mean: jax.Array, square: jax.Array
) -> list[tuple[str, jax.Array, jax.Array]]:
    """Name and both squared norms of a leaf, or of each of its layers where it was scanned."""
    if not square.ndim or not splits_layers(names):
        return [(names(path), jnp.vdot(mean, mean), jnp.sum(square))]
    lengths = jnp.sum(jnp.square(mean.reshape(len(square), -1)), 1)
    return [(f"{names(path)}/{i}", lengths[i], square[i]) for i in range(len(square))]
