"""Influence of training examples on others' losses, with a damped Fisher matrix for the Hessian."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import jax
import numpy as np
from numpy.typing import NDArray

from coherence.gradients.factors import Factored, Node, Stacked
from coherence.gradients.reductions import nodes
from coherence.gradients.transform import per_example_value_and_grad
from coherence.metrics.batching import count_examples
from coherence.trees import Loss, PyTree

from .pairs import inner_products, stretches

Sides = tuple[NDArray, ...]
"""Of one leaf: vectors [m, K] whose outer product is each example's gradient, rearranged."""


def damped_influence(
    loss: Loss,
    params: PyTree,
    train: PyTree,
    test: PyTree,
    *,
    damping: float,
    reference: PyTree | None = None,
    batch_size: int = 500,
) -> NDArray:
    r"""The influence function, with the damped empirical Fisher matrix for the Hessian.

    .. math:: g_t^\top (F + \lambda I)^{-1} g_i, \qquad F = \frac1r\sum_{j\in R} g_j g_j^\top

    By the Gram matrix of the reference R, exactly, however many parameters:

    .. math:: \frac1\lambda\Big(g_t\cdot g_i - k_t^\top (K + r\lambda I)^{-1} k_i\Big)

    with K the inner products within R and k those with R. Above 0: more weight on i lowers the
    loss of t. What all examples share counts less than in `tracin`: with lambda large the two are
    the same but for the factor lambda. lambda is in squares of a gradient's length, and far below
    their mean the difference of two large numbers remains: float32 loses it first. The empirical
    Fisher matrix is of the *given* labels, wrong ones too.

    Koh & Liang, Understanding Black-box Predictions via Influence Functions (arXiv:1703.04730),
    Equation 2, with `coherence.optim.natural_gradient`'s matrix. Arguments and result as for
    `tracin`, at one checkpoint.

    Args:
        damping: lambda, above 0.
        reference: examples of the Fisher matrix, a few thousand at most (r x r numbers; default:
            `train`).

    Raises:
        ValueError: damping that is not above 0.
    """
    _check(damping, "damped_influence")
    at = partial(inner_products, loss, params, batch_size=batch_size)
    return _by_gram(at, train, test, reference, damping)


def kfac_influence(
    loss: Loss,
    params: PyTree,
    train: PyTree,
    test: PyTree,
    *,
    damping: float,
    reference: PyTree | None = None,
    batch_size: int = 500,
) -> NDArray:
    r"""`damped_influence` leaf by leaf, with K-FAC's Kronecker product for a leaf's Fisher matrix.

    .. math:: \sum_{\text{leaves}} a_t^\top (A + \pi\sqrt\lambda I)^{-1} a_i \;\cdot\;
        d_t^\top \Big(D + \frac{\sqrt\lambda}\pi I\Big)^{-1} d_i

    for a leaf that meets one vector an example, a_i its input and d_i its cotangent, with the
    means A of a a^T and D of d d^T over the reference, and pi as in `coherence.optim.kfac`: exact
    where inputs and cotangents are independent and lambda is 0. Every other leaf (biases,
    sequences, convolutions, what has no rule) has the damped influence of its own, exactly. Leaves
    do not see each other, which `damped_influence` has them do; in return the reference costs no
    r x r numbers for leaves of the first kind, and one pass.

    Positive definite, so an example helps itself. The trap is that of `damped_influence`: lambda is
    in squares of a gradient's length, and decides how much of the matrices is seen. Solved in
    float64.

    Grosse et al., Studying Large Language Model Generalization with Influence Functions
    (arXiv:2308.03296), Sections 2.2 and 3.1, there with eigenvalues corrected and labels drawn from
    the model; here of the given labels. Arguments, result and errors as for `damped_influence`.

    Memory: the factors of reference and test examples, the result; r x r numbers for a leaf of the
    second kind that has no rows.

    >>> import jax.numpy as jnp
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    >>> loss = lambda w, x: jnp.sum(x @ w)  # cotangents (1, 1, 1); A = I / 2
    >>> kfac_influence(loss, jnp.ones((2, 3)), x, x, damping=1e-8).round(2)
    array([[2., 0.],
           [0., 2.]], dtype=float32)
    """
    _check(damping, "kfac_influence")
    matrices = _joined(loss, params, train if reference is None else reference, batch_size)
    left = [
        _divided(sides, of_reference, damping)
        for sides, of_reference in zip(_joined(loss, params, test, batch_size), matrices)
    ]
    result = np.zeros((count_examples(test), count_examples(train)), np.float32)
    for columns, right in _sides(loss, params, train, batch_size):
        for of_test, of_train in zip(left, right):
            if of_test:
                result[:, columns] += math.prod(a @ b.T for a, b in zip(of_test, of_train))
    for leaf, sides in enumerate(matrices):
        if not sides:
            at = partial(inner_products, loss, params, batch_size=batch_size, leaf=leaf)
            result += _by_gram(at, train, test, reference, damping)
    return result


