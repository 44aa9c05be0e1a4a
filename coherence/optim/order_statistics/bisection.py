"""Selection by bisecting on the bits of order-preserving integer keys: any m, any mask, a rank known only at run time."""

import jax.numpy as jnp
from jax import lax


def select(keys, k, mask=None):
    """The k-th smallest (0 is the smallest) along the first axis of `keys` [m, ...]; `mask` bool [m] or `None`.

    The answer is the largest v with at most k keys below it; its bits are found from the top, one count each: 32 rounds for
    float32, 16 for bfloat16, 64 for float64.
    """
    info = jnp.iinfo(keys.dtype)
    keep = None if mask is None else mask.reshape(-1, *[1] * (keys.ndim - 1))

    def one_bit(i, found):
        bit = lax.shift_left(jnp.ones((), keys.dtype), (info.bits - 1 - i).astype(keys.dtype))
        larger = found ^ bit  # from the least integer up: flipping the sign bit first adds half the range
        below = keys < larger if keep is None else (keys < larger) & keep
        return jnp.where(jnp.sum(below, 0, dtype=jnp.int32) <= k, larger, found)

    return lax.fori_loop(0, info.bits, one_bit, jnp.full(keys.shape[1:], info.min, keys.dtype))
