"""Reductions of per-example gradients, without the examples x parameters array.

Every function takes a tree of `Factored`, `Stacked` and `Recomputed` nodes, or a plain tree whose
leaves have a leading example axis. Sums are kept in at least float32.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, overload

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from coherence.trees import By, KeyPath, PyTree, leaf_names, splits_layers
from coherence.trees import leaf as leaf_name

from . import layout, recomputed
from .factors import Factored, Node, Recomputed, Stacked, accumulator, is_node
from .jax_internals import zeros_like
from .terms import Looked, Outer

_FORMED = 2**22  # numbers (16 MiB in float32) formed at a time where factors will not do


def nodes(gradients: PyTree) -> tuple[list[tuple[KeyPath, Node]], Any]:
    """`[(path, node)]` and the tree's structure; plain arrays count as `Stacked`.

    Raises:
        ValueError: no leaves, a leaf without an example axis, or leaves that disagree about the
            number of examples.
    """
    paths, treedef = jax.tree.flatten_with_path(gradients, is_leaf=is_node)
    if not paths:
        raise ValueError("gradients hold no leaf: there is nothing to reduce.")
    pairs, sizes = [], {}
    for path, x in paths:
        if not is_node(x):
            if not jnp.ndim(x):
                raise ValueError(
                    f"leaf {leaf_name(path)} has no example axis, got a scalar. Per-example "
                    "gradients have a leading axis of m examples."
                )
            if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
                raise TypeError(
                    f"leaf {leaf_name(path)} is {jnp.result_type(x)}: gradients need floats."
                )
            x = Stacked(jnp.asarray(x))
        pairs.append((path, x))
        sizes[leaf_name(path)] = x.m
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"leaves disagree about the number of examples (their first axis): {sizes}."
        )
    if not next(iter(sizes.values())):
        raise ValueError("gradients are of 0 examples: there is nothing to reduce.")
    return pairs, treedef


def each_leaf(
    gradients: PyTree, leaf: Callable[[Any], Any], group: Callable[[list[Recomputed]], list[Any]]
) -> tuple[list[Any], list[tuple[KeyPath, Node]], Any]:
    """Results leaf by leaf, the pairs of path and node, the tree's structure.

    `leaf(node)` for factors and rows, `group(nodes) -> list` for the recomputed ones, which
    share passes.
    """
    pairs, treedef = nodes(gradients)
    results: dict[int, Any] = {}
    without_rule: dict[int, Recomputed] = {}
    for i, (_, node) in enumerate(pairs):
        if isinstance(node, Recomputed):
            without_rule[i] = node
        else:
            results[i] = leaf(node)
    if without_rule:
        results |= zip(without_rule, group(list(without_rule.values())))
    return [results[i] for i in range(len(pairs))], pairs, treedef


def size(gradients: PyTree) -> int:
    """How many examples the gradients are of, m, masked ones included; static."""
    (_, node), *_ = nodes(gradients)[0]
    return node.m


def mask(gradients: PyTree) -> jax.Array | None:
    """The mask the gradients carry, bool [m], or `None`."""
    (_, node), *_ = nodes(gradients)[0]
    return node.mask


def count(gradients: PyTree) -> int | jax.Array:
    """How many examples count: m, or the mask's sum."""
    keep = mask(gradients)
    return size(gradients) if keep is None else jnp.sum(keep)


@overload
def weighted_sum(gradients: PyTree, weights: ArrayLike, *, by: None = None) -> PyTree: ...
@overload
def weighted_sum(gradients: PyTree, weights: Mapping[str, jax.Array], *, by: By) -> PyTree: ...
def weighted_sum(gradients, weights, *, by=None):
    """sum_i w_i g_i in the parameters' shapes, `weights` [m].

    From the factors at hand: no second backward pass. With `by` ("layer", "leaf" or a function of a
    key path) `weights` is `{name: [m]}`, the names those of `squared_norms(gradients, by=by)`.
    """
    return as_parameters(gradients, wide_weighted_sum(gradients, weights, by=by))


def as_parameters(gradients: PyTree, tree: PyTree) -> PyTree:
    """A tree of the parameters' shapes, rounded to their dtypes."""
    pairs, treedef = nodes(gradients)
    leaves = zip(jax.tree.leaves(tree), pairs)
    return treedef.unflatten([x.astype(node.dtype) for x, (_, node) in leaves])


def wide_weighted_sum(
    gradients: PyTree, weights: ArrayLike | Mapping[str, jax.Array], *, by: By | None = None
) -> PyTree:
    """`weighted_sum` in at least float32: for what is computed with the sum before it is used."""
    if by is not None:
        return _weighted_by(gradients, weights, by)
    results, _, treedef = _weighted(gradients, jnp.asarray(weights))
    return treedef.unflatten(results)


