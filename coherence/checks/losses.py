"""Per-example gradients of a user's own loss.

How every leaf gets them, at what memory, and whether they are right.
"""

import math
import operator
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coherence.gradients import (
    Factored,
    Recomputed,
    RecomputedWarning,
    Stacked,
    batch_statistics,
    jax_internals,
    materialize,
    per_example_value_and_grad,
    reductions,
)
from coherence.trees import Loss, PyTree
from coherence.trees import leaf as leaf_name

from .reports import LeafCheck, LossCheck, StepCheck

_HALF = float(jnp.finfo(jnp.bfloat16).eps)  # coarser floats are codes, not what one computes in
# of the largest entry of any leaf: below it differences count as rounding of the others, not of
# the leaf's own
_SMALL = 1e-2


def check_loss(
    loss: Loss,
    params: PyTree,
    batch: PyTree,
    *,
    batch_loss: Callable[[Any, Any], jax.Array] | None = None,
    examples: int = 4,
    has_aux: bool = False,
) -> LossCheck:
    """How every leaf gets its per-example gradients, at what memory, and whether they are right.

    Compares rows, norms and sums of a few examples with a Python loop of `jax.grad`, looks over the
    whole batch for leaves whose gradients are exactly zero, and into the loss for a batch norm that
    sees one example (which is reported here, not raised). Costs one compilation of the transform
    and one of `jax.grad`: run it once, on your own model, before you trust a number.

    That a loss is *one* example's cannot be checked: it is given nothing else. Whether its mean is
    what you train on can: pass the loss of your training step as `batch_loss`.

    Args:
        loss: `(params, example) -> scalar` for ONE example, with `has_aux` `-> (scalar, aux)`.
        params: a pytree of floating-point arrays.
        batch: a pytree whose leaves share a leading axis of m examples.
        batch_loss: `(params, batch) -> scalar`, the loss of your training step: its gradient should
            be the mean of the per-example gradients. It is not where a step sums over the tokens of
            a batch what an example averages over its own.
        examples: how many to compare with `jax.grad`, spread over the batch; up to as many more
            whose gradients are not finite.
        has_aux: whether the loss returns auxiliary values.

    Returns:
        A `LossCheck`: prints as a table; `.ok`, `.problems`, `.leaves`, `.fast_share`.

    Raises:
        ValueError: `examples` < 1, or whatever `per_example_value_and_grad` refuses.

    >>> loss = lambda p, x: jnp.tanh(x @ p["w"]).sum()
    >>> check = check_loss(loss, {"w": jnp.ones((3, 2))}, jnp.eye(3))
    >>> check.ok, check.fast_share
    (True, 1.0)
    """
    examples = operator.index(examples)
    if examples < 1:
        raise ValueError(
            f"check_loss(examples): at least 1 to compare with jax.grad, got {examples}."
        )
    transform = per_example_value_and_grad(loss, has_aux=has_aux, allow_batch_statistics=True)
    shapes, reasons = _nodes_and_reasons(transform, params, batch)
    nodes = jax.tree.leaves_with_path(shapes, is_leaf=_is_node)
    m = nodes[0][1].m
    index = np.unique(np.linspace(0, m - 1, min(examples, m)).round().astype(int))
    with warnings.catch_warnings(), jax.default_matmul_precision("highest"):
        warnings.simplefilter("ignore", RecomputedWarning)  # the table says it
        norms, mean = jax.jit(lambda p, b: _norms_and_mean(transform(p, b)[1]))(params, batch)
        index = np.union1d(index, _not_finite(norms)[: len(index)])
        few = jax.tree.map(lambda x: x[index], batch)
        ours = jax.jit(lambda p, b: _reduced(transform(p, b)[1]))(params, few)
        truth = _looped(loss, has_aux, params, few, len(index))
        step = None if batch_loss is None else jax.jit(jax.grad(batch_loss))(params, batch)
    trace = _trace(loss, has_aux, params, batch)
    tolerance = _tolerance(params, shapes, trace)
    differences = _differences(ours, truth, max(_SMALL, tolerance))
    leaves = []
    for (path, node), difference, rows, norm in zip(nodes, differences, truth, norms):
        name = leaf_name(path)
        how = _how(node, reasons.get(name, "no rule"))
        is_zero = not (np.any(rows) or np.any(norm))
        kind, shape = type(node).__name__, tuple(node.shape)
        leaves.append(LeafCheck(name, shape, kind, how, _size(node), difference, is_zero))
    return LossCheck(
        tuple(leaves),
        m,
        len(index),
        tolerance,
        tuple(batch_statistics.find(trace, len(jax.tree.leaves(params)))),
        tuple(index[_not_finite([_lengths(rows) for rows in truth])].tolist()),
        None if step is None else _compared(mean, step),
    )


