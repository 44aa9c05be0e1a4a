"""From a rule for coordinates to a rule for trees of per-example gradients, leaf by leaf and never larger than it must be."""

import math

import jax
import jax.numpy as jnp

from coherence.gradients import layout as layouts
from coherence.gradients import recomputed
from coherence.gradients.factors import Factored, Recomputed
from coherence.gradients.reductions import materialize, nodes

from .coordinates import Formed, Products

_FORMED = 2**22  # numbers (16 MiB in float32) that may be formed at a time
_RECOMPUTED = (
    2**25
)  # of a leaf without a rule, where every stretch differentiates all examples again
# What joining saves is a kernel's compilation; beyond the cache it costs several times the kernel
# (64-64-64-64-10, m = 100, winsorize(2): 4.1 ms a step with everything joined, 0.6 with 2^18
# numbers and fewer).
_JOINED = 2**18


def coordinatewise(function):
    """`per-example gradients -> one gradient`, from `function(coordinates)` which treats all coordinates alike.

    `function` takes `Formed` and returns [D], or `Products` and returns [L, K, N]. It does not know
    which leaf a coordinate is of, so the smallest leaves are joined into one and equally shaped
    ones stacked: what costs is compiling one more kernel.
    """

    def combine(gradients):
        found, treedef = nodes(gradients)
        leaves = [node for _, node in found]
        results = [None] * len(leaves)
        small, alike, alone = _sorted(leaves)
        for group in small:
            _scatter(results, group, _joined([leaves[i] for i in group], function))
        for group in alike:
            _scatter(results, group, _stacked([leaves[i] for i in group], function))
        for i in alone:
            results[i] = _alone(leaves[i], function)
        return treedef.unflatten(
            [r.reshape(x.shape).astype(x.dtype) for r, x in zip(results, leaves)]
        )

    return combine


def _sorted(leaves):
    """Indices of the leaves: groups to join, groups of equally shaped outer products, and those to treat one by one."""
    small, alike, alone = {}, {}, []
    room = _JOINED
    for i in sorted(range(len(leaves)), key=lambda i: math.prod(leaves[i].shape)):
        leaf = leaves[i]
        room -= leaf.m * math.prod(leaf.shape)
        if room >= 0:
            small.setdefault(jnp.dtype(leaf.dtype), []).append(i)
        elif (one := _rank_one(leaf)) is not None:
            alike.setdefault(tuple((x.shape, x.dtype) for x in one[:2]), []).append(i)
        else:
            alone.append(i)
    return small.values(), alike.values(), alone


def _scatter(results, indices, values):
    for i, value in zip(indices, values):
        results[i] = value


def _rank_one(leaf):
    return leaf.rank_one if isinstance(leaf, Factored) else None


def _joined(leaves, function):
    rows = [_rows(leaf) for leaf in leaves]
    # The barrier keeps the backward pass out of the kernel's loop, where XLA would compute it again
    # for every coordinate.
    values = jax.lax.optimization_barrier(jnp.concatenate(rows, 1) if len(rows) > 1 else rows[0])
    result = function(Formed(values, leaves[0].mask))
    return jnp.split(result, [sum(row.shape[1] for row in rows[:i]) for i in range(1, len(rows))])


def _stacked(leaves, function):
    inputs, cotangents, layout = zip(*(leaf.rank_one for leaf in leaves))
    factors = jax.lax.optimization_barrier((jnp.stack(inputs), jnp.stack(cotangents)))
    result = function(Products(*factors, leaves[0].mask))
    return [
        _pull_back(leaf, step, value[None]) for leaf, step, value in zip(leaves, layout, result)
    ]


def _alone(leaf, function):
    if (
        isinstance(leaf, Factored) and not leaf.terms
    ):  # unused by the loss: every coordinate is zero for every example
        return jnp.broadcast_to(
            function(Formed(jnp.zeros((leaf.m, 1), leaf.dtype), leaf.mask)), leaf.shape
        )
    if (
        isinstance(leaf, Factored)
        and len(leaf.terms) == 1
        and layouts.is_rearrangement(leaf.terms[0].layout)
    ):
        return _by_slabs(leaf, function)
    if isinstance(leaf, Recomputed) and leaf.m * math.prod(leaf.shape) > _RECOMPUTED:
        return _by_stretches(leaf, function)
    return function(Formed(jax.lax.optimization_barrier(_rows(leaf)), leaf.mask))


def _by_slabs(leaf, function):
    """Sequences and the like: a few output channels formed at a time."""
    (term,) = leaf.terms
    m, b, _, k, n = term.dims
    slabs = term.slabs(_FORMED)
    slab = lambda cotangents: function(
        Formed(term.form(cotangents).reshape(m, -1), leaf.mask)
    ).reshape(b, k, -1)
    result = (
        slab(slabs[0])[:, :, None]
        if len(slabs) == 1
        else jnp.moveaxis(jax.lax.map(slab, slabs), 0, 2)
    )
    return _pull_back(leaf, term.layout, result.reshape(b, k, n))


def _by_stretches(leaf, function):
    """Leaves without a rule: all examples are differentiated again for each stretch of coordinates, and only the stretch is kept."""
    size = math.prod(leaf.shape)
    width = max(1, _RECOMPUTED // leaf.m)
    starts = jnp.arange(0, size - width, width)

    def stretch(start):
        cut = lambda rows: jax.lax.dynamic_slice_in_dim(rows[0].ravel(), start, width)
        return function(Formed(recomputed.over_examples([leaf], cut), leaf.mask))

    last = stretch(size - width)  # overlaps the one before
    return jnp.concatenate(
        [jax.lax.map(stretch, starts).ravel(), last[width * (len(starts) + 1) - size :]]
    )


def _rows(leaf):
    """[m, D], formed."""
    one = _rank_one(leaf)
    if one is None:
        return materialize(leaf).reshape(leaf.m, -1)
    inputs, cotangents, layout = one
    products = inputs[:, :, None] * cotangents[:, None, :]
    return jax.vmap(lambda g: _pull_back(leaf, layout, g[None]))(products).reshape(leaf.m, -1)


def _pull_back(leaf, layout, gradient):
    return layouts.pull_back(layout, leaf.parameter, gradient).astype(leaf.dtype)
