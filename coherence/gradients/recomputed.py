"""Reductions of leaves without a rule, which are differentiated again, a microbatch at a time.

Several such leaves of one tree share the passes. Every function takes the group (a list of
`Recomputed` from one call of `per_example_value_and_grad`) and returns one entry a leaf.
"""

import math

import jax
import jax.numpy as jnp

from .factors import accumulator
from .jax_internals import contains, zeros_like

_ROWS_IN_MEMORY = 2**24  # numbers a default microbatch of formed rows may hold (64 MiB in float32)


def _losses(group, batch, keep):
    """leaves of the group -> their losses, masked ones zero."""
    first = group[0]
    leaves, treedef = jax.tree.flatten(first.params)
    indices = [leaf.index for leaf in group]

    def losses(values):
        filled = list(leaves)
        for i, value in zip(indices, values):
            filled[i] = value
        each = jax.vmap(
            lambda example: first.loss(jax.tree.unflatten(treedef, filled), example, *first.consts)
        )(batch)
        return each if keep is None else jnp.where(keep, each, 0)

    return losses, [leaves[i] for i in indices]


def _row(group, example, keep):
    """One example's gradient of each leaf of the group."""
    batch = jax.tree.map(lambda x: x[None], example)
    losses, values = _losses(group, batch, None if keep is None else keep[None])
    rows = jax.grad(lambda v: losses(v)[0])(values)
    # A backward pass that somebody wrote may make something of no cotangent.
    return rows if keep is None else [jnp.where(keep, row, 0) for row in rows]


def _goes_forward(group):
    """Whether the loss has a forward derivative: no `custom_vjp`, which has none.

    Nor need that one be linear in its cotangents.
    """
    losses, values = _losses(group, group[0].batch, group[0].mask)
    return not contains(jax.make_jaxpr(losses)(values).jaxpr, "custom_vjp_call")


def _microbatch(group):
    """How many examples' rows are held at a time."""
    size = sum(math.prod(leaf.shape) for leaf in group)
    return group[0].microbatch_size or max(1, _ROWS_IN_MEMORY // max(size, 1))


def over_examples(group, reduce):
    """`reduce(rows of the group for one example)` for every example, a microbatch of rows at a
    time."""
    return _over_examples(group, lambda pair: reduce(_row(group, *pair)), _microbatch(group))


def _over_examples(group, function, size):
    """`function((example, its entry of the mask))` for every example.

    `size` at a time; `None` is all at once.
    """
    first = group[0]
    if size is None or size >= first.m:
        return jax.vmap(function)((first.batch, first.mask))
    return jax.lax.map(function, (first.batch, first.mask), batch_size=size)


def squared_norms(group):
    return over_examples(
        group, lambda rows: [jnp.sum(jnp.square(r.astype(accumulator(r.dtype)))) for r in rows]
    )


def materialize(group):
    return over_examples(group, lambda rows: rows)


def _is_low(group):
    """Whether the loss or a leaf is in half precision: then sums over examples take rows.

    A plain gradient of the weighted loss, or a forward derivative, adds up in its dtype.
    """
    losses, values = _losses(group, group[0].batch, group[0].mask)
    loss = jax.eval_shape(losses, values)
    return any(accumulator(x.dtype) != x.dtype for x in (loss, *values))


def weighted_sum(group, weights):
    """One plain gradient of the weighted loss: sums need no rows."""
    if _is_low(group) or not _goes_forward(group):
        return weighted_sum_of(group, weights, lambda rows: rows)

    def part(batch, keep, w):
        losses, values = _losses(group, batch, keep)
        return jax.grad(lambda v: jnp.sum(losses(v) * w))(values)

    return _summed(group, weights, part, group[0].microbatch_size)


def weighted_sum_of(group, weights, function):
    """sum_i w_i f(g_i), a microbatch of rows at a time."""

    def part(batch, keep, w):
        rows = jax.vmap(lambda pair: _row(group, *pair))((batch, keep))
        return [
            jnp.einsum("m,m...->...", w, function(r.astype(accumulator(r.dtype)))) for r in rows
        ]

    return _summed(group, weights, part, _microbatch(group))


def _summed(group, weights, part, size):
    """The sum of `part(batch, mask, weights)` over microbatches of `size` examples (all)."""
    first = group[0]
    everything = (first.batch, first.mask, weights)
    if size is None or size >= first.m:
        return part(*everything)
    whole = first.m - first.m % size
    head = jax.tree.map(lambda x: x[:whole].reshape(-1, size, *x.shape[1:]), everything)
    zeros = jax.tree.map(
        zeros_like,
        jax.eval_shape(part, *jax.tree.map(lambda x: x[0], head)),
    )
    add = lambda carry, few: (jax.tree.map(jnp.add, carry, part(*few)), None)
    result, _ = jax.lax.scan(add, zeros, head)
    if whole == first.m:
        return result
    return jax.tree.map(jnp.add, result, part(*jax.tree.map(lambda x: x[whole:], everything)))


def dot(group, vectors):
    """g_i . v, for all leaves together, by one forward derivative."""
    if _is_low(group) or not _goes_forward(group):
        wide = lambda x: jnp.asarray(x).astype(accumulator(x.dtype))
        along_rows = lambda rows: sum(jnp.vdot(wide(r), wide(v)) for r, v in zip(rows, vectors))
        return over_examples(group, along_rows)

    def along(pair):
        example, keep = jax.tree.map(lambda x: x[None], pair)
        losses, values = _losses(group, example, keep)
        tangents = [jnp.asarray(v, x.dtype) for v, x in zip(vectors, values)]
        return jax.jvp(losses, (values,), (tangents,))[1][0]

    return _over_examples(group, along, group[0].microbatch_size)


def gram(group, others):
    """Row i against every example of `others` by one forward derivative along g_i.

    Never more than a row at a time.
    """
    first = group[0]
    return jax.lax.map(lambda pair: dot(others, _row(group, *pair)), (first.batch, first.mask))
