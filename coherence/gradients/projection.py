"""Random projection of per-example gradients: short sketches that keep inner products."""

import functools
import math
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from coherence.trees import PyTree

from . import layout as layouts
from . import recomputed
from .factors import Factored, Recomputed, Stacked, accumulator
from .reductions import nodes, streamed
from .terms import by_examples

# Products of vectors that are summed up in each number of a sketch. Squared lengths have a
# variance of at most 2 + 6 / _SUMMED over k; normal entries without structure have 2.
_SUMMED = 4
_BLOCK = 64  # the largest Hadamard matrix that is multiplied with


def project(gradients: PyTree, k: int, key: jax.Array) -> jax.Array:
    r"""Random projection of each example's gradient to k numbers, whose inner products stay right.

    .. math:: s_i = R^\top g_i \in \mathbb R^k, \qquad \mathbb E\; s_i \cdot s_j = g_i \cdot g_j

    with a standard deviation of about :math:`\|g_i\|\|g_j\|/\sqrt k`, and at most 2.2 times that:
    Johnson and Lindenstrauss's sketch. R depends on the key and on the shapes of the parameters
    alone, so that sketches of different batches and steps can be compared; R is linear, so that the
    mean of sketches is the sketch of the mean. A tree v of one gradient or of parameters is
    sketched as a batch of one: `project(jax.tree.map(lambda x: x[None], v), k, key)[0]`.

    R is made of outer products, and no row of the gradients is formed where factors are at hand. A
    leaf is taken as a matrix of its last axis by all others; each number of the sketch is a sum of
    four products u^T G v with random signs, u and v rows of a Hadamard matrix times signs that all
    rows share. So the inputs and the cotangents of a dense layer are transformed each by
    themselves, in K log K and N log N operations. Layers that `lax.scan` goes over, and weights
    that are masked by constants, form a few rows at a time.

    Masked examples have a sketch of zeros.

    Jin, Kolda & Ward, Faster Johnson-Lindenstrauss Transforms via Kronecker Products
    (arXiv:1909.04801); summing up several products is ours.

    Args:
        gradients: per-example gradients, as for every reduction.
        k: how many numbers each gradient becomes; static.
        key: from `jax.random.key`.

    Returns:
        [m, k], at least float32.

    Raises:
        ValueError: `k` < 1.

    >>> g = {"w": jnp.ones((2, 30, 40))}
    >>> s = project(g, 1000, jax.random.key(0))
    >>> print(s.shape, bool(abs(s[0] @ s[1] - 1200) < 3 / 1000**0.5 * 1200))
    (2, 1000) True
    """
    k = operator.index(k)
    if k < 1:
        raise ValueError(f"project(k): each gradient becomes at least 1 number, got {k}.")
    pairs, _ = nodes(gradients)
    sketches, without_rule = [], []
    for i, (_, node) in enumerate(pairs):
        matrix = _random_matrix(node.shape, _SUMMED * k, jax.random.fold_in(key, i))
        if isinstance(node, Recomputed):
            without_rule.append((node, matrix))
        else:
            sketches.append(_leaf(node, matrix))
    if without_rule:
        group, matrices = zip(*without_rule)
        sketch = lambda rows: sum(map(_of_row, rows, matrices))
        sketches.append(recomputed.over_examples(list(group), sketch))
    products: jax.Array = functools.reduce(jnp.add, sketches)
    return products.reshape(len(products), k, _SUMMED).sum(2) / math.sqrt(_SUMMED * k)


class _Vectors(NamedTuple):
    """J random vectors of +-1: rows of a Hadamard matrix, times signs that all share.

    `signs` [n], n a power of two; `rows` [J]; `places` [K]: which of the n coordinates are asked
    for.
    """

    signs: jax.Array
    rows: jax.Array
    places: np.ndarray

    def dot(self, x: jax.Array) -> jax.Array:
        """[..., K] to [..., J]: the products with all vectors."""
        n, dtype = len(self.signs), accumulator(x.dtype)
        x = x.astype(dtype)
        if np.array_equal(self.places, np.arange(len(self.places))):
            x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, n - x.shape[-1])])
        else:
            x = jnp.zeros((*x.shape[:-1], n), dtype).at[..., self.places].set(x)
        return _hadamard(x * self.signs.astype(dtype))[..., self.rows]

    def at(self, coordinates: jax.Array) -> jax.Array:
        """[...] to [..., J]: the vectors' values there."""
        where = jnp.asarray(self.places)[coordinates]
        odd = jax.lax.population_count(where[..., None] & self.rows) & 1
        return self.signs[where][..., None] * (1 - 2 * odd)