def _weighted_by(gradients, weights, by):
    """`wide_weighted_sum` with weights of each name's own."""
    pairs, treedef = nodes(gradients)
    results: list[Any] = [None] * len(pairs)
    without_rule: dict[str, list[int]] = {}
    for i, (path, node) in enumerate(pairs):
        name = leaf_names(by)(path)
        if isinstance(node, Recomputed):
            without_rule.setdefault(name, []).append(i)
        elif splits_layers(by) and node.scanned:
            each = jnp.stack([weights[f"{name}/{k}"] for k in range(node.shape[0])])
            results[i] = _each_layer(node, _leaf_weighted, each)
        else:
            results[i] = _leaf_weighted(node, weights[name])
    for name, places in without_rule.items():
        group = [pairs[i][1] for i in places]
        for i, result in zip(places, recomputed.weighted_sum(group, weights[name])):
            results[i] = result
    return treedef.unflatten(results)


def total(gradients: PyTree) -> PyTree:
    """sum_i g_i, in the parameters' shapes and dtypes."""
    (_, node), *_ = nodes(gradients)[0]
    return weighted_sum(gradients, jnp.ones(node.m, accumulator(node.dtype)))


def mean_weights(gradients: PyTree) -> jax.Array:
    """The weights [m] of a mean: 1/m each, 0 for masked examples; nan where all are masked."""
    dtype, keep = accumulator(*(node.dtype for _, node in nodes(gradients)[0])), mask(gradients)
    share = 1 / jnp.asarray(count(gradients), dtype)
    if keep is None:
        return jnp.full(size(gradients), share)
    return jnp.where(keep, share, 0 * share)  # keep / count is 0 in XLA where both are


def mean(gradients: PyTree) -> PyTree:
    """The mean gradient, (1/m) sum_i g_i.

    The gradient of the mean loss (of the examples the mask keeps), in the parameters' shapes
    and dtypes.
    """
    return weighted_sum(gradients, mean_weights(gradients))


def mean_of(gradients: PyTree, function: Callable[[jax.Array], jax.Array]) -> PyTree:
    """(1/m) sum_i f(g_i), coordinate by coordinate, in the parameters' shapes, at least float32.

    `function` is as for `weighted_sum_of`.
    """
    return weighted_sum_of(gradients, function, mean_weights(gradients))


def weighted_sum_of(
    gradients: PyTree, function: Callable[[jax.Array], jax.Array], weights: jax.Array
) -> PyTree:
    """sum_i w_i f(g_i), coordinate by coordinate, in the parameters' shapes, at least float32.

    `weights` [m].

    For f with f(x y) = f(x) f(y) and f(0) = 0, such as `jnp.sign`, `jnp.square`, `jnp.abs`: a dense
    layer then needs no more than f of its factors. Sequences go by slabs of columns, leaves without
    a rule by microbatches.
    """
    without_rule = lambda group: recomputed.weighted_sum_of(group, weights, function)
    results, _, treedef = each_leaf(
        gradients, lambda node: _leaf_weighted_sum_of(node, weights, function), without_rule
    )
    return treedef.unflatten(results)


@overload
def squared_norms(gradients: PyTree, *, by: None = None) -> jax.Array: ...
@overload
def squared_norms(gradients: PyTree, *, by: By) -> dict[str, jax.Array]: ...
def squared_norms(gradients, *, by=None):
    """||g_i||^2 for each example, over all leaves: [m].

    With `by` ("layer", "leaf" or a function of a key path) `{name: [m]}`.
    """
    norms: dict = {}
    split = splits_layers(by)
    for path, squares in leaf_squared_norms(gradients, layers=split):
        for name, part in _named(by, path, squares, 2 if split else 1):
            norms[name] = norms[name] + part if name in norms else part
    return norms if by is not None else norms[None]


def leaf_squared_norms(
    gradients: PyTree, *, layers: bool = False
) -> list[tuple[KeyPath, jax.Array]]:
    """`[(path, [m])]`: each leaf's share of ||g_i||^2. With `layers` [L, m] of scanned leaves."""

    def leaf(node):
        if layers and node.scanned:
            squares = _each_layer(node, _leaf_squared_norms)
        else:
            squares = _leaf_squared_norms(node)
        # Over positions it is a sum of products, and rounding may leave a zero a little below.
        return jnp.maximum(squares, 0)

    results, pairs, _ = each_leaf(gradients, leaf, recomputed.squared_norms)
    return [(path, result) for (path, _), result in zip(pairs, results)]


