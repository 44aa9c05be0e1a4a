"""Trees of per-example gradients from a rule for coordinates: leaves joined, cut, or alone."""

import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coherence.gradients import layout as layouts
from coherence.gradients import recomputed
from coherence.gradients.factors import Factored, Recomputed, Stacked
from coherence.gradients.reductions import materialize, nodes, streamed

from .coordinates import Coordinates, Formed, Products

# Numbers (16 MiB in float32) that may be formed at a time.
_FORMED = 2**22
# Of a leaf of which every stretch makes all rows again.
_RECOMPUTED = 2**25
# What joining saves is a kernel's compilation; beyond the cache it costs several times the kernel:
# 64-64-64-64-10, m = 100, winsorize(2) takes 1.7 ms a step with 2^19 numbers joined, 0.9 with this
# many. Of 784-256-256-256-10 all but the three large matrices still go together.
_JOINED = 3 * 2**17
# How much larger than its leaf a cover by equal blocks may be, and into how many parts each side of
# the largest leaf may be cut to find the block.
_WASTE = 1.05
_PARTS = 8


def coordinatewise(function: Callable[..., jax.Array]) -> Callable[[Any], Any]:
    """`per-example gradients -> one gradient`, from a function of the values of some coordinates.

    The values are formed a part at a time, in at most some 16 MiB.

    Args:
        function: `[m, D] -> [D]`, each coordinate by itself. Where the gradients have a mask it is
            called with a second argument, bool [m]: the examples that count (the others are zero).

    Raises:
        TypeError: the gradients have a mask, and `function` takes one argument only.

    >>> largest = coordinatewise(lambda values: values.max(0))
    >>> largest({"w": jnp.array([[1.0, 5.0], [3.0, 2.0]])})
    {'w': Array([3., 5.], dtype=float32)}
    """

    def of_formed(coordinates):
        if coordinates.mask is None:
            return function(coordinates.values)
        try:
            inspect.signature(function).bind(coordinates.values, coordinates.mask)
        except TypeError:
            raise TypeError(
                "coordinatewise(function): the gradients have a mask, but the function takes one "
                "argument. Let it take the mask, too: function(values [m, D], mask [m])."
            ) from None
        return function(coordinates.values, coordinates.mask)

    def of_coordinates(coordinates):
        if isinstance(coordinates, Formed):
            return coordinates.by_tiles(of_formed)
        return coordinates.by_inputs(of_formed)

    return over_coordinates(of_coordinates)


def over_coordinates(function: Callable[[Coordinates], jax.Array]) -> Callable[[Any], Any]:
    """`per-example gradients -> one gradient`, from a function that treats all coordinates alike.

    `function` takes `Formed` and returns [D], or `Products` and returns [L, K, N]. It does not know
    which leaf a coordinate is of, so the smallest leaves are joined into one, and larger ones cut
    into blocks of one shape where they fit: what costs is compiling one more kernel.

    >>> from coherence.optim.order_statistics import winsorized_mean
    >>> winsorized = over_coordinates(lambda leaf: winsorized_mean(leaf, 1))
    >>> winsorized({"w": jnp.array([[1.0], [2.0], [9.0]])})["w"].tolist()
    [2.0]
    """

    def combine(gradients):
        pairs, treedef = nodes(gradients)
        leaves = [node for _, node in pairs]
        results: list[Any] = [None] * len(leaves)
        small, products, others = _sorted(leaves)
        for group in small:
            for i, value in zip(group, _joined([leaves[i] for i in group], function)):
                results[i] = value
        for block, group in products:
            for i, value in zip(group, _in_blocks([leaves[i] for i in group], block, function)):
                results[i] = value
        for i in others:
            results[i] = _alone(leaves[i], function)
        shaped = [r.reshape(x.shape).astype(x.dtype) for r, x in zip(results, leaves)]
        return treedef.unflatten(shaped)

    return combine


