"""All scores of a data set at one checkpoint, streaming: memory does not depend on its size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from coherence.gradients.jax_internals import contains
from coherence.gradients.reductions import (
    dot,
    leaf_squared_norms,
    leaf_weighted_sums,
    nodes,
    squared_norms,
)
from coherence.gradients.transform import per_example_value_and_grad
from coherence.metrics.batching import batches, count_examples, is_iterable, take
from coherence.metrics.coherence import Moments, leave_one_out
from coherence.metrics.pooling import Pooled, without
from coherence.trees import Loss, PyTree

from .checkpoint import Scores
from .cosines import mean_cosine
from .course import Course, CourseScores, init, result, update
from .norms import squared_length
from .outputs import confidence, el2n, margin

Logits = Callable[[Any, Any], Any]
"""`(params, x) -> [classes]` for one example."""

RESOLVED = 1e-6
"""Of the longest gradient: a shorter one is that of an example whose loss is 0 but for rounding.
Inner products are sums of terms as large as the others', so its cosines would be rounding."""


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """Checkpoints of one run, in order, and the learning rate that each stands for.

    params: trees of parameters.
    rates: one an entry of `params`; where a checkpoint stands for many steps, the sum of their
        learning rates. Default: 1 each.
    """

    params: Sequence[PyTree]
    rates: Sequence[float] = ()

    def __post_init__(self) -> None:
        if not len(self.params):
            raise ValueError("Trajectory(params): no checkpoint, there is nothing to score.")
        rates = [float(rate) for rate in self.rates] or [1.0] * len(self.params)
        if len(rates) != len(self.params):
            raise ValueError(
                f"Trajectory(rates): one a checkpoint, {len(self.params)}, got {len(rates)}."
            )
        object.__setattr__(self, "rates", tuple(rates))

    def __iter__(self) -> Iterator[tuple[PyTree, float]]:
        return iter(zip(self.params, self.rates))


def score(
    loss: Loss,
    params: PyTree,
    data: tuple[PyTree, Any],
    *,
    logits: Logits | None = None,
    batch_size: int = 256,
    reference: int | None = 8192,
    by_class: bool = True,
    progress: bool = False,
) -> Scores:
    r"""Every score of every example at one checkpoint.

    One pass over the data: every batch is asked for losses, outputs, norms, and the gradients'
    inner products with the mean gradient, with the sum of all directions, with that of the class
    and with the parameters, all from one linearization. The two means come from a pass before, over
    `reference` examples, drawn at random: then scores are exact up to the means' sampling error,
    which shifts all examples alike; of so many or fewer, and with `reference=None`, they are exact.
    Memory: a batch's factors, one gradient a class, and a row of numbers an example, on the host.
    Cost in plain epochs of gradients: `benchmarks/scores.py`.

    An example whose loss or gradient is not finite has scores of nan, and counts in no mean. A
    class with one example has no others to agree with: nan.

    Args:
        loss: `(params, (x, y)) -> scalar` for ONE example.
        params: where to measure.
        data: `(x, y)`: x a pytree of arrays with a leading axis of m examples (on the host also
            `np.memmap`), y integers [m].
        logits: `(params, x) -> [classes]` for ONE example; for margin, confidence, EL2N.
        batch_size: examples differentiated at a time.
        reference: examples that the means are of; `None`: all of them, in a pass of their own.
        by_class: compare with classes, too; else `own_class` and `rivals` are nan, and no class'
            mean is held.
        progress: show a progress bar.

    Returns:
        `Scores`, in the order of the data.

    Raises:
        ValueError: no labels, or not one integer an example; no finite gradient at all; what
            `per_example_value_and_grad` refuses (batch statistics, a loss of many examples).
        TypeError: parameters that are no floats.

    >>> loss = lambda w, example: example[1] * jnp.dot(w, example[0])
    >>> x, y = np.array([[2.0], [1.0], [4.0]]), np.array([1, 1, -1]) + 1
    >>> score(loss, jnp.ones(1), (x, y)).agreement  # the last example has no gradient: y is 0
    array([ 1.,  1., nan])
    """
    labels, m = checked(data)
    classes = int(labels.max()) + 1 if by_class else 1
    groups = labels if by_class else np.zeros(m, np.int64)
    size = fitting_size(batch_size, np.bincount(groups))
    shown = partial(tqdm, unit="batch", disable=not progress)
    member = members(m, reference)
    whole, own = sums(loss, params, data, groups, member, batch_size, shown)
    if whole is None or not int(whole.pooled.m):
        raise ValueError(
            "score: no example has a finite gradient. Are the parameters finite, and the data?"
        )
    empty = Directions(jax.tree.map(jnp.zeros_like, whole.directions.total), np.zeros(()))
    columns: dict[str, NDArray] = {}
    for batch in shown(batches((np.arange(m), data), size, groups, classes)[1]):
        index, examples = batch.examples
        directions = own.get(batch.group, empty)
        vectors = whole.pooled.mean, whole.directions.total, directions.total
        read = _read(params, examples, batch.mask, vectors, loss=loss, logits=logits)
        read["own_count"] = directions.count
        keep = slice(None) if batch.mask is None else batch.mask
        for name, values in read.items():
            column = columns.setdefault(name, np.full(m, np.nan))
            values = np.asarray(values, np.float64)
            column[np.asarray(index)[keep]] = values[keep] if values.ndim else values
    return _scores(columns, whole, member, by_class)