def _by_gram(
    at: Callable[[PyTree, PyTree], NDArray],
    train: PyTree,
    test: PyTree,
    reference: PyTree | None,
    damping: float,
) -> NDArray:
    """[test, train] of `damped_influence`, from `at(train, test)`, the inner products."""
    pairs = at(train, test)
    if reference is None:
        with_train = within = at(train, train)
        with_test = pairs
    else:
        within, with_train, with_test = (at(reference, of) for of in (reference, train, test))
    damped = within + len(within) * damping * np.eye(len(within))
    shared = with_train @ np.linalg.solve(damped, with_test.T.astype(np.float64))
    return ((pairs - shared.T) / damping).astype(np.float32)


def _sides(
    loss: Loss, params: PyTree, data: PyTree, batch_size: int
) -> Iterator[tuple[slice, list[Sides]]]:
    """Which examples, and their sides by leaf, empty where a leaf has none."""
    for chosen, batch in stretches(data, batch_size):
        count = chosen.stop - chosen.start
        leaves = _of_batch(params, batch.examples, loss=loss)
        yield chosen, [tuple(np.asarray(side)[:count] for side in sides) for sides in leaves]


def _joined(loss: Loss, params: PyTree, data: PyTree, batch_size: int) -> list[Sides]:
    """The sides of all examples, by leaf."""
    batches = [leaves for _, leaves in _sides(loss, params, data, batch_size)]
    return [tuple(np.concatenate(parts) for parts in zip(*of_leaf)) for of_leaf in zip(*batches)]


@partial(jax.jit, static_argnames="loss")
def _of_batch(params: PyTree, examples: PyTree, *, loss: Loss) -> list[tuple[jax.Array, ...]]:
    _, gradients = per_example_value_and_grad(loss)(params, examples)
    return [_sides_of_leaf(node) for _, node in nodes(gradients)[0]]


def _sides_of_leaf(node: Node) -> tuple[jax.Array, ...]:
    """Inputs and cotangents; of a leaf that has rows these alone; else none."""
    if isinstance(node, Stacked):
        return (node.values.reshape(node.m, -1),)
    rank_one = node.rank_one if isinstance(node, Factored) else None
    return () if rank_one is None else rank_one[:2]


def _divided(sides: Sides, reference: Sides, damping: float) -> Sides:
    """The sides of test examples over the damped matrices of the reference's."""
    dampings = [damping]
    if len(sides) == 2:
        scales = [np.mean(np.square(side, dtype=np.float64)) for side in reference]
        pi = math.sqrt(scales[0] / scales[1]) if min(scales) > 0 else 1.0
        dampings = [pi * math.sqrt(damping), math.sqrt(damping) / pi]
    return tuple(_over_squares(*each) for each in zip(sides, reference, dampings))


def _over_squares(y: NDArray, x: NDArray, damping: float) -> NDArray:
    """y (x^T x / r + damping I)^-1 for y [t, K] and x [r, K], by the smaller of K x K and r x r."""
    y, x = y.astype(np.float64), x.astype(np.float64)
    r, k = x.shape
    if k <= r:
        return np.linalg.solve(x.T @ x / r + damping * np.eye(k), y.T).T
    shared = np.linalg.solve(x @ x.T + r * damping * np.eye(r), x @ y.T)
    return (y - shared.T @ x) / damping


def _check(damping: float, name: str) -> None:
    if not 0 < damping < math.inf:
        raise ValueError(f"{name}(damping): a number above 0, got {damping}.")