class _Block(NamedTuple):
    """A shape that outer products are cut into, the last parts filled up."""

    height: int
    width: int

    def counts(self, height: int, width: int) -> tuple[int, int]:
        return -(-height // self.height), -(-width // self.width)

    def fits(self, height: int, width: int) -> bool:
        cover = math.prod(self.counts(height, width)) * self.height * self.width
        return cover <= _WASTE * height * width


def _sorted(leaves):
    """Indices of the leaves: groups to join, outer products with their blocks, and the others."""
    small: dict[Any, list[int]] = {}
    products: dict[Any, list[int]] = {}
    others = []
    room = _JOINED
    for i in sorted(range(len(leaves)), key=lambda i: math.prod(leaves[i].shape)):
        leaf = leaves[i]
        room -= leaf.m * math.prod(leaf.shape)
        if room >= 0:
            small.setdefault(jnp.dtype(leaf.dtype), []).append(i)
        elif (factors := _rank_one(leaf)) is not None:
            products.setdefault(tuple(x.dtype for x in factors[:2]), []).append(i)
        else:
            others.append(i)
    blocks = []
    for group in products.values():
        factors = {i: _rank_one(leaves[i]) for i in group}
        blocks += _in_groups({i: (a.shape[1], d.shape[1]) for i, (a, d, _) in factors.items()})
    return small.values(), blocks, others


def _in_groups(shapes):
    """`[(block, indices)]`: the largest leaf and what fits into blocks of it; then the rest."""
    groups = []
    while shapes:
        height, width = max(shapes.values(), key=math.prod)
        parts = itertools.product(range(1, _PARTS + 1), repeat=2)
        blocks = [_Block(-(-height // p), -(-width // q)) for p, q in parts]
        covered = lambda block: [i for i, shape in shapes.items() if block.fits(*shape)]
        # Of equally useful blocks the largest: fewer copies of the factors.
        best = max(blocks, key=lambda block: (len(covered(block)), math.prod(block)))
        groups.append((best, covered(best)))
        shapes = {i: shape for i, shape in shapes.items() if i not in groups[-1][1]}
    return groups


def _rank_one(leaf):
    """`Factored.rank_one`, in the leaf's dtype at least: half precision would lose products."""
    factors = leaf.rank_one if isinstance(leaf, Factored) else None
    if factors is None:
        return None
    inputs, cotangents, layout = factors
    dtype = jnp.result_type(inputs, cotangents, leaf.dtype)
    return inputs.astype(dtype), cotangents.astype(dtype), layout


def _joined(leaves, function):
    rows = [_rows(leaf) for leaf in leaves]
    # The barrier keeps the backward pass out of the kernel's loop, where XLA would compute it again
    # for every coordinate.
    values = jax.lax.optimization_barrier(jnp.concatenate(rows, 1) if len(rows) > 1 else rows[0])
    result = function(Formed(values, leaves[0].mask))
    return jnp.split(result, np.cumsum([row.shape[1] for row in rows[:-1]]))


def _in_blocks(leaves, block, function):
    """Outer products of several leaves as a stack of equally shaped ones."""
    factors = [_rank_one(leaf) for leaf in leaves]
    inputs, cotangents, counts = [], [], []
    for a, d, _ in factors:
        high, wide = block.counts(a.shape[1], d.shape[1])
        counts.append((high, wide))
        inputs.append(jnp.repeat(_cut(a, block.height, high), wide, 0))
        cotangents.append(jnp.tile(_cut(d, block.width, wide), (high, 1, 1)))
    a, d = jax.lax.optimization_barrier((jnp.concatenate(inputs), jnp.concatenate(cotangents)))
    result = function(Products(a, d, leaves[0].mask))
    ends = np.cumsum([math.prod(count) for count in counts[:-1]])
    gradients = []
    for leaf, (a, d, layout), (high, wide), part in zip(
        leaves, factors, counts, jnp.split(result, ends)
    ):
        grid = part.reshape(high, wide, *block).swapaxes(1, 2)
        whole = grid.reshape(high * block.height, wide * block.width)
        gradient = whole[: a.shape[1], : d.shape[1]]
        gradients.append(_pull_back(leaf, layout, gradient[None]))
    return gradients


def _cut(x, width, count):
    """[m, D] as [count, m, width], filled up with zeros."""
    padded = jnp.pad(x, ((0, 0), (0, count * width - x.shape[1])))
    return padded.reshape(x.shape[0], count, width).swapaxes(0, 1)


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
    if not isinstance(leaf, Stacked) and leaf.m * math.prod(leaf.shape) > _RECOMPUTED:
        return _by_stretches(leaf, function)
    return function(Formed(jax.lax.optimization_barrier(_rows(leaf)), leaf.mask))


def _by_slabs(leaf, function):
    """Sequences and the like: a few output channels formed at a time."""
    (term,) = leaf.terms
    m, b, _, k, n = term.dims
    slabs = term.slabs(_FORMED)
    length = lambda x: jnp.linalg.norm(x.ravel().astype(term.dtype))
    bound = length(term.inputs) * length(term.cotangents)  # Cauchy-Schwarz, over all positions
    slab = lambda cotangents: function(
        Formed(term.form(cotangents).reshape(m, -1), leaf.mask, bound)
    ).reshape(b, k, -1)
    if len(slabs) == 1:
        result = slab(slabs[0])[:, :, None]
    else:
        result = jnp.moveaxis(jax.lax.map(slab, slabs), 0, 2)
    return _pull_back(leaf, term.layout, result.reshape(b, k, n))


def _by_stretches(leaf, function):
    """Leaves without a rule, or of several terms: all are made again for each stretch."""
    size = math.prod(leaf.shape)
    width = max(1, _RECOMPUTED // leaf.m)
    starts = jnp.arange(0, size - width, width)

    def stretch(start):
        cut = lambda row: jax.lax.dynamic_slice_in_dim(row.ravel(), start, width)
        if isinstance(leaf, Recomputed):
            values = recomputed.over_examples([leaf], lambda rows: cut(rows[0]))
        else:
            values = streamed(leaf, cut).astype(leaf.dtype)
        return function(Formed(values, leaf.mask))

    last = stretch(size - width)  # overlaps the one before
    return jnp.concatenate(
        [jax.lax.map(stretch, starts).ravel(), last[width * (len(starts) + 1) - size :]]
    )


def _rows(leaf):
    """[m, D], formed."""
    factors = _rank_one(leaf)
    if factors is None:
        return materialize(leaf).reshape(leaf.m, -1)
    inputs, cotangents, layout = factors
    products = inputs[:, :, None] * cotangents[:, None, :]
    return jax.vmap(lambda g: _pull_back(leaf, layout, g[None]))(products).reshape(leaf.m, -1)


def _pull_back(leaf, layout, gradient):
    return layouts.pull_back(layout, leaf.parameter, gradient).astype(leaf.dtype)
