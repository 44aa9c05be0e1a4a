"""What stands at each leaf of per-example gradients: `Factored`, `Stacked` or `Recomputed`.

Each is a pytree node, so gradients pass through `jit`, `vmap` and `scan` like any tree. Shapes: m examples, B batch
dimensions of the product, T positions (a sequence, pixels), K and N the two sides of the weights.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from . import layout as layouts


def static(**kwargs):
    return dataclasses.field(metadata={"static": True}, **kwargs)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outer:
    """One meeting of a parameter with data: G_i[b, k, n] = sum_t inputs_i[b, t, k] cotangents_i[b, t, n].

    `inputs` is [m, B, T, K], `cotangents` [m, B, T, N]; `layout` leads from the parameter to [B, K, N].
    """

    inputs: jax.Array
    cotangents: jax.Array
    layout: tuple = static()

    @property
    def dims(self):
        """(m, B, T, K, N)."""
        return (*self.inputs.shape, self.cotangents.shape[-1])

    @property
    def is_rank_one(self):
        """True where G_i is one outer product: no batch dimension, one position."""
        return self.dims[1] == self.dims[2] == 1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Factored:
    """A leaf's per-example gradients as sums of outer products, never formed; `terms` is empty for an unused leaf.

    `shape` and `dtype` are the parameter's; `m` its number of rows; `mask` bool [m] or `None`. Masked rows are zero.
    """

    terms: tuple[Outer, ...]
    mask: jax.Array | None
    shape: tuple[int, ...] = static()
    dtype: Any = static()
    m: int = static()

    @property
    def parameter(self):
        return jax.ShapeDtypeStruct(self.shape, self.dtype)

    @property
    def rank_one(self):
        """`(inputs [m, K], cotangents [m, N], layout)` where one outer product per example is the leaf rearranged, else `None`."""
        if len(self.terms) != 1 or not self.terms[0].is_rank_one or not layouts.is_rearrangement(self.terms[0].layout):
            return None
        (term,) = self.terms
        return term.inputs[:, 0, 0], term.cotangents[:, 0, 0], term.layout


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stacked:
    """A leaf's per-example gradients as a plain array `values` [m, ...]; `mask` bool [m] or `None`. Masked rows are zero."""

    values: jax.Array
    mask: jax.Array | None = None

    @property
    def shape(self):
        return self.values.shape[1:]

    @property
    def dtype(self):
        return self.values.dtype

    @property
    def m(self):
        return self.values.shape[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Recomputed:
    """A leaf without a rule: every reduction differentiates it again, in microbatches, and keeps only the reduction.

    It reads `params` and `batch`: do not donate them to a call that still uses the gradients. `index` is the leaf's place
    among the leaves of `params`; `loss` is (params, example) -> scalar.
    """

    params: Any
    batch: Any
    mask: jax.Array | None
    loss: Callable = static()
    index: int = static()
    microbatch_size: int | None = static(default=None)

    @property
    def shape(self):
        return jnp.shape(jax.tree.leaves(self.params)[self.index])

    @property
    def dtype(self):
        return jnp.result_type(jax.tree.leaves(self.params)[self.index])

    @property
    def m(self):
        return jax.tree.leaves(self.batch)[0].shape[0]


NODES = (Factored, Stacked, Recomputed)


def is_node(x):
    return isinstance(x, NODES)


def combine(terms):
    """Meetings of one parameter through the same layout are one meeting with more positions."""
    by_layout: dict = {}
    for term in terms:
        by_layout.setdefault(term.layout, []).append(term)
    return tuple(
        same[0]
        if len(same) == 1
        else Outer(jnp.concatenate([t.inputs for t in same], 2), jnp.concatenate([t.cotangents for t in same], 2), key)
        for key, same in by_layout.items()
    )


def form(term, parameter):
    """The gradient of one example, in the parameter's shape; `term` has lost its example axis to `vmap`."""
    gradient = jnp.einsum("btk,btn->bkn", term.inputs, term.cotangents)
    return layouts.pull_back(term.layout, parameter, gradient).astype(parameter.dtype)


def accumulator(*dtypes):
    """At least float32: what sums over examples are kept in."""
    return jnp.promote_types(jnp.result_type(*dtypes), jnp.float32)
