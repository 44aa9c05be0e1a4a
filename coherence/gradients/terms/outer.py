"""Dense layers, projections, biases: sums of outer products."""

import dataclasses

import jax
import jax.numpy as jnp

from .term import Term, by_examples


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outer(Term):
    """G_i[b, k, n] = sum_t inputs_i[b, t, k] cotangents_i[b, t, n], with `inputs` [m, B, T, K]."""

    positions = (1, 1)

    @property
    def dims(self):
        return (*self.inputs.shape, self.cotangents.shape[-1])

    @property
    def is_rank_one(self):
        """True where G_i is one outer product: no batch dimension, one position."""
        return self.dims[1] == self.dims[2] == 1

    def form(self, cotangents=None):
        d = self.cotangents if cotangents is None else cotangents
        if d.dtype == self.inputs.dtype:  # products of half precision, summed in more
            return jnp.einsum("mbtk,mbtn->mbkn", self.inputs, d, preferred_element_type=self.dtype)
        return jnp.einsum("mbtk,mbtn->mbkn", self.inputs.astype(self.dtype), d.astype(self.dtype))

    def squared_norms(self):
        """||a^T d||^2 = sum_{t,u} (a_t . a_u)(d_t . d_u).

        By T x T Gram matrices where that is cheaper than forming a^T d.
        """
        m, b, t, k, n = self.dims
        a, d = (x.astype(self.dtype) for x in (self.inputs, self.cotangents))
        if t == 1:  # as matrices: XLA copies to reorder dimensions of size 1
            squares = lambda x: jnp.sum(jnp.square(x.reshape(m * b, -1)), 1).reshape(m, b)
            return jnp.sum(squares(a) * squares(d), 1)
        if pairs_are_cheaper(t, k, n):
            return jnp.einsum(
                "mbtu,mbtu->m",
                jnp.einsum("mbtk,mbuk->mbtu", a, a),
                jnp.einsum("mbtn,mbun->mbtu", d, d),
            )
        square = lambda a, d: jnp.sum(jnp.square(jnp.einsum("mbtk,mbtn->mbkn", a, d)), (1, 2, 3))
        return by_examples(square, (a, d), a[0].size + k * n)

    def weighted_sum(self, weights):
        a = self.inputs.astype(self.dtype)
        # The cotangents are weighted: they are the smaller side of most layers. Not in half
        # precision, where 1/m may be nothing.
        d = self.weighted_cotangents(weights)
        if self.dims[1] == 1:  # one product of matrices: XLA copies to reorder dimensions of size 1
            a, d = (x.reshape(-1, x.shape[-1]) for x in (a, d))
            return jnp.einsum("ik,in->kn", a, d)[None]
        return jnp.einsum("mbtk,mbtn->bkn", a, d)

    def dot(self, vector):
        each = (x.astype(self.dtype) for x in (self.inputs, vector, self.cotangents))
        return jnp.einsum("mbtk,bkn,mbtn->m", *each, optimize="optimal")

    def bilinear(self, left, right):
        products = lambda a, d: jnp.sum(left.dot(a) * right.dot(d), 1)
        arrays = self.inputs[:, 0], self.cotangents[:, 0]
        return by_examples(products, arrays, self.dims[2] * len(left.rows))

    def gram(self, other):
        if self.dims[2] > 1:
            return super().gram(other)
        a, d, b, e = (
            x[:, :, 0].astype(self.dtype)
            for term in (self, other)
            for x in (term.inputs, term.cotangents)
        )
        return jnp.sum(jnp.einsum("mbk,lbk->bml", a, b) * jnp.einsum("mbn,lbn->bml", d, e), 0)


def pairs_are_cheaper(t, k, n):
    """Two T x T Gram matrices, T^2 (K + N) multiplications, against T K N to form the gradient
    and store it."""
    return (
        t * (k + n) <= 1.5 * k * n
    )  # measured: the two cost the same around 1.5, for sequences and for convolutions
