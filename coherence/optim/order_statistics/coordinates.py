"""Values of m examples at many coordinates: `Formed` in memory, or `Products` of factors.

Both answer what a coordinate-wise rule asks: `m`, `mask`, `count`, `dtype`, `shape`, `mean()`,
`with_nans`, `fold`.
"""

import abc
import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from coherence.gradients.arguments import varying_with
from coherence.gradients.factors import accumulator
from coherence.gradients.jax_internals import automatic_axes

# Examples in one pass over the coordinates: a row takes 45 us among 32, 95 among 128 (784 x 2048,
# two cores).
_STRETCH = 32
# Formed numbers worked on at a time where many passes are made over them.
_TILE = 2**18
# Coordinates below which the loops' beginnings and ends take most of the time.
_NARROWEST = 128
# Examples whose kernel is as good as free, even several times.
_FEW = 8
# Bytes of a cache line.
_LINE = 64


class Coordinates(abc.ABC):
    """Values of `m` examples at the coordinates of `shape`; `mask` says which examples count.

    >>> from coherence.optim.order_statistics import Formed
    >>> issubclass(Formed, Coordinates)
    True
    """

    mask: jax.Array | None

    @property
    @abc.abstractmethod
    def m(self) -> int:
        """The number of examples."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of one example's values, and of results."""

    @property
    @abc.abstractmethod
    def dtype(self) -> jnp.dtype:
        """The dtype of the values."""

    @property
    def count(self):
        """How many examples count: m, or the mask's sum."""
        return self.m if self.mask is None else jnp.sum(self.mask, dtype=jnp.int32)

    @property
    def _weights(self):
        return jnp.full(self.m, 1, accumulator(self.dtype)) / self.count

    @abc.abstractmethod
    def scaled(self):
        """(the values times a scale, the scale): small enough to be added up without overflow.

        The scale is one or a power of two, so that nothing is rounded but numbers next to the
        smallest, beside the largest. It broadcasts to `shape`.
        """

    @property
    @abc.abstractmethod
    def peak(self):
        """A bound of the magnitudes of the values; not finite where one of them is not."""

    def _scale(self):
        """One, unless 4 m values as large as the `peak` overflow, or it is not finite."""
        most = float(jnp.finfo(accumulator(self.dtype)).max) / (4 * self.m)
        if float(jnp.finfo(self.dtype).max) <= most:
            return jnp.ones((), self.dtype)
        is_safe = self.peak <= most
        return jnp.where(is_safe, 1, 0.5 ** (4 * self.m).bit_length()).astype(self.dtype)

    def filled(self, value, dtype):
        """`value` at every coordinate: under `shard_map` it differs where the values do."""
        held = [x for x in vars(self).values() if isinstance(x, jax.Array)]
        return varying_with(jnp.full(self.shape, value, dtype), held)

    @abc.abstractmethod
    def rows(self, start=0, size=None):
        """The values of a few examples (all), arrays of `shape`; `start` may be traced."""

    def fold(self, initial, step):
        """`step(carry, rows)` over all examples, a stretch at a time."""
        whole, rest = divmod(self.m, _STRETCH)
        stretch = lambda i, carry: step(carry, self.rows(i * _STRETCH, _STRETCH))
        carry = lax.fori_loop(0, whole, stretch, initial) if whole else initial
        return step(carry, self.rows(whole * _STRETCH, rest)) if rest else carry


