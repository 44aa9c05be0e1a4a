"""Reductions of leaves without a rule: differentiate them again, a microbatch at a time, and keep only the reduction.

Several such leaves of one tree share the passes. Every function takes the group (a list of `Recomputed` from one call of
`per_example_value_and_grad`) and returns one entry a leaf.
"""

import math

import jax
import jax.numpy as jnp

from .factors import accumulator

_ROWS_IN_MEMORY = 2**24  # numbers a default microbatch of formed rows may hold (64 MiB in float32)


def _losses(group, batch, keep):
    """leaves of the group -> their losses, masked ones zero."""
    one = group[0]
    leaves, treedef = jax.tree.flatten(one.params)
    indices = [leaf.index for leaf in group]

    def losses(values):
        filled = list(leaves)
        for i, value in zip(indices, values):
            filled[i] = value
        each = jax.vmap(lambda example: one.loss(treedef.unflatten(filled), example))(batch)
        return each if keep is None else jnp.where(keep, each, 0)

    return losses, [leaves[i] for i in indices]


def _row(group, example, keep):
    """One example's gradient of each leaf of the group."""
    batch = jax.tree.map(lambda x: x[None], example)
    losses, values = _losses(group, batch, None if keep is None else keep[None])
    return jax.grad(lambda v: losses(v)[0])(values)


def over_examples(group, reduce):
    """`reduce(rows of the group for one example)` for every example, a microbatch of rows at a time."""
    one = group[0]
    size = sum(math.prod(leaf.shape) for leaf in group)
    microbatch = one.microbatch_size or max(1, _ROWS_IN_MEMORY // max(size, 1))
    each = lambda pair: reduce(_row(group, *pair))
    if microbatch >= one.m:
        return jax.vmap(each)((one.batch, one.mask))
    return jax.lax.map(each, (one.batch, one.mask), batch_size=microbatch)


def squared_norms(group):
    return over_examples(group, lambda rows: [jnp.sum(jnp.square(r.astype(accumulator(r.dtype)))) for r in rows])


def materialize(group):
    return over_examples(group, lambda rows: rows)


def weighted_sum(group, weights):
    """One plain gradient of the weighted loss: sums need no rows."""
    one = group[0]

    def total(batch, keep, w):
        losses, values = _losses(group, batch, keep)
        return jax.grad(lambda v: jnp.sum(losses(v) * w))(values)

    size = one.microbatch_size
    if size is None or size >= one.m:
        return total(one.batch, one.mask, weights)
    whole = one.m - one.m % size
    head = jax.tree.map(lambda x: x[:whole].reshape(-1, size, *x.shape[1:]), (one.batch, one.mask, weights))
    zeros = [jnp.zeros(leaf.shape, leaf.dtype) for leaf in group]
    add = lambda carry, part: (jax.tree.map(jnp.add, carry, total(*part)), None)
    result, _ = jax.lax.scan(add, zeros, head)
    if whole == one.m:
        return result
    tail = jax.tree.map(lambda x: x[whole:], (one.batch, one.mask, weights))
    return jax.tree.map(jnp.add, result, total(*tail))


def dot(group, vectors):
    """g_i . v, for all leaves together, by one forward derivative."""
    one = group[0]
    losses, values = _losses(group, one.batch, one.mask)
    return jax.jvp(losses, (values,), ([jnp.asarray(v, x.dtype) for v, x in zip(vectors, values)],))[1]


def rows(group, index):
    one = group[0]
    take = lambda tree: jax.tree.map(lambda x: x[index], tree)
    return jax.vmap(lambda pair: _row(group, *pair))((take(one.batch), take(one.mask)))


def gram(group):
    """Row i against every example by one forward derivative along g_i; never more than a row at a time."""
    one = group[0]
    return jax.lax.map(lambda pair: dot(group, _row(group, *pair)), (one.batch, one.mask))
