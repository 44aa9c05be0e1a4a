"""Embeddings: rows of a table, looked up by integers.

The table-sized gradient of an example is never formed.
"""

import dataclasses

import jax
import jax.numpy as jnp

from .term import Term, by_examples, static

_PAIRS = 512  # positions up to which comparing all pairs of them beats sorting


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Looked(Term):
    """G_i[b, v, :] = sum over t with ids_i[b, t] = v of cotangents_i[b, t, :].

    `inputs` are the ids [m, B, T], all within the table.

    `size` is the number of rows. Look-ups outside of the table have zero cotangents.
    """

    size: int = static(default=0)

    positions = (1, 1)

    @property
    def dims(self):
        m, b, t, n = self.cotangents.shape
        return m, b, t, self.size, n

    def form(self, cotangents=None):
        m, b, _, k, _ = self.dims
        d = self.cotangents if cotangents is None else cotangents
        ids, d = self._of_one_table(d.astype(self.dtype))
        return jax.vmap(lambda ids, d: _scattered(ids, d, b * k))(ids, d).reshape(m, b, k, -1)

    def squared_norms(self):
        """||g_i||^2 for each example: the rows of a word used twice add up.

        Hence the sum over pairs (t, u) of the same word of d_t . d_u.
        """
        ids, d = self._of_one_table(self.cotangents.astype(self.dtype))
        if ids.shape[1] == 1:
            return jnp.sum(d * d, (1, 2))
        if ids.shape[1] <= _PAIRS:
            same = (ids[:, :, None] == ids[:, None, :]).astype(d.dtype)
            return jnp.einsum("mtn,mtn->m", jnp.einsum("mtu,mun->mtn", same, d), d)
        return jnp.sum(jnp.square(jax.vmap(_sums_by_word)(ids, d)[2]), (1, 2))

    def weighted_sum(self, weights):
        _, b, _, k, n = self.dims
        ids, d = self._of_one_table(self.cotangents.astype(self.dtype))
        weighted = d * weights[:, None, None].astype(self.dtype)
        return _scattered(ids.ravel(), weighted.reshape(-1, n), b * k).reshape(b, k, n)

    def dot(self, vector):
        ids, d = self._of_one_table(self.cotangents.astype(self.dtype))
        return jnp.einsum("mtn,mtn->m", vector.astype(self.dtype).reshape(-1, d.shape[-1])[ids], d)

    def gram(self, other):
        """g_i . h_j for each pair of examples, without a table.

        The words of example i are sorted, and those of the others looked up among them.
        """
        ids, d = other._of_one_table(other.cotangents.astype(other.dtype))

        def against_all(example):
            own, word, sums = _sums_by_word(*example)
            first = jnp.searchsorted(own, ids)  # [m, B T]: where an equal word would be
            first = jnp.minimum(first, own.shape[0] - 1)
            both = jnp.where((own[first] == ids)[..., None], d, 0)
            return jnp.einsum("mtn,mtn->m", both, sums[word[first]])

        return jax.lax.map(against_all, self._of_one_table(self.cotangents.astype(self.dtype)))

    def bilinear(self, left, right):
        products = lambda ids, d: jnp.sum(left.at(ids) * right.dot(d), 1)
        arrays = self.inputs[:, 0], self.cotangents[:, 0]
        return by_examples(products, arrays, self.dims[2] * len(left.rows))

    def dot_outer(self, inputs, cotangents):
        """G_i . H_i for H_i[v, n] = sum_u inputs_i[u, v] cotangents_i[u, n]: [m].

        A tied table's two uses, neither formed.
        """

        def few(ids, d, inputs, cotangents):
            at = jnp.take_along_axis(inputs, ids[:, None, :], 2)  # [few, U, T]
            return jnp.einsum("mut,mut->m", at, jnp.einsum("mun,mtn->mut", cotangents, d))

        arrays = (
            *self._of_one_table(self.cotangents.astype(self.dtype)),
            inputs.astype(self.dtype),
            cotangents.astype(self.dtype),
        )
        return by_examples(few, arrays, 2 * inputs.shape[1] * arrays[0].shape[1])

    def _of_one_table(self, cotangents):
        """ids [m, B T] in the B tables below each other, and their cotangents [m, B T, N]."""
        m, b, t, k, _ = self.dims
        below = jnp.arange(b, dtype=self.inputs.dtype)[:, None] * k
        return (self.inputs + below[None]).reshape(m, b * t), cotangents.reshape(m, b * t, -1)


def _scattered(ids, d, size):
    return jnp.zeros((size, d.shape[-1]), d.dtype).at[ids].add(d)


def _sums_by_word(ids, d):
    """The ids sorted [T], which word each one is [T], and the sum of each word used, one a row,
    then zeros: [T, N]."""
    order = jnp.argsort(ids)
    ids, d = ids[order], d[order]
    word = jnp.cumsum(jnp.concatenate([jnp.zeros(1, bool), ids[1:] != ids[:-1]]))
    return ids, word, jnp.zeros_like(d).at[word].add(d, indices_are_sorted=True)