class _RandomMatrix(NamedTuple):
    """J products u_j v_j^T of vectors over a leaf's first axes and its last, with signs [J]."""

    left: _Vectors
    right: _Vectors
    signs: jax.Array


def _random_matrix(shape: tuple[int, ...], number: int, key: jax.Array) -> _RandomMatrix:
    sizes = math.prod(shape[:-1]), shape[-1] if shape else 1
    lengths = [1 << max(size - 1, 0).bit_length() for size in sizes]
    # One draw for all: a bit each for the signs, as many as a row's number has for the rows.
    parts = np.cumsum([*lengths, number, number])
    *of_signs, of_left, of_right, last = jnp.split(
        jax.random.bits(key, (parts[-1] + number,)).astype(jnp.int32), parts
    )
    signs = [1 - 2 * (bits & 1) for bits in (*of_signs, last)]
    rows = [bits & (n - 1) for bits, n in zip((of_left, of_right), lengths)]
    left, right = map(_Vectors, signs, rows, map(np.arange, sizes))
    return _RandomMatrix(left, right, signs[2])


def _leaf(node: Factored | Stacked, matrix: _RandomMatrix) -> jax.Array:
    """The products u^T G v of a leaf's gradients, [m, J]."""
    if isinstance(node, Stacked):
        size = len(matrix.left.signs) * len(matrix.right.signs)
        return by_examples(jax.vmap(lambda g: _of_row(g, matrix)), (node.values,), size)
    if not node.terms:
        return jnp.zeros((node.m, len(matrix.signs)), accumulator(node.dtype))
    sides = [_sides(term.layout, tuple(node.shape)) for term in node.terms]
    if None in sides:
        return streamed(node, lambda g: _of_row(g, matrix))
    products = [_of_term(term, side, matrix) for term, side in zip(node.terms, sides)]
    return functools.reduce(jnp.add, products)


def _of_row(gradient: jax.Array, matrix: _RandomMatrix) -> jax.Array:
    """One formed gradient's products: both of its sides are transformed, and J places read."""
    left, right, signs = matrix
    g = gradient.reshape(len(left.places), len(right.places)).astype(accumulator(gradient.dtype))
    n, q = len(left.signs), len(right.signs)
    g = jnp.pad(g, [(0, n - g.shape[0]), (0, q - g.shape[1])])
    g = _hadamard(g * left.signs[:, None] * right.signs)
    return signs * _hadamard(g.T)[right.rows, left.rows]


def _of_term(term: Any, sides: Any, matrix: _RandomMatrix) -> jax.Array:
    factor, places, is_turned = sides
    left, right = (side._replace(places=where) for side, where in zip(matrix[:2], places))
    products = term.bilinear(*((right, left) if is_turned else (left, right)))
    return factor * matrix.signs * products


@functools.lru_cache(maxsize=256)
def _sides(layout: layouts.Layout, shape: tuple[int, ...]) -> Any:
    """How a term's operand [1, K, N] lies in the leaf as a matrix, where it is a part of that.

    `(factor it is scaled by, (its rows, its columns) there, whether K runs over the columns)`, else
    `None`.
    """
    factor = 1.0
    for step in layout:
        if isinstance(step, layouts.Scaling):
            if isinstance(step.factor, layouts.Constant):
                return None
            factor *= step.factor
    rest = tuple(step for step in layout if not isinstance(step, layouts.Scaling))
    if not layouts.is_rearrangement(rest):
        return None
    with jax.ensure_compile_time_eval():
        numbers = jnp.arange(math.prod(shape), dtype=jnp.int32).reshape(shape)
        operand = np.asarray(layouts.forward(rest, numbers))
    if operand.shape[0] != 1:
        return None
    rows, columns = np.divmod(operand[0], shape[-1] if shape else 1)
    for is_turned in (False, True):
        if is_turned:
            rows, columns = rows.T, columns.T
        if (rows == rows[:, :1]).all() and (columns == columns[:1]).all():
            return factor, (rows[:, 0], columns[0]), is_turned
    return None


def _hadamard(x: jax.Array) -> jax.Array:
    """The last axis, of a power of two, times the Hadamard matrix in Sylvester's order."""
    n = x.shape[-1]
    block = min(n, _BLOCK)
    matrix = jnp.asarray(scipy.linalg.hadamard(block), x.dtype)
    if n == block:
        return x @ matrix
    y = (x.reshape(*x.shape[:-1], n // block, block) @ matrix).swapaxes(-1, -2)
    return _hadamard(y).swapaxes(-1, -2).reshape(x.shape)
