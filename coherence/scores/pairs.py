"""Scores of pairs: what training examples do to the loss of others. TracIn, GradCos, extremes.

Block by block, through the inner products of factors: the array of examples x parameters is formed
by nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from coherence.gradients.reductions import gram, nodes, squared_norms
from coherence.gradients.transform import per_example_value_and_grad
from coherence.metrics.batching import Batch, batches, count_examples
from coherence.trees import Loss, PyTree

from .streaming import Trajectory


class Extremes(NamedTuple):
    """Of each of n examples the training examples that pull most towards and against it.

    helpers, opponents: their numbers, int [n, most], the strongest first.
    helped, opposed: GradCos with them, [n, most]; nan where there is none of that sign.
    """

    helpers: NDArray
    helped: NDArray
    opponents: NDArray
    opposed: NDArray


def tracin(
    loss: Loss, params: PyTree | Trajectory, train: PyTree, test: PyTree, *, batch_size: int = 500
) -> NDArray:
    r"""What steps on each training example bring each test example, to first order.

    .. math:: T_{ti} = \sum_{\text{checkpoints}} \eta_k\, g_t\cdot g_i

    Above 0: a helper, whose steps lower the test example's loss; below: an opponent. In units of
    the loss. Dominated by examples with long gradients, which pull at everything: `gradcos` is the
    remedy. At one checkpoint the kernel of the tangent space. Cost a checkpoint: gradients of both
    sets, without sums, once a block of the other; and test x train inner products of factors.
    Memory: the result, and two batches' factors.

    Pruthi, Liu, Kale & Sundararajan, Estimating Training Data Influence by Tracing Gradient Descent
    (arXiv:2002.08484), Section 3, TracInCP.

    Args:
        loss: `(params, example) -> scalar` for ONE example.
        params: where, with rate 1; or a `Trajectory`, whose rates are the eta_k.
        train, test: pytrees of arrays with a leading axis of examples.
        batch_size: examples of either set differentiated at a time.

    Returns:
        [test, train], float32, on the host.

    Raises:
        ValueError: what `score` raises of loss and data.

    >>> import jax.numpy as jnp
    >>> x = np.eye(2, dtype=np.float32)
    >>> tracin(lambda w, x: (w @ x) ** 2 / 2, jnp.array([1.0, 2.0]), x, x)
    array([[1., 0.],
           [0., 4.]], dtype=float32)
    """
    result = np.zeros((count_examples(test), count_examples(train)), np.float32)
    for checkpoint, rate in as_trajectory(params):
        result += rate * inner_products(loss, checkpoint, train, test, batch_size=batch_size)
    return result


def gradcos(
    loss: Loss, params: PyTree | Trajectory, train: PyTree, test: PyTree, *, batch_size: int = 500
) -> NDArray:
    r"""The cosine between the gradients of test and training examples, in [-1, 1].

    .. math:: \frac{g_t\cdot g_i}{\|g_t\|\,\|g_i\|}

    the mean over checkpoints of a `Trajectory`. `tracin` without the lengths: who is alike, not
    who is loud. 1 for an example and itself. A label that differs turns the sign: close inputs with
    other labels are the strongest opponents.

    Charpiat, Girard, Felardos & Tarabalka, Input Similarity from the Neural Network Perspective
    (NeurIPS 2019); "GradCos" in Pezeshkpour et al. (arXiv:2104.04128). Arguments and cost as for
    `tracin`; 0 where a gradient is zero.
    """
    result = np.zeros((count_examples(test), count_examples(train)), np.float32)
    trajectory = as_trajectory(params)
    for checkpoint, _ in trajectory:
        for block in blocks(loss, checkpoint, train, test, batch_size):
            result[block.rows, block.columns] += block.cosines / len(trajectory.params)
    return result


def extremes(
    loss: Loss,
    params: PyTree | Trajectory,
    train: PyTree,
    test: PyTree,
    *,
    most: int = 8,
    itself: NDArray | None = None,
    batch_size: int = 500,
) -> Extremes:
    """The training examples that pulled most towards and against each test example, by `gradcos`.

    Influence on one prediction: `test` holds one example with the label to be explained, the given
    or the predicted. Memory: test x train numbers; see `gradcos` for arguments and cost.

    Args:
        most: how many of each kind; fewer where the set is smaller.
        itself: int [n], the place of each test example in `train` where it is one of them: it is
            left out.

    Raises:
        ValueError: `most` below 1.
    """
    if most < 1:
        raise ValueError(f"extremes(most): at least 1, got {most}.")
    cosines = gradcos(loss, params, train, test, batch_size=batch_size)
    if itself is not None:
        cosines[np.arange(len(cosines)), itself] = np.nan
    most = min(most, cosines.shape[1])
    ends = []
    for sign in (1, -1):
        values = np.where(np.isnan(cosines), -np.inf, sign * cosines)
        first = np.argpartition(-values, most - 1, axis=1)[:, :most]
        order = np.argsort(-np.take_along_axis(values, first, 1), axis=1, kind="stable")
        first = np.take_along_axis(first, order, 1)
        strength = np.take_along_axis(values, first, 1)
        ends += [first, np.where(strength > 0, sign * strength, np.nan)]
    return Extremes(*ends)


def as_trajectory(params: PyTree | Trajectory) -> Trajectory:
    """One checkpoint as a trajectory of rate 1."""
    return params if isinstance(params, Trajectory) else Trajectory([params])


def inner_products(
    loss: Loss,
    params: PyTree,
    train: PyTree,
    test: PyTree,
    *,
    batch_size: int,
    leaf: int | None = None,
) -> NDArray:
    """g_t . g_i at one checkpoint, [test, train], float32; of one leaf by number, or of all."""
    result = np.zeros((count_examples(test), count_examples(train)), np.float32)
    for block in blocks(loss, params, train, test, batch_size, leaf):
        result[block.rows, block.columns] = block.products
    return result


class Block(NamedTuple):
    """Inner products of some test examples (rows) and some training examples (columns)."""

    rows: slice
    columns: slice
    products: NDArray
    cosines: NDArray


def blocks(
    loss: Loss,
    params: PyTree,
    train: PyTree,
    test: PyTree,
    batch_size: int,
    leaf: int | None = None,
) -> Iterator[Block]:
    """All pairs, block by block."""
    for rows, of_test in stretches(test, batch_size):
        for columns, of_train in stretches(train, batch_size):
            sets = of_test.examples, of_test.mask, of_train.examples, of_train.mask
            products, cosines = block_of_pairs(params, *sets, loss=loss, leaf=leaf)
            inside = (slice(rows.stop - rows.start), slice(columns.stop - columns.start))
            yield Block(rows, columns, np.asarray(products)[inside], np.asarray(cosines)[inside])


def stretches(data: PyTree, batch_size: int) -> Iterator[tuple[slice, Batch]]:
    """Batches in order, all of one size, and which examples they hold."""
    m = count_examples(data)
    _, source = batches(data, batch_size)
    for start, batch in zip(range(0, m, min(batch_size, m)), source):
        yield slice(start, min(start + batch_size, m)), batch


@partial(jax.jit, static_argnames=("loss", "leaf"))
def block_of_pairs(
    params: PyTree,
    test: PyTree,
    test_mask: Any,
    train: PyTree,
    train_mask: Any,
    *,
    loss: Loss,
    leaf: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Inner products and cosines [test, train] of two batches, compiled; of one leaf, or all."""
    differentiate = per_example_value_and_grad(loss)
    _, of_test = differentiate(params, test, test_mask)
    _, of_train = differentiate(params, train, train_mask)
    if leaf is not None:
        of_test, of_train = (nodes(of)[0][leaf][1] for of in (of_test, of_train))
    products = gram(of_test, of_train)
    lengths = jax.numpy.sqrt(squared_norms(of_test))[:, None] * jax.numpy.sqrt(
        squared_norms(of_train)
    )
    return products, products / jax.numpy.where(lengths > 0, lengths, jax.numpy.inf)