def _named(by: By | None, path: KeyPath, values: jax.Array, ndim: int) -> list[tuple[Any, Any]]:
    """`[(name, values)]` of a leaf, or of the layers of a scanned one (values of `ndim` axes)."""
    name = None if by is None else leaf_names(by)(path)
    if ndim == 1 or values.ndim < ndim:
        return [(name, values)]
    return [(f"{name}/{i}", part) for i, part in enumerate(values)]


def _each_layer(node: Any, function: Callable[..., jax.Array], *others: Any) -> jax.Array:
    """[L, ...]: `function` of the node of each layer of a scanned leaf."""
    if isinstance(node, Stacked) or any(len(term.layout) > 1 for term in node.terms):
        layers: Any = Stacked(jnp.moveaxis(_form(node), 1, 0))
        return jax.vmap(function)(layers, *others)
    count = node.shape[0]

    def split(x, axis):
        axis = axis + 1 if axis >= 0 else axis % x.ndim
        return jnp.moveaxis(x.reshape(*x.shape[:axis], count, -1, *x.shape[axis + 1 :]), axis, 0)

    terms = []
    for term in node.terms:
        inputs, cotangents = term.batches
        inputs, cotangents = split(term.inputs, inputs), split(term.cotangents, cotangents)
        layout = term.layout[0].layout
        terms.append(dataclasses.replace(term, inputs=inputs, cotangents=cotangents, layout=layout))
    layers = Factored(tuple(terms), None, node.shape[1:], node.dtype, node.m)
    return jax.vmap(function)(layers, *others)


def leaf_weighted_sums(gradients: PyTree, weights: jax.Array) -> list[tuple[KeyPath, jax.Array]]:
    """`[(path, sum_i w_i g_i)]`, kept in at least float32."""
    results, pairs, _ = _weighted(gradients, weights)
    return [(path, result) for (path, _), result in zip(pairs, results)]


@overload
def dot(gradients: PyTree, tree: PyTree, *, by: None = None) -> jax.Array: ...
@overload
def dot(gradients: PyTree, tree: PyTree, *, by: By) -> dict[str, jax.Array]: ...
def dot(gradients, tree, *, by=None):
    """g_i . v for each example: [m]; `tree` is v, in the parameters' shapes.

    With `by` `{name: [m]}`, the layers' shares.
    """
    pairs, _ = nodes(gradients)
    vectors = jax.tree.leaves(tree)
    shapes = [tuple(node.shape) for _, node in pairs]
    if [jnp.shape(v) for v in vectors] != shapes:
        raise ValueError(
            f"dot(gradients, tree): tree must have the parameters' shapes {shapes}, got "
            f"{[jnp.shape(v) for v in vectors]}."
        )
    unsplit: dict = {}
    dots: dict = {}
    for (path, node), v in zip(pairs, vectors):
        if splits_layers(by) and not isinstance(node, Recomputed) and node.scanned:
            layers = _each_layer(node, _leaf_dot, jnp.asarray(v))
            for name, part in _named(by, path, layers, 2):
                dots[name] = dots[name] + part if name in dots else part
        else:
            name = None if by is None else leaf_names(by)(path)
            unsplit.setdefault(name, []).append((node, v))
    for name, pairs_of_name in unsplit.items():
        share = _dot(pairs_of_name)
        dots[name] = dots[name] + share if name in dots else share
    return dots if by is not None else dots[None]


def _dot(pairs):
    parts = [_leaf_dot(node, v) for node, v in pairs if not isinstance(node, Recomputed)]
    without_rule = [(node, v) for node, v in pairs if isinstance(node, Recomputed)]
    if without_rule:
        parts.append(recomputed.dot(*map(list, zip(*without_rule))))
    return sum(parts)


def gram(gradients: PyTree, others: PyTree | None = None) -> jax.Array:
    """g_i . g_j for each pair of examples: [m, m]; with `others` g_i . h_j: [m, n].

    `others` are per-example gradients of the same parameters, of n other examples.

    Raises:
        ValueError: `others` are of other parameters.
    """
    pairs, _ = nodes(gradients)
    columns = pairs if others is None else nodes(others)[0]
    shapes = [[tuple(node.shape) for _, node in side] for side in (pairs, columns)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"gram(gradients, others): both are of the same parameters, got shapes {shapes[0]} "
            f"and {shapes[1]}."
        )
    both = [(node, other) for (_, node), (_, other) in zip(pairs, columns)]
    parts = [_leaf_gram(*pair) for pair in both if not isinstance(pair[1], Recomputed)]
    without_rule = [pair for pair in both if isinstance(pair[1], Recomputed)]
    if without_rule:
        parts.append(recomputed.gram(*map(list, zip(*without_rule))))
    return sum(parts)