def _nodes_and_reasons(transform, params, batch):
    """The gradients' nodes, abstract, and why leaves are recomputed: {name: primitive}."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, nodes = jax.eval_shape(transform, params, batch)
    reasons: dict[str, str] = {}
    for w in caught:
        if isinstance(w.message, RecomputedWarning):
            reasons |= w.message.reasons
        else:
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
    return nodes, reasons


def _trace(loss, has_aux, params, batch):
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch)
    value = (lambda p, e: loss(p, e)[0]) if has_aux else loss
    return jax.make_jaxpr(value)(params, example)


def _compared(mean, gradient):
    """How far the mean gradient is from that of the step's loss, relative to its length.

    The same after the best scaling; the scaling.
    """
    ours, step = _flat(mean), _flat(gradient)
    length, square = np.linalg.norm(step), float(ours @ ours)
    factor = float(ours @ step) / square if square else math.nan
    relative = lambda rest: float(np.linalg.norm(rest) / length) if length else math.inf
    return StepCheck(relative(step - ours), relative(step - factor * ours), factor)


def _flat(tree):
    return np.concatenate([_float64(x).ravel() for x in jax.tree.leaves(tree)])


def _not_finite(norms):
    """Places of the examples with a norm, in any leaf, that is nan or infinite."""
    return np.flatnonzero(~np.isfinite(np.stack([_float64(n) for n in norms])).all(0))


def _is_node(x):
    return isinstance(x, Factored | Stacked | Recomputed)


def _norms_and_mean(gradients):
    return _norms(gradients), reductions.mean(gradients)


def _norms(gradients):
    return [norms for _, norms in reductions.leaf_squared_norms(gradients)]


def _reduced(gradients):
    """Rows, squared norms and sum of each leaf: three ways through the rules."""
    return (
        jax.tree.leaves(materialize(gradients)),
        _norms(gradients),
        jax.tree.leaves(reductions.total(gradients)),
    )


def _looped(loss, has_aux, params, few, n):
    """Rows of each leaf, [n, ...] in float64, one example after the other."""
    gradient = jax.jit(jax.grad(loss, has_aux=has_aux))
    rows = []
    for i in range(n):
        row = gradient(params, jax.tree.map(lambda x: x[i], few))
        row = row[0] if has_aux else row
        rows.append(list(map(_float64, jax.tree.leaves(row))))
    return [np.stack(leaf) for leaf in zip(*rows)]


def _differences(ours, truth, small):
    """The largest difference of each leaf.

    Examples that `jax.grad` finds not finite are left out, if ours are so in the same places.
    """
    finite = np.isfinite(np.stack([_lengths(t) for t in truth])).all(0)
    largest = max(_largest(t[finite]) for t in truth)
    longest = max(_largest(_lengths(t[finite])) for t in truth)
    differences = []
    for rows, norms, total, true in zip(*ours, truth):
        rows, norms = _float64(rows), _float64(norms)
        if not np.array_equal(np.isfinite(rows[~finite]), np.isfinite(true[~finite])):
            differences.append(math.nan)
            continue
        rows, norms, true = rows[finite], norms[finite], true[finite]
        total = _float64(total) if finite.all() else true.sum(0)
        lengths = _lengths(true)
        scale = max(_largest(true), small * largest)
        of_leaf = (
            _relative(rows - true, scale),
            _relative(np.sqrt(norms) - lengths, max(_largest(lengths), small * longest)),
            _relative(total - true.sum(0), scale * len(true)),
        )
        differences.append(max(of_leaf, key=lambda x: (math.isnan(x), x)))
    return differences


def _relative(difference, scale):
    largest = _largest(difference)
    if scale:
        return largest / scale
    return 0.0 if largest == 0 else math.inf


def _largest(x):
    return float(np.abs(x).max(initial=0.0))


def _lengths(rows):
    return np.sqrt((rows.reshape(len(rows), -1) ** 2).sum(1))


def _float64(x):
    return np.asarray(x).astype(np.float64)


def _tolerance(params, nodes, trace):
    """The square root of the coarsest precision in sight.

    Rounding stays below it, a wrong rule does not.
    """
    nodes = [n for n in jax.tree.leaves(nodes, is_leaf=_is_node) if not isinstance(n, Recomputed)]
    dtypes = {jnp.result_type(x) for x in (*jax.tree.leaves(params), *jax.tree.leaves(nodes))}
    precision = lambda dtype: float(jnp.finfo(dtype).eps)
    outside = [precision(dtype) for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    inside = map(precision, jax_internals.float_dtypes(trace.jaxpr))
    return max([*outside, *(eps for eps in inside if eps <= _HALF)]) ** 0.5


def _how(node, reason):
    if isinstance(node, Recomputed):
        return f"recomputed ({reason})"
    if isinstance(node, Stacked):
        return "rows"
    factors = lambda term: f"{_dims(term.inputs)} x {_dims(term.cotangents)}"
    terms = [f"{type(term).__name__} {factors(term)}" for term in node.terms]
    return " + ".join(terms) or "unused"


def _dims(x):
    """[m, B, T, K] without the axes of size 1 in the middle."""
    m, *middle, last = x.shape
    return str([m, *(n for n in middle if n != 1), last])


def _size(node):
    """Bytes of what a node keeps for itself."""
    if isinstance(node, Recomputed):
        return 0
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(node))
