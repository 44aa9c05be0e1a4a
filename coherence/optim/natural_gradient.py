"""Aggregators that divide the mean gradient by the empirical Fisher matrix, without forming it."""

import math

import jax
import jax.numpy as jnp

from coherence.gradients import layout as layouts
from coherence.gradients.factors import Factored, Node, accumulator
from coherence.gradients.reductions import count, gram, mask, nodes, weighted_sum

from .aggregation import Aggregator, aggregator

# Damping, in units of a matrix's trace times epsilon, below which rounding may make it indefinite.
_ROUNDING = 10


def natural_gradient(damping: float = 0.1) -> Aggregator:
    r"""Natural gradient: the mean gradient divided by the damped empirical Fisher matrix.

    .. math:: \bar g = (F + \lambda I)^{-1}\,\frac1m\sum_i g_i, \qquad
        F = \frac1m\sum_i g_i g_i^\top

    over all leaves together. Exact, by the Gram matrix K of m x m instead of F of P x P:

    .. math:: \bar g = \frac1m\sum_i w_i g_i, \qquad (K + \lambda I)\,w = 1, \quad
        K_{ij} = \frac1m\, g_i \cdot g_j

    so the price is K, a solution of m equations and one weighted mean. A large damping gives the
    mean divided by it: the learning rate goes with the damping. For damping -> 0 the step no longer
    depends on the parametrization where F can be inverted, and where m < P the loss of every
    example of the batch falls equally fast: directions that many examples share lose what they
    are ahead, and with them coherence's preference.

    F is the *empirical* Fisher matrix, of the given labels. Labels drawn from the model make it the
    Fisher matrix itself, but then the mean is of these, too. The damping is in squares of a
    gradient's length. The result's relative error is about K's rounding, 1e-7 of the mean squared
    norm in float32, over the damping; one of less than ten times that is raised to it. A nan in any
    example makes everything nan. Masked examples do not count.

    Amari, Natural Gradient Works Efficiently in Learning (Neural Computation 1998); by the Gram
    matrix: Ren & Goldfarb, Efficient Subsampled Gauss-Newton and Natural Gradient Methods
    (arXiv:1906.02353). Not in the papers on coherent gradients.

    Args:
        damping: lambda, above 0.

    >>> tx = natural_gradient(0.5)
    >>> g = jnp.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])  # F has 3 and 1
    >>> [f"{x:.3f}" for x in tx.update(g, tx.init(None))[0]]
    ['0.429', '0.333']
    """
    _check(damping, "natural_gradient")
    return aggregator(
        lambda gradients: _divided(gradients, damping), f"natural_gradient(damping={damping})"
    )


def kfac(damping: float = 0.1) -> Aggregator:
    r"""K-FAC: each leaf's mean gradient divided by a Kronecker product that stands for its Fisher
    matrix.

    .. math:: \bar g = (A + \pi\sqrt\lambda I)^{-1} \Big(\frac1m\sum_i a_i d_i^\top\Big)
        \Big(D + \frac{\sqrt\lambda}\pi I\Big)^{-1}, \qquad
        A = \frac1m\sum_i a_i a_i^\top, \quad D = \frac1m\sum_i d_i d_i^\top

    for a leaf that meets one vector an example, a_i its input and d_i its cotangent:
    :math:`A \otimes D` is its Fisher matrix where inputs and cotangents are independent. pi shares
    the damping between the two by their mean eigenvalues, :math:`\pi^2 = (\mathrm{tr} A/K) /
    (\mathrm{tr} D/N)`. Every other leaf (biases, sequences, convolutions, what has no rule) takes
    the natural gradient of its own, exactly. Leaves do not see each other.

    A side of more than m numbers is divided by its m x m Gram matrix instead: the price is two
    such solutions a leaf. The matrices are those of this batch: no running means, and *empirical*,
    of the given labels; see `natural_gradient`, also for precision. Plain arrays of rows do not say
    what their factors were: they take the natural gradient leaf by leaf. A nan in an example makes
    the leaves it reaches nan. Masked examples do not count.

    On CPU LAPACK solves for many right sides with threads of its own, and these and XLA's wait for
    each other: beside other work a step takes a quarter of the time with OPENBLAS_NUM_THREADS=1 in
    the environment.

    Martens & Grosse, Optimizing Neural Networks with Kronecker-factored Approximate Curvature
    (arXiv:1503.05671), Sections 3 and 6.3 (block-diagonal, without momentum).

    Args:
        damping: lambda, above 0.

    >>> tx = kfac(1e-4)
    >>> g = jnp.array([[1.0], [3.0]])  # one weight, F = 5
    >>> print(f"{tx.update(g, tx.init(None))[0][0]:.3f}")
    0.400
    """
    _check(damping, "kfac")

    def combine(gradients):
        pairs, treedef = nodes(gradients)
        return treedef.unflatten([_leaf(node, damping) for _, node in pairs])

    return aggregator(combine, f"kfac(damping={damping})")


def _divided(gradients, damping):
    """(F + damping I)^-1 times the mean gradient, by a weighted sum."""
    m, products = count(gradients), gram(gradients)
    # Masked examples are rows of zeros, whose weights are of no gradient.
    weights = _solve(products / m, damping, jnp.ones(len(products), products.dtype))
    return weighted_sum(gradients, weights / m)


def _leaf(node: Node, damping):
    rank_one = node.rank_one if isinstance(node, Factored) else None
    if rank_one is None:
        return _divided(node, damping)
    *factors, layout = rank_one
    m, keep, dtype = count(node), mask(node), accumulator(node.dtype)
    inputs, cotangents = (x.astype(dtype) for x in factors)
    if keep is not None:
        inputs = jnp.where(keep[:, None], inputs, 0)
    scales = [jnp.sum(jnp.square(x)) / (m * x.shape[1]) for x in (inputs, cotangents)]
    usual = (scales[0] > 0) & (scales[1] > 0)
    pi = jnp.sqrt(jnp.where(usual, scales[0] / jnp.where(usual, scales[1], 1), 1))
    root = math.sqrt(damping)
    left, right = _over_squares(inputs, m, root * pi), _over_squares(cotangents, m, root / pi)
    quotient = left.T @ right / m
    parameter = jax.ShapeDtypeStruct(node.shape, dtype)
    return layouts.pull_back(layout, parameter, quotient[None]).astype(node.dtype)


def _over_squares(x, m, damping):
    """x (x^T x / m + damping I)^-1 for x [m, K], by the smaller of K x K and m x m."""
    wide = x.shape[1] > len(x)
    products = (x @ x.T if wide else x.T @ x) / m
    # The inverse, then a product of matrices: XLA solves for many right sides slowly on CPU.
    inverse = _solve(products, damping, jnp.eye(len(products), dtype=x.dtype))
    return inverse @ x if wide else x @ inverse


def _solve(products, damping, right):
    """x of (products + damping I) x = right, with at least the damping that keeps it definite."""
    least = _ROUNDING * jnp.finfo(products.dtype).eps * jnp.trace(products)
    damped = products + jnp.maximum(damping, least) * jnp.eye(len(products), dtype=products.dtype)
    return jax.scipy.linalg.solve(damped, right, assume_a="pos")


def _check(damping, name):
    if not 0 < damping < math.inf:
        raise ValueError(f"{name}(damping): damping is a number above 0, got {damping}.")
