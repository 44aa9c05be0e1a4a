"""Per-example gradients of a user's own loss: how every leaf gets them, at what memory, and whether they are right."""

import math
import operator
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from coherence.gradients import (
    Factored,
    Recomputed,
    RecomputedWarning,
    Stacked,
    batch_statistics,
    materialize,
    per_example_value_and_grad,
    reductions,
)
from coherence.trees import Loss, PyTree
from coherence.trees import leaf as leaf_name

from .reports import LeafCheck, LossCheck

_SMALL = 1e-2  # of the largest entry of any leaf: below it differences count as rounding of the others, not of the leaf's own


def check_loss(
    loss: Loss, params: PyTree, batch: PyTree, *, examples: int = 4, has_aux: bool = False
) -> LossCheck:
    """How every leaf of a model gets its per-example gradients, at what memory, and whether they are right.

    Compares rows, norms and sums of a few examples with a Python loop of `jax.grad`, looks over the
    whole batch for leaves whose gradients are exactly zero, and into the loss for a batch norm that
    sees one example (which is reported here, not raised). Costs one compilation of the transform
    and one of `jax.grad`: run it once, on your own model, before you trust a number.

    That a loss is *one* example's cannot be checked: it is given nothing else.

    Args:
        loss: `(params, example) -> scalar` for ONE example, with `has_aux` `-> (scalar, aux)`.
        params: a pytree of floating-point arrays.
        batch: a pytree whose leaves share a leading axis of m examples.
        examples: how many to compare with `jax.grad`, spread over the batch.
        has_aux: whether the loss returns auxiliary values.

    Returns:
        A `LossCheck`: prints as a table; `.ok`, `.problems`, `.leaves`, `.fast_share`.

    Raises:
        ValueError: `examples` < 1, or whatever `per_example_value_and_grad` refuses.

    >>> check = check_loss(lambda p, x: jnp.tanh(x @ p["w"]).sum(), {"w": jnp.ones((3, 2))}, jnp.eye(3))
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
    paths = [
        (leaf_name(path), node)
        for path, node in jax.tree.leaves_with_path(shapes, is_leaf=_is_node)
    ]
    m = paths[0][1].m
    index = np.unique(np.linspace(0, m - 1, min(examples, m)).round().astype(int))
    few = jax.tree.map(lambda x: x[index], batch)
    with warnings.catch_warnings(), jax.default_matmul_precision("highest"):
        warnings.simplefilter("ignore", RecomputedWarning)  # the table says it
        norms = jax.jit(lambda p, b: _norms(transform(p, b)[1]))(params, batch)
        ours = jax.jit(lambda p, b: _reduced(transform(p, b)[1]))(params, few)
        truth = _looped(loss, has_aux, params, few, len(index))
    differences = _differences(ours, truth)
    leaves = [
        LeafCheck(
            name,
            tuple(node.shape),
            type(node).__name__,
            _how(node, reasons.get(name, "no rule")),
            0 if isinstance(node, Recomputed) else _size(node),
            difference,
            not (np.any(rows) or np.any(norm)),
        )
        for (name, node), difference, rows, norm in zip(paths, differences, truth, norms)
    ]
    return LossCheck(
        tuple(leaves),
        m,
        len(index),
        _tolerance(params, shapes),
        _batch_statistics(loss, has_aux, params, batch),
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


def _batch_statistics(loss, has_aux, params, batch):
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch)
    value = (lambda p, e: loss(p, e)[0]) if has_aux else loss
    return tuple(
        batch_statistics.find(jax.make_jaxpr(value)(params, example), len(jax.tree.leaves(params)))
    )


def _is_node(x):
    return isinstance(x, Factored | Stacked | Recomputed)


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
        one = gradient(params, jax.tree.map(lambda x: x[i], few))
        rows.append([_float64(x) for x in jax.tree.leaves(one[0] if has_aux else one)])
    return [np.stack(leaf) for leaf in zip(*rows)]


def _differences(ours, truth):
    largest = max(_largest(t) for t in truth)
    longest = max(_largest(_lengths(t)) for t in truth)
    found = []
    for rows, norms, total, true in zip(*ours, truth):
        lengths = _lengths(true)
        scale = max(_largest(true), _SMALL * largest)
        found.append(
            max(
                _relative(_float64(rows) - true, scale),
                _relative(
                    np.sqrt(_float64(norms)) - lengths, max(_largest(lengths), _SMALL * longest)
                ),
                _relative(_float64(total) - true.sum(0), scale * len(true)),
                key=lambda x: (math.isnan(x), x),
            )
        )
    return found


def _relative(difference, scale):
    largest = _largest(difference)
    return largest / scale if scale else (0.0 if largest == 0 else math.inf)


def _largest(x):
    return float(np.abs(x).max(initial=0.0))


def _lengths(rows):
    return np.sqrt((rows.reshape(len(rows), -1) ** 2).sum(1))


def _float64(x):
    return np.asarray(x).astype(np.float64)


def _tolerance(params, nodes):
    """The square root of the coarsest precision in sight: rounding stays below it, a wrong rule does not."""
    nodes = [n for n in jax.tree.leaves(nodes, is_leaf=_is_node) if not isinstance(n, Recomputed)]
    dtypes = {jnp.result_type(x) for x in (*jax.tree.leaves(params), *jax.tree.leaves(nodes))}
    return max(float(jnp.finfo(d).eps) for d in dtypes if jnp.issubdtype(d, jnp.floating)) ** 0.5


def _how(node, reason):
    if isinstance(node, Recomputed):
        return f"recomputed ({reason})"
    if isinstance(node, Stacked):
        return "rows"
    return (
        " + ".join(
            f"{type(t).__name__} {_dims(t.inputs)} x {_dims(t.cotangents)}" for t in node.terms
        )
        or "unused"
    )


def _dims(x):
    """[m, B, T, K] without the axes of size 1 in the middle."""
    m, *middle, last = x.shape
    return str([m, *(n for n in middle if n != 1), last])


def _size(node):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(node))