def score_along(
    loss: Loss, trajectory: Trajectory, data: tuple[PyTree, Any], **options: Any
) -> CourseScores:
    """`score` at every checkpoint of a trajectory, accumulated: see `CourseScores`.

    Options and errors as for `score`. Cost: that of `score` a checkpoint.
    """
    course: Course | None = None
    for params, rate in trajectory:
        scores = score(loss, params, data, **options)
        course = init(len(scores.loss)) if course is None else course
        course = update(course, scores, rate)
    assert course is not None
    return result(course)


def checked(data: Any, name: str = "data") -> tuple[NDArray, int]:
    """The labels of `(x, y)`, int [m], and m.

    Raises:
        ValueError: labels are missing, or not one integer of 0 or more an example.
    """
    if not isinstance(data, tuple | list) or len(data) != 2 or is_iterable(data):
        raise ValueError(
            f"{name} is (x, y): examples and their integer labels, both with a leading axis of "
            f"examples; got {type(data).__name__}. Of a generator make arrays first (np.memmap "
            "where they are large): they are passed over more than once."
        )
    m = count_examples(data)
    labels = np.asarray(data[1])
    if labels.shape != (m,) or labels.dtype.kind not in "iub":
        raise ValueError(
            f"{name} = (x, y): y must be one integer label an example, [{m}], got "
            f"{labels.dtype} {list(labels.shape)}. Of names: classes, y = np.unique(names, "
            "return_inverse=True)."
        )
    if labels.min() < 0:
        raise ValueError(
            f"{name} = (x, y): {int((labels < 0).sum())} labels are below 0, the first at "
            f"{int(np.argmax(labels < 0))}. If they mark missing labels, leave those examples out."
        )
    return labels.astype(np.int64), m