@dataclasses.dataclass(frozen=True)
class Formed(Coordinates):
    """`values` [m, D]; `mask` bool [m] or `None`. Results are [D].

    No magnitude is above `bound`, which is not finite where a value is not; `None` if unknown.

    >>> leaf = Formed(jnp.array([[1.0], [2.0], [9.0]]))
    >>> leaf.m
    3
    """

    values: jax.Array
    mask: jax.Array | None = None
    bound: jax.Array | None = None

    @property
    def m(self):
        return self.values.shape[0]

    @property
    def shape(self):
        return self.values.shape[1:]

    @property
    def dtype(self):
        return self.values.dtype

    def scaled(self):
        scale = self._scale()
        return dataclasses.replace(self, values=self.values * scale), scale

    @property
    def peak(self):
        if self.bound is not None:
            return self.bound
        return _total_magnitude(self.values)

    def rows(self, start=0, size=None):
        part = self.values if size is None else lax.dynamic_slice_in_dim(self.values, start, size)
        return [lax.index_in_dim(part, i, keepdims=False) for i in range(part.shape[0])]

    def by_tiles(self, function, numbers=_TILE):
        """`function(Formed)` of as many coordinates at a time as hold so many, at least 128."""
        tile = max(_NARROWEST, numbers // self.m)
        size = self.values.shape[1]
        if size <= tile:
            return function(self)

        def part(start):
            values = lax.dynamic_slice_in_dim(self.values, start, tile, 1)
            # Copied: a loop over coordinates of the whole reads lines far from each other.
            return function(dataclasses.replace(self, values=lax.optimization_barrier(values)))

        starts = jnp.arange(0, size - tile, tile)
        last = part(size - tile)  # overlaps the tile before
        results = lax.map(part, starts).ravel()
        return jnp.concatenate([results, last[tile * (len(starts) + 1) - size :]])

    def spread(self):
        """The coordinates divided among the devices of a mesh."""
        if not is_divided():
            return self
        return dataclasses.replace(self, values=_by_columns(self.values))

    def mean(self):
        return self._weights @ self.values.astype(accumulator(self.dtype))

    def with_nans(self, result):
        """`result`, nan at the coordinates where an example is.

        The branch keeps XLA from compiling, and running, what made the result once for each part of
        it that is used.
        """
        if self.m <= _FEW:
            # A comparison for each example: with a reduction the values would be formed.
            spoiled = functools.reduce(jnp.logical_or, map(jnp.isnan, self.rows()))
            return jnp.where(spoiled, jnp.nan, result)
        marked = lambda result: jnp.where(jnp.isnan(self.values).any(0), jnp.nan, result)
        return lax.cond(jnp.isfinite(self.peak), lambda result: result, marked, result)

    def without_masked(self):
        """Masked examples as nan, which no comparison finds."""
        if self.mask is None:
            return self
        counted = jnp.where(self.mask[:, None], self.values, jnp.nan)
        return dataclasses.replace(self, values=counted)


@dataclasses.dataclass(frozen=True)
class Products(Coordinates):
    """Outer products `inputs` [L, m, K] x `cotangents` [L, m, N], never formed.

    Results are [L, K, N]. The arrays may be wider than `widths` = (K, N), which are theirs where it
    is `None`.

    >>> Products(jnp.ones((1, 5, 2)), jnp.ones((1, 5, 3))).m
    5
    """

    inputs: jax.Array
    cotangents: jax.Array
    mask: jax.Array | None = None
    widths: tuple[int, int] | None = None

    @property
    def m(self):
        return self.inputs.shape[1]

    @property
    def shape(self):
        return self.inputs.shape[0], *(
            self.widths or (self.inputs.shape[2], self.cotangents.shape[2])
        )

    @property
    def dtype(self):
        return jnp.result_type(self.inputs, self.cotangents)

    def scaled(self):
        scale = self._scale()
        return dataclasses.replace(self, inputs=self.inputs * scale), scale

    @property
    def peak(self):
        total = lambda x: _total_magnitude(x, (1, 2), keepdims=True)
        return total(self.inputs) * total(self.cotangents)

    def rows(self, start=0, size=None):
        _, k, n = self.shape
        cut = lambda x: x if size is None else lax.dynamic_slice_in_dim(x, start, size, 1)
        a, d = (cut(x).astype(self.dtype) for x in (self.inputs, self.cotangents))
        shape = self.shape

        def row(x, i, width, axis):
            values = lax.slice_in_dim(lax.index_in_dim(x, i, 1, keepdims=False), 0, width, axis=1)
            return lax.broadcast_in_dim(values, shape, (0, axis))

        return [lax.mul(row(a, i, k, 1), row(d, i, n, 2)) for i in range(a.shape[1])]

    def spread(self):
        """The factors in an odd number of cache lines an example.

        A loop over the coordinates reads one line of every example, and lines some power of two
        apart fall on each other in the cache: 2048 wide, a pass over 100 examples takes 27 ms,
        spread 6 (784 x 2048 coordinates, two cores). Over a mesh the examples are gathered instead,
        once, and the coordinates divided among the devices.
        """
        if is_divided():
            inputs = lax.with_sharding_constraint(self.inputs, P())
            return dataclasses.replace(self, inputs=inputs, cotangents=_by_columns(self.cotangents))
        wider = lambda x: jnp.pad(
            x, ((0, 0), (0, 0), (0, _odd_lines(x.shape[2], x.dtype.itemsize) - x.shape[2]))
        )
        # Without the barrier XLA sees that nothing is gained.
        inputs, cotangents = lax.optimization_barrier((wider(self.inputs), wider(self.cotangents)))
        return Products(inputs, cotangents, self.mask, self.shape[1:])

    def by_inputs(self, function):
        """`function(Formed)` of the coordinates that share an input, one input after the other."""

        def of_block(factors):
            inputs, cotangents = factors
            of_input = lambda x: function(Formed(x[:, None] * cotangents, self.mask))
            return lax.map(of_input, inputs.T)

        return lax.map(of_block, (self.inputs, self.cotangents))

    def mean(self):
        wide = accumulator(self.dtype)
        total = lambda d: jnp.einsum("lmk,lmn->lkn", self.inputs, d, preferred_element_type=wide)
        if self.cotangents.dtype == wide:
            return total(self.cotangents * self._weights[:, None])  # the sum may overflow
        return total(self.cotangents) / self.count  # 1/m would be rounded to the low precision

    def with_nans(self, result):
        """`result`, nan where an example's product is: not needed where all factors are finite."""
        a, d = self.inputs, self.cotangents

        def marked(result):
            met = lambda p, q: jnp.einsum(
                "lmk,lmn->lkn", p.astype(jnp.float32), q.astype(jnp.float32)
            )
            any_a, any_d = jnp.any(jnp.isnan(a), 1), jnp.any(jnp.isnan(d), 1)
            zero_by_inf = met(a == 0, jnp.isinf(d)) + met(jnp.isinf(a), d == 0)
            return jnp.where(
                any_a[:, :, None] | any_d[:, None, :] | (zero_by_inf > 0), jnp.nan, result
            )

        finite = jnp.all(jnp.isfinite(self.peak))
        return lax.cond(finite, lambda result: result, marked, result)

    def without_masked(self):
        """Masked examples as nan, which no comparison finds."""
        if self.mask is None:
            return self
        inputs = jnp.where(self.mask[:, None], self.inputs, jnp.nan)
        return dataclasses.replace(self, inputs=inputs)


def is_divided():
    """Whether in a mesh over whose axes the compiler may distribute arrays (`jax.set_mesh`)."""
    return bool(automatic_axes())


def _by_columns(x):
    """All examples on every device, the last dimension divided among them."""
    return lax.with_sharding_constraint(x, P(*[None] * (x.ndim - 1), automatic_axes()))


def _total_magnitude(x, axis=None, keepdims=False):
    """A sum: XLA's maximum is no cheaper and, on CPU, passes over nan."""
    return jnp.sum(jnp.abs(x), axis, dtype=accumulator(x.dtype), keepdims=keepdims)


def _odd_lines(width, itemsize):
    lines = -(-width * itemsize // _LINE)
    return (lines + 1 - lines % 2) * _LINE // itemsize
