"""What all kinds of terms share.

Three fields, and the reductions that need no more than `form` and `dot`.
"""

import abc
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from coherence.gradients import layout as layouts
from coherence.gradients.jax_internals import zeros_like

# Numbers worked on at a time: on CPU what stays in the cache (a convolution's patches written to
# memory and read back cost 2-4 times the product itself), elsewhere what keeps the device busy.
IN_CACHE, _AT_ONCE = 2**17, 2**24
_SLAB = 2**22  # formed numbers (16 MiB in float32) a reduction may hold


def static(**kwargs):
    return dataclasses.field(metadata={"static": True}, **kwargs)


def accumulator(*dtypes):
    """At least float32: what sums over examples are kept in."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.promote_types(jnp.result_type(*dtypes), jnp.float32)


def largest(x, axis=None, *, initial=-jnp.inf, keepdims=False):
    """`jnp.max` over at least `initial`, nan where a value is.

    XLA's own maximum of more than a thousand numbers passes over nan on CPU (jaxlib 0.10.2).
    """
    is_nan = jnp.isnan(x).any(axis, keepdims=keepdims)
    return jnp.where(is_nan, jnp.nan, jnp.max(x, axis, initial=initial, keepdims=keepdims))


@dataclasses.dataclass(frozen=True)
class Term(abc.ABC):
    """One meeting of a parameter with data.

    Per-example gradients G [m, B, K, N], linear in `cotangents` [m, B, T, N].

    `inputs` [m, ...] is the data it met; `layout` leads from the parameter to [B, K, N].
    """

    inputs: jax.Array
    cotangents: jax.Array
    layout: tuple = static(default=())

    positions: ClassVar[tuple[int, int]]
    """The axes of one example's `inputs` and `cotangents` along which further positions are
    appended: meetings add up."""
    batches: ClassVar[tuple[int, int]] = (0, 0)
    """The axes along which groups with weights of their own are appended."""

    @property
    @abc.abstractmethod
    def dims(self):
        """(m, B, T, K, N)."""

    @abc.abstractmethod
    def form(self, cotangents=None):
        """G [m, B, K, N], or its columns that belong to a slab of the cotangents [m, B, T, q].

        In the accumulator's dtype.
        """

    @abc.abstractmethod
    def squared_norms(self):
        """||G_i||^2: [m], in the accumulator's dtype."""

    @abc.abstractmethod
    def weighted_sum(self, weights):
        """sum_i w_i G_i [B, K, N], in the accumulator's dtype."""

    @abc.abstractmethod
    def dot(self, vector):
        """G_i . v for v [B, K, N]: [m], in the accumulator's dtype."""

    @abc.abstractmethod
    def bilinear(self, left, right):
        """u_j^T G_i v_j for J pairs of vectors over K and over N, B = 1: [m, J].

        `left` and `right` have `dot`, from [..., K] or [..., N] to the products with the vectors,
        [..., J], `at`, from coordinates [...] to the vectors' values [..., J], and `rows` [J].
        """

    def weighted_cotangents(self, weights):
        """w_i d_i, in the accumulator's dtype."""
        return self.cotangents.astype(self.dtype) * weights[:, None, None, None].astype(self.dtype)

    def gram(self, other):
        """G_i . H_j for the gradients H of another term: [m, n], a slab of columns at a time."""

        def slab(parts):
            rows, columns = (
                term.form(part).reshape(term.dims[0], -1)
                for term, part in zip((self, other), parts)
            )
            return rows @ columns.T

        def own_slab(part):
            rows = self.form(part).reshape(self.dims[0], -1)
            return rows @ rows.T

        widest = max((self, other), key=lambda term: term.dims[0])
        count = len(widest.slabs(_SLAB))
        if other is self:
            function, slabs = own_slab, self.cut(count)
        else:
            function, slabs = slab, (self.cut(count), other.cut(count))
        if count == 1:
            return function(jax.tree.map(lambda x: x[0], slabs))
        return jax.lax.map(function, slabs).sum(0)

    def slabs(self, room):
        """The cotangents [S, m, B, T, N / S] in as few equal slabs of columns as form at most
        `room` numbers, at least one column."""
        m, b, _, k, n = self.dims
        width = max(q for q in range(1, n + 1) if n % q == 0 and (q == 1 or m * b * k * q <= room))
        return self.cut(n // width)

    def cut(self, count):
        """The cotangents in so many slabs of columns: [count, m, B, T, N / count]."""
        m, b, t, _, n = self.dims
        return jnp.moveaxis(self.cotangents.reshape(m, b, t, count, n // count), 3, 0)

    def rows(self, parameter, held=()):
        """The gradients in the parameter's shape and dtype: [m, ...].

        `held` are the values that the layout's steps hold.
        """
        pull_back = lambda g: layouts.pull_back(self.layout, parameter, g, held)
        return jax.vmap(lambda g: pull_back(g).astype(parameter.dtype))(self.form())

    def take(self, index):
        return dataclasses.replace(
            self, inputs=self.inputs[index], cotangents=self.cotangents[index]
        )

    @property
    def dtype(self):
        """What sums are kept in."""
        return accumulator(self.cotangents.dtype)

    @property
    def kind(self):
        """Terms of one kind can be appended to each other: all but their positions agree."""
        i, c = self.positions
        rest = lambda x, axis: (x.shape[: axis + 1], x.shape[axis + 2 :], x.dtype)
        return type(self), jax.tree.structure(self), rest(self.inputs, i), rest(self.cotangents, c)

    @classmethod
    def appended(cls, terms):
        """One term with the positions of all, which are of one `kind`."""
        join = lambda name, axis: jnp.concatenate([getattr(term, name) for term in terms], axis + 1)
        inputs, cotangents = cls.positions
        return dataclasses.replace(
            terms[0], inputs=join("inputs", inputs), cotangents=join("cotangents", cotangents)
        )

    def real(self):
        """One example's term of a real parameter that met complex numbers.

        X dy has the real part Re x Re dy - Im x Im dy.
        """
        if not jnp.iscomplexobj(self.cotangents):
            return self
        parts = [(self.inputs.real, self.cotangents.real)]
        if jnp.iscomplexobj(self.inputs):
            parts.append((-self.inputs.imag, self.cotangents.imag))
        inputs, cotangents = (
            jnp.concatenate(side, axis) for side, axis in zip(zip(*parts), self.positions)
        )
        return dataclasses.replace(self, inputs=inputs, cotangents=cotangents)

    def of_steps(self, *, stacked):
        """One example's term of all steps of a scan, from one whose arrays have an axis of steps.

        `stacked`: each step has weights of its own (layers), else they share them (time).
        """

        def merged(x, axis):
            axis = axis % (x.ndim - 1)
            x = jnp.moveaxis(x, 0, axis)
            return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])

        inputs, cotangents = self.batches if stacked else self.positions
        return dataclasses.replace(
            self, inputs=merged(self.inputs, inputs), cotangents=merged(self.cotangents, cotangents)
        )


def by_examples(function, arrays, numbers):
    """`function(arrays)`, all [m, ...], a few examples at a time.

    `numbers` is how many one example makes it work on.
    """
    m = arrays[0].shape[0]

    def chunked(room):
        def run(*whole):
            size = _fitting(m, numbers, room)
            if size == m:
                return function(*whole)
            of_part = lambda i: function(*_part(whole, i, size)).reshape(-1)
            shape = jax.eval_shape(function, *whole).shape
            return jax.lax.map(of_part, jnp.arange(m // size)).reshape(shape)

        return run

    if m * numbers <= IN_CACHE:
        return function(*arrays)
    return jax.lax.platform_dependent(*arrays, cpu=chunked(IN_CACHE), default=chunked(_AT_ONCE))


def sum_by_examples(function, arrays, numbers, room):
    """The sum of `function(arrays)` of a few examples at a time, which make it work on `room`
    numbers at most, or are one."""
    m = arrays[0].shape[0]
    size = _fitting(m, numbers, room)
    if size == m:
        return function(*arrays)

    of_part = lambda i: function(*_part(arrays, i, size))
    zeros = zeros_like(jax.eval_shape(of_part, 0))
    return jax.lax.fori_loop(0, m // size, lambda i, total: total + of_part(i), zeros)


def _fitting(m, numbers, room):
    """How many of m examples go at a time: a divisor of m."""
    return max(q for q in range(1, m + 1) if m % q == 0 and (q == 1 or q * numbers <= room))


def _part(arrays, i, size):
    return [jax.lax.dynamic_slice_in_dim(x, i * size, size) for x in arrays]
