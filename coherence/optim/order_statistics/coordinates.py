"""Values of m examples at many coordinates: `Formed` in memory, or `Products` made where they are consumed.

Both answer what a coordinate-wise rule asks: `m`, `mask`, `count`, `dtype`, `rows()`, `mean()`, `with_nans`, `by_tiles`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from coherence.gradients.factors import accumulator

_TILE = 4096  # coordinates bisected at a time: their rows stay in the cache


class _Coordinates:
    @property
    def count(self):
        """How many examples count: m, or the mask's sum."""
        return self.m if self.mask is None else jnp.sum(self.mask, dtype=jnp.int32)

    @property
    def _weights(self):
        return jnp.full(self.m, 1, accumulator(self.dtype)) / self.count


@dataclasses.dataclass(frozen=True)
class Formed(_Coordinates):
    """`values` [m, D]; `mask` bool [m] or `None`. Results are [D]."""

    values: jax.Array
    mask: jax.Array | None = None

    @property
    def m(self):
        return self.values.shape[0]

    @property
    def dtype(self):
        return self.values.dtype

    def rows(self):
        return [self.values[i] for i in range(self.m)]

    def mean(self):
        return self._weights @ self.values.astype(accumulator(self.dtype))

    def with_nans(self, result):
        """`result`, nan at the coordinates where an example is."""
        return jnp.where(jnp.any(jnp.isnan(self.values), 0), jnp.nan, result)

    def by_tiles(self, function):
        """`function(Formed)` of a few coordinates at a time."""
        part = lambda start, size: function(Formed(lax.dynamic_slice_in_dim(self.values, start, size, 1), self.mask))
        return _by_tiles(part, self.values.shape[1], _TILE)


@dataclasses.dataclass(frozen=True)
class Products(_Coordinates):
    """Outer products `inputs` [L, m, K] x `cotangents` [L, m, N] of L equally shaped leaves, never formed. Results are [L, K, N]."""

    inputs: jax.Array
    cotangents: jax.Array
    mask: jax.Array | None = None

    @property
    def m(self):
        return self.inputs.shape[1]

    @property
    def dtype(self):
        return jnp.result_type(self.inputs, self.cotangents)

    def rows(self):
        return [self.inputs[:, i, :, None] * self.cotangents[:, i, None, :] for i in range(self.m)]

    def mean(self):
        weighted = self.cotangents * self._weights[:, None].astype(self.cotangents.dtype)
        return jnp.einsum("lmk,lmn->lkn", self.inputs, weighted, preferred_element_type=accumulator(self.dtype))

    def with_nans(self, result):
        """`result`, nan where an example's product is. Finite factors, the usual case, can't make one: then nothing is done."""
        a, d = self.inputs, self.cotangents

        def marked(result):
            met = lambda p, q: jnp.einsum("lmk,lmn->lkn", p.astype(jnp.float32), q.astype(jnp.float32))
            any_a, any_d = jnp.any(jnp.isnan(a), 1), jnp.any(jnp.isnan(d), 1)
            zero_by_inf = met(a == 0, jnp.isinf(d)) + met(jnp.isinf(a), d == 0)
            return jnp.where(any_a[:, :, None] | any_d[:, None, :] | (zero_by_inf > 0), jnp.nan, result)

        finite = jnp.all(jnp.isfinite(a)) & jnp.all(jnp.isfinite(d))
        return lax.cond(finite, lambda r: r, marked, result)

    def by_tiles(self, function):
        """`function(Formed)` of a few rows of the K x N coordinates at a time."""

        def part(a, d, start, size):
            values = lax.dynamic_slice_in_dim(a, start, size, 1)[:, :, None] * d[:, None, :]
            return function(Formed(values.reshape(self.m, -1), self.mask)).reshape(size, -1)

        def leaf(pair):
            a, d = pair
            return _by_tiles(lambda start, size: part(a, d, start, size), a.shape[1], max(1, _TILE // d.shape[1]))

        return lax.map(leaf, (self.inputs, self.cotangents))


def _by_tiles(part, size, tile):
    """`part(start, length)` for consecutive stretches of at most `tile`, the results joined."""
    whole, rest = divmod(size, tile)
    results = []
    if whole:
        parts = lax.map(lambda start: part(start, tile), jnp.arange(whole) * tile)
        results.append(parts.reshape(whole * tile, *parts.shape[2:]))
    if rest or not whole:
        results.append(part(whole * tile, rest))
    return jnp.concatenate(results)
