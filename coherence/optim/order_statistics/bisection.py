"""Selection by bisecting on the bits of order-preserving integer keys: any m, any mask, a rank known only at run time."""

import jax.numpy as jnp
from jax import lax


def search(below, k, shape, dtype):
    """The k-th smallest value (0 is the smallest) as a key [shape] of integer `dtype`; `below(keys) [shape]` counts smaller values.

    The answer is the largest v with at most k values below it; its bits are found from the top, one
    count each: 32 rounds for float32, 16 for bfloat16, 64 for float64.
    """
    info = jnp.iinfo(dtype)

    def one_bit(i, found):
        bit = lax.shift_left(jnp.ones((), dtype), (info.bits - 1 - i).astype(dtype))
        higher = (
            found ^ bit
        )  # from the least integer up: flipping the sign bit first adds half the range
        return jnp.where(below(higher) <= k, higher, found)

    return lax.fori_loop(0, info.bits, one_bit, jnp.full(shape, info.min, dtype))


def select(keys, k):
    """The k-th smallest along the first axis of `keys` [m, ...]."""
    return search(lambda v: jnp.sum(keys < v, 0, dtype=jnp.int32), k, keys.shape[1:], keys.dtype)