def rows(gradients: PyTree, index: ArrayLike) -> PyTree:
    """The formed gradients of a few examples: leaves [len(index), ...]."""
    return materialize(take(gradients, jnp.asarray(index)))


def take(gradients: PyTree, index: jax.Array | slice) -> PyTree:
    """The gradients of a few examples, not formed; `index` [n] or a slice."""
    pairs, treedef = nodes(gradients)
    return treedef.unflatten([_take(node, index) for _, node in pairs])


def materialize(gradients: PyTree) -> PyTree:
    """The formed gradients of every example, leaves [m, ...]: what the rest of this file avoids.

    >>> from coherence.gradients import Stacked
    >>> materialize({"w": Stacked(jnp.eye(2))})["w"].shape
    (2, 2)
    """
    results, _, treedef = each_leaf(gradients, _form, recomputed.materialize)
    return treedef.unflatten(results)


# One leaf: rows are a matrix, terms answer for themselves (`coherence.gradients.terms`) and meet
# through their layouts here.


def _weighted(gradients, weights):
    return each_leaf(
        gradients,
        lambda node: _leaf_weighted(node, weights),
        lambda group: recomputed.weighted_sum(group, weights),
    )


def _leaf_weighted(node, weights):
    dtype = accumulator(node.dtype)
    w = weights.astype(dtype)
    if isinstance(node, Stacked):
        # XLA's CPU reduction over a leading axis is slow; a product with the weights is not.
        return (w @ node.values.reshape(node.m, -1).astype(dtype)).reshape(node.shape)
    parameter = jax.ShapeDtypeStruct(node.shape, dtype)
    parts = [
        layout.pull_back(term.layout, parameter, term.weighted_sum(w), held)
        for term, held in zip(node.terms, node.held)
    ]
    return sum(parts[1:], parts[0]) if parts else jnp.zeros(node.shape, dtype)


def _leaf_weighted_sum_of(node, weights, function):
    dtype = accumulator(node.dtype)
    w = weights.astype(dtype)

    def rows(values):
        images = function(values.reshape(node.m, -1).astype(dtype))
        return (w @ images).reshape(values.shape[1:])

    if isinstance(node, Stacked):
        return rows(node.values)
    if not node.terms:
        return jnp.zeros(node.shape, dtype)
    parameter = jax.ShapeDtypeStruct(node.shape, dtype)
    if len(node.terms) != 1 or not layout.is_rearrangement(node.terms[0].layout):
        weighted = lambda terms, weight: weight * function(_formed_one(node, terms))
        first = jax.eval_shape(weighted, *jax.tree.map(lambda x: x[0], (node.terms, w)))
        add = lambda carry, pair: (carry + weighted(*pair), None)
        return jax.lax.scan(add, zeros_like(first), (node.terms, w))[0]
    (term,) = node.terms
    if isinstance(term, Outer) and term.dims[2] == 1:
        inputs = function(term.inputs[:, :, 0].astype(dtype))
        cotangents = function(term.cotangents[:, :, 0].astype(dtype))
        total = jnp.einsum("mbk,mbn->bkn", inputs, cotangents * w[:, None, None])
        return layout.pull_back(term.layout, parameter, total)
    slabs = term.slabs(_FORMED)
    each = lambda slab: rows(term.form(slab))
    result = each(slabs[0])[None] if len(slabs) == 1 else jax.lax.map(each, slabs)
    return layout.pull_back(
        term.layout, parameter, jnp.moveaxis(result, 0, 2).reshape(term.dims[1], *term.dims[3:])
    )


def _leaf_squared_norms(node):
    dtype = accumulator(node.dtype)
    if isinstance(node, Stacked):
        return jnp.sum(jnp.square(node.values.reshape(node.m, -1).astype(dtype)), 1)
    if not node.terms:
        return jnp.zeros(node.m, dtype)
    if (isometric := _isometric(node)) is not None:
        term, factor = isometric
        return term.squared_norms() * factor**2
    if (scales := _scales(node)) is not None:
        (term,) = node.terms
        a, d = (x[:, :, 0].astype(dtype) for x in (term.inputs, term.cotangents))
        squares = jnp.einsum("mbk,bkn->mbn", jnp.square(a), jnp.square(scales))
        return jnp.sum(squares * jnp.square(d), (1, 2))
    if (inner := _inner_of_tied(node)) is not None:
        return sum(term.squared_norms() for term in node.terms) + 2 * inner
    return streamed(node, lambda g: jnp.sum(jnp.square(g)))


