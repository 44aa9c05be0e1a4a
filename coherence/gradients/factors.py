"""What stands at each leaf of per-example gradients: `Factored`, `Stacked` or `Recomputed`.

Each is a pytree node, so gradients pass through `jit`, `vmap` and `scan` like any tree.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from . import layout as layouts
from .terms import Outer, Term, accumulator, largest, pairs_are_cheaper, static

_LARGER = 2.5  # rows are kept that are at most so many times the numbers of the factors


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Factored:
    """A leaf's per-example gradients as a sum of terms that are never formed.

    `terms` is empty for an unused leaf.

    `shape` and `dtype` are the parameter's; `m` its number of rows; `mask` bool [m] or `None`.
    Masked rows are zero. `constants` are, of each term, the values that steps of its layout hold;
    empty where no term's do.

    >>> import coherence as co
    >>> loss = lambda w, x: jnp.sum(jnp.tanh(x @ w))
    >>> _, gradient = co.per_example_value_and_grad(loss)(jnp.ones((64, 32)), jnp.ones((2, 64)))
    >>> gradient.m, gradient.shape, type(gradient).__name__
    (2, (64, 32), 'Factored')
    """

    terms: tuple[Term, ...]
    mask: jax.Array | None
    shape: tuple[int, ...] = static()
    dtype: Any = static()
    m: int = static()
    constants: tuple[tuple[Any, ...], ...] = ()

    @property
    def held(self) -> tuple[tuple[Any, ...], ...]:
        """`constants`, of every term."""
        return self.constants or ((),) * len(self.terms)

    @property
    def scanned(self) -> bool:
        """Whether the leading axis is that of layers, which `lax.scan` goes over."""
        return bool(self.terms) and all(_is_scanned(term) for term in self.terms)

    @property
    def parameter(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.shape, self.dtype)

    @property
    def rank_one(self) -> tuple[jax.Array, jax.Array, layouts.Layout] | None:
        """`(inputs [m, K], cotangents [m, N], layout)` where one outer product per example is
        the leaf rearranged, else `None`."""
        if len(self.terms) != 1:
            return None
        (term,) = self.terms
        if (
            not isinstance(term, Outer)
            or not term.is_rank_one
            or not layouts.is_rearrangement(term.layout)
        ):
            return None
        return term.inputs[:, 0, 0], term.cotangents[:, 0, 0], term.layout


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stacked:
    """A leaf's per-example gradients as a plain array `values` [m, ...].

    `mask` bool [m] or `None`. Masked rows are zero.

    >>> Stacked(jnp.ones((4, 3))).m
    4
    """

    values: jax.Array
    mask: jax.Array | None = None
    scanned: bool = static(default=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape[1:]

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    @property
    def m(self) -> int:
        return self.values.shape[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Recomputed:
    """A leaf without a rule: every reduction differentiates it again, in microbatches.

    It reads `params` and `batch`: do not donate them to a call that still uses the gradients.
    `index` is the leaf's place among the leaves of `params`; `loss` is `(params, example, *consts)
    -> scalar`, `consts` what it closes over of a function being traced.
    """

    params: Any
    batch: Any
    mask: jax.Array | None
    consts: tuple[Any, ...]
    loss: Callable = static()
    index: int = static()
    microbatch_size: int | None = static(default=None)

    @property
    def shape(self) -> tuple[int, ...]:
        return jnp.shape(jax.tree.leaves(self.params)[self.index])

    @property
    def dtype(self) -> Any:
        return jnp.result_type(jax.tree.leaves(self.params)[self.index])

    @property
    def m(self) -> int:
        return jax.tree.leaves(self.batch)[0].shape[0]


Node: TypeAlias = Factored | Stacked | Recomputed


def is_node(x: Any) -> bool:
    return isinstance(x, Node)


def combine(terms: Iterable[Term]) -> tuple[Term, ...]:
    """Meetings of one parameter through the same layout are one meeting with more positions."""
    by_kind: dict = {}
    for term in terms:
        by_kind.setdefault(term.kind, []).append(term)
    return tuple(same[0] if len(same) == 1 else same[0].appended(same) for same in by_kind.values())


def node(
    terms: Iterable[tuple[Term, tuple[Any, ...]]],
    parameter: jax.ShapeDtypeStruct,
    m: int,
    mask: jax.Array | None,
) -> Node:
    """The node of a leaf from its terms, each with the values that its layout holds.

    `Stacked` where rows are the better way, else `Factored`.
    """
    pairs = list(terms)
    plain = combine(term for term, held in pairs if not held)
    bound = [(term, held) for term, held in pairs if held]
    if bound:
        constants = (*[()] * len(plain), *(held for _, held in bound))
        every = (*plain, *(term for term, _ in bound))
        return Factored(every, mask, parameter.shape, parameter.dtype, m, constants)
    if plain and _rows_are_better(plain, math.prod(parameter.shape)):
        scanned = all(_is_scanned(term) for term in plain)
        return Stacked(sum(term.rows(parameter) for term in plain), mask, scanned)
    return Factored(plain, mask, parameter.shape, parameter.dtype, m)


def _is_scanned(term: Term) -> bool:
    return bool(term.layout) and isinstance(term.layout[0], layouts.Mapped)


def _rows_are_better(terms: tuple[Term, ...], size: int) -> bool:
    """The one choice by shape: form a leaf's rows at once, or keep its factors?

    Biases and scales (K = 1) are their own rows. Elsewhere rows pay where squared norms form them
    anyway (many positions, few weights) and they are not much larger than the factors: the mean and
    every other reduction are then products with them.
    """
    if all(term.dims[3] == 1 for term in terms):
        return True
    m = terms[0].dims[0]
    factors = sum(term.inputs.size + term.cotangents.size for term in terms)
    formed = [not pairs_are_cheaper(*term.dims[2:]) for term in terms]
    return all(formed) and m * size <= _LARGER * factors


__all__ = [
    "Factored",
    "Node",
    "Recomputed",
    "Stacked",
    "accumulator",
    "combine",
    "is_node",
    "largest",
    "node",
]
