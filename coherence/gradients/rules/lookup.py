"""Embeddings: rows of a table, however the indexing is spelled."""

import math

import jax.numpy as jnp
from jax.lax import GatherScatterMode

from coherence import jax_internals
from coherence.gradients.layout import reshaping, transposition
from coherence.gradients.terms import Looked


def gather(equation, place):
    """G[v] = sum over look-ups t of row v of dy[t]; several indexed dimensions count as one, the others are the row."""
    numbers, slice_sizes, mode = jax_internals.gather(equation)
    table = equation.invars[0].aval
    looked = tuple(numbers.start_index_map)
    whole = all(
        size == (1 if i in looked else table.shape[i]) for i, size in enumerate(slice_sizes)
    )
    if (
        place
        or numbers.operand_batching_dims
        or not whole
        or sorted(looked) != list(numbers.collapsed_slice_dims)
    ):
        return None
    rest = tuple(i for i in range(table.ndim) if i not in looked)
    sizes = [table.shape[i] for i in looked]
    size, n = math.prod(sizes), math.prod(table.shape[i] for i in rest)
    out = tuple(i for i in range(equation.outvars[0].aval.ndim) if i not in numbers.offset_dims)

    def factors(index, dy):
        index = index.reshape(-1, len(looked))
        cotangents = dy.transpose(*out, *numbers.offset_dims).reshape(1, -1, n)
        inside = jnp.clip(index, 0, jnp.asarray(sizes, index.dtype) - 1)
        if mode == GatherScatterMode.FILL_OR_DROP:
            cotangents = jnp.where((index == inside).all(1)[:, None], cotangents, 0)
        ids = jnp.zeros(index.shape[0], jnp.int32)
        for axis, length in enumerate(sizes):
            ids = ids * length + inside[:, axis].astype(jnp.int32)
        return Looked(ids[None], cotangents, size=size)

    return (transposition((*looked, *rest)), reshaping((1, size, n))), factors


def dynamic_slice(equation, place):
    """One row, `table[i]` with a single index: G[v] = dy where v = i. Indices out of range are clipped."""
    table, sizes = equation.invars[0].aval, jax_internals.slice_sizes(equation)
    if place or table.ndim == 0 or sizes[0] != 1 or tuple(sizes[1:]) != table.shape[1:]:
        return None
    size, n = table.shape[0], math.prod(table.shape[1:])

    def factors(index, dy):
        return Looked(
            jnp.clip(index, 0, size - 1).astype(jnp.int32).reshape(1, 1),
            dy.reshape(1, 1, n),
            size=size,
        )

    return (reshaping((1, size, n)),), factors