def _leaf_dot(node, vector):
    dtype = accumulator(node.dtype)
    if isinstance(node, Stacked):
        return node.values.reshape(node.m, -1).astype(dtype) @ jnp.ravel(vector).astype(dtype)
    vector = jnp.asarray(vector, dtype)
    parts = [
        term.dot(layout.forward(term.layout, vector, held))
        for term, held in zip(node.terms, node.held)
    ]
    return sum(parts, jnp.zeros(node.m, dtype))


def _leaf_gram(node, other):
    dtype = accumulator(node.dtype)
    if isinstance(node, Stacked) and isinstance(other, Stacked):
        rows, columns = (x.values.reshape(x.m, -1).astype(dtype) for x in (node, other))
        return rows @ columns.T
    if isinstance(node, Stacked):
        return jax.lax.map(lambda g: _leaf_dot(other, g), node.values)
    if isinstance(other, Stacked):
        return _leaf_gram(other, node).T
    if not node.terms or not other.terms:
        return jnp.zeros((node.m, other.m), dtype)
    one, two = _isometric(node), _isometric(other)
    if one is not None and two is not None and _alike(one[0], two[0]):
        return one[0].gram(two[0]) * one[1] ** 2
    return streamed(node, lambda g: _leaf_dot(other, g))


def _alike(term: Any, other: Any) -> bool:
    """Whether two terms are of the same meeting: what they form has the same order of numbers."""
    structures: Any = [jax.tree.structure(each) for each in (term, other)]
    return structures[0] == structures[1]


def _isometric(node):
    """The leaf's only term, and the factor by which its layout stretches every norm, where it
    has one; else `None`."""
    term, *others = node.terms
    factor = layout.scale(term.layout)
    return None if others or factor is None else (term, factor)


def _scales(node):
    """Of a leaf that meets one vector an example through a product by coordinates, such as a mask:
    the factors [B, K, N], else `None`."""
    term, *others = node.terms
    products = layout.Scaling | layout.Times
    rest = tuple(step for step in term.layout if not isinstance(step, products))
    if others or not isinstance(term, Outer) or term.dims[2] != 1:
        return None
    if not layout.is_rearrangement(rest):
        return None
    return layout.forward(term.layout, jnp.ones(node.shape, accumulator(node.dtype)), *node.held)


def _inner_of_tied(node):
    """The inner product of the two terms of a tied embedding, else `None`.

    A table is looked up and multiplied with: G_i . H_i.
    """
    looked, *others = sorted(node.terms, key=lambda term: not isinstance(term, Looked))
    if (
        len(others) != 1
        or not isinstance(looked, Looked)
        or not isinstance(others[0], Outer)
        or others[0].dims[1] != 1
    ):
        return None
    (dense,) = others
    orders = [layout.is_transposed(term.layout, node.shape) for term in (looked, dense)]
    if None in orders or orders[0]:
        return None
    sides = dense.inputs[:, 0], dense.cotangents[:, 0]
    return looked.dot_outer(*(sides[::-1] if orders[1] else sides))


def streamed(node, reduce):
    """`reduce(gradient of one example)` for every example, a few formed rows at a time."""
    size = max(1, _FORMED // max(1, math.prod(node.shape)))
    each = lambda terms: reduce(_formed_one(node, terms))
    if size >= node.m:
        return jax.vmap(each)(node.terms)
    return jax.lax.map(each, node.terms, batch_size=size)


def _formed_one(node, terms):
    """One example's gradient from its own part of the terms, in at least float32."""
    parameter = jax.ShapeDtypeStruct(node.shape, accumulator(node.dtype))
    terms = jax.tree.map(lambda x: x[None], terms)
    return sum(term.rows(parameter, held)[0] for term, held in zip(terms, node.held))


def _form(node):
    if isinstance(node, Stacked):
        return node.values
    rows = [term.rows(node.parameter, held) for term, held in zip(node.terms, node.held)]
    return sum(rows[1:], rows[0]) if rows else jnp.zeros((node.m, *node.shape), node.dtype)


def _take(node, index):
    mask = None if node.mask is None else node.mask[index]
    if isinstance(node, Stacked):
        return dataclasses.replace(node, values=node.values[index], mask=mask)
    if isinstance(node, Recomputed):
        batch = jax.tree.map(lambda x: x[index], node.batch)
        return dataclasses.replace(node, batch=batch, mask=mask)
    terms = tuple(term.take(index) for term in node.terms)
    m = len(range(node.m)[index]) if isinstance(index, slice) else len(index)
    return dataclasses.replace(node, terms=terms, mask=mask, m=m)