def fitting_size(most: int, counts: NDArray) -> int:
    """The batch size, at most `most`, at which groups of these counts cost least.

    Their last batches are filled up. A batch by itself is taken to cost as much as an eighth of the
    largest one's examples.

    Raises:
        ValueError: `most` below 1.
    """
    if most < 1:
        raise ValueError(f"batch_size must be at least 1 example, got {most}.")
    most = min(most, int(counts.max()))
    sizes = np.arange(most // 2 + 1, most + 1)
    cost = (sizes + most / 8) * np.ceil(counts[:, None] / sizes).sum(0)
    return int(sizes[np.argmin(cost)])


class Directions(NamedTuple):
    """The sum of the directions g_i / ||g_i|| of some examples, and how many have one."""

    total: PyTree
    count: Any


class Sums(NamedTuple):
    """What the first pass leaves of some examples, of those whose gradients are finite."""

    pooled: Pooled
    directions: Directions


def members(m: int, reference: int | None) -> NDArray:
    """bool [m]: the examples that means are of, `reference` of m at random, or all.

    Raises:
        ValueError: `reference` below 1.
    """
    if reference is not None and reference < 1:
        raise ValueError(f"reference: at least 1 example, or None for all, got {reference}.")
    member = np.ones(m, bool)
    if reference is not None and reference < m:
        member[np.random.default_rng(0xA9).permutation(m)[reference:]] = False
    return member


def sums(
    loss: Loss,
    params: PyTree,
    data: PyTree,
    groups: NDArray,
    member: NDArray,
    batch_size: int,
    shown: Callable[[Any], Any] = iter,
) -> tuple[Sums | None, dict[int, Directions]]:
    """The sums over the members, and the directions of each group of them."""
    sample = np.flatnonzero(member)
    chosen = data if member.all() else take(data, sample)
    size = fitting_size(batch_size, np.bincount(groups[sample]))
    source = batches(chosen, size, groups[sample], int(groups.max()) + 1)[1]
    whole: Sums | None = None
    own: dict[int, Directions] = {}
    for batch in shown(source):
        pooled, directions = _of_batch(params, batch.examples, batch.mask, loss=loss)
        if whole is None:
            whole = Sums(pooled, directions)
        else:
            whole = Sums(_added(whole.pooled, pooled), _plus(whole.directions, directions))
        before = own.get(batch.group)
        own[batch.group] = directions if before is None else _plus(before, directions)
    return whole, own


@partial(jax.jit, static_argnames="loss")
def _of_batch(params: PyTree, examples: PyTree, mask: Any, *, loss: Loss) -> Sums:
    _, gradients = per_example_value_and_grad(loss)(params, examples, mask)
    squares = squared_norms(gradients)
    finite = jnp.isfinite(squares)
    pairs, treedef = nodes(gradients)
    clean = treedef.unflatten(without([node for _, node in pairs], ~finite))
    counted = finite if mask is None else finite & mask
    m = jnp.sum(counted, dtype=jnp.int32)
    directed = counted & (squares > 0)
    inverse = jnp.where(directed, 1 / jnp.sqrt(jnp.where(directed, squares, 1)), 0)
    weights = counted / jnp.maximum(m, 1).astype(squares.dtype)
    mean, total = (
        treedef.unflatten([x for _, x in leaf_weighted_sums(clean, w)]) for w in (weights, inverse)
    )
    of_leaves = leaf_squared_norms(clean)
    norms = treedef.unflatten([weights @ jnp.where(counted, x, 0) for _, x in of_leaves])
    return Sums(Pooled(mean, norms, None, m), Directions(total, jnp.sum(directed)))


@jax.jit
def _added(pooled: Pooled, other: Pooled) -> Pooled:
    return pooled + other


@jax.jit
def _plus(directions: Directions, other: Directions) -> Directions:
    return jax.tree.map(jnp.add, directions, other)


@partial(jax.jit, static_argnames=("loss", "logits"))
def _read(
    params: PyTree,
    examples: PyTree,
    mask: Any,
    vectors: tuple[PyTree, PyTree, PyTree],
    *,
    loss: Loss,
    logits: Logits | None,
) -> dict[str, Any]:
    """What one batch is asked for: [m] each, or a number.

    `vectors`: the mean gradient, the sum of all directions, and that of the batch's class.
    """
    losses, gradients = per_example_value_and_grad(loss)(params, examples, mask)
    along = _products(loss, params, examples, gradients)
    mean, directions, own = vectors
    read: dict[str, Any] = {
        "loss": losses,
        "square": squared_norms(gradients),
        "with_mean": along(mean),
        "with_directions": along(directions),
        "with_own": along(own),
        "with_params": along(params),
        "params": squared_length(params),
    }
    if logits is not None:
        x, y = examples
        outputs = jax.vmap(logits, (None, 0))(params, x)
        read |= {
            "margin": margin(outputs, y),
            "confidence": confidence(outputs, y),
            "el2n": el2n(outputs, y),
        }
    return read


def _products(
    loss: Loss, params: PyTree, examples: PyTree, gradients: PyTree
) -> Callable[[PyTree], jax.Array]:
    """g_i . v as a function of v.

    By one linearization: the forward pass is shared with the losses, which makes three products
    cheaper than by the factors. Where there is no forward derivative, or little precision, by
    these.
    """
    losses = lambda values: jax.vmap(loss, (None, 0))(values, examples)
    leaves = jax.tree.leaves(params)
    precise = all(jnp.finfo(jnp.result_type(leaf)).bits >= 32 for leaf in leaves)
    if not precise or contains(jax.make_jaxpr(losses)(params).jaxpr, "custom_vjp_call"):
        return lambda vector: dot(gradients, vector)
    _, linear = jax.linearize(losses, params)
    return lambda vector: linear(
        jax.tree.map(lambda v, leaf: jnp.asarray(v, leaf.dtype), vector, params)
    )


def _scores(read: dict[str, NDArray], whole: Sums, member: NDArray, by_class: bool) -> Scores:
    """The scores, in float64, from what was read of every example."""
    pooled = whole.pooled
    moments: Any = Moments(
        *map(float, (pooled.squared_norm_of_mean, pooled.mean_squared_norm, pooled.m))  # type: ignore
    )
    m, squares, products = moments.m, read["square"], read["with_mean"]
    finite = np.isfinite(squares)
    directed = squares > RESOLVED**2 * np.max(squares, initial=0, where=finite)
    counted = member & finite  # those whose own gradient is in the means
    nothing = np.full(len(squares), np.nan)
    margins = read.get("margin", nothing)
    with np.errstate(divide="ignore", invalid="ignore"):
        lengths = np.sqrt(squares)
        of_all, of_own = read["with_directions"] / lengths, read["with_own"] / lengths
        all_count, own_count = float(whole.directions.count), read["own_count"]
        own = _mean_cosine(of_own, own_count, directed, member)
        rivals = _mean_cosine(of_all - of_own, all_count - own_count, directed, False)
        alpha = np.where(counted, leave_one_out(moments, squares, products), moments.alpha)
        return Scores(
            loss=read["loss"],
            margin=margins,
            confidence=read.get("confidence", nothing),
            el2n=read.get("el2n", nothing),
            correct=np.where(np.isnan(margins), np.nan, margins > 0),
            grand=lengths,
            agreement=_mean_cosine(of_all, all_count, directed, member),
            own_class=own if by_class else nothing,
            rivals=rivals if by_class else nothing,
            contribution=products / moments.squared_norm_of_mean,
            alpha_without=np.where(finite, alpha, np.nan),
            pull=np.where(counted, (m * products - squares) / (m - 1), products),
            weight_alignment=-read["with_params"] / (np.sqrt(squares) * np.sqrt(read["params"])),
        )


def _mean_cosine(products: NDArray, count: Any, directed: NDArray, among: Any) -> NDArray:
    return np.asarray(mean_cosine(products, count, directed, among), np.float64)
