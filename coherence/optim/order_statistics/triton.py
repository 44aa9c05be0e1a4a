"""The clipped mean of outer products as one kernel for CUDA devices.

XLA makes one loop of a selection on CPU. On a GPU it cuts the thousand operations into many
kernels, which pass what they keep through memory; this one keeps it in registers. JAX 0.12 warns
that it will drop Triton; the others remain.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

# Coordinates of a program, outputs and at most as many inputs, and its warps: four coordinates a
# thread, each with 2 k + 2 values in registers.
_COLUMNS, _ROWS, _WARPS = 64, 8, 4


@functools.partial(jax.jit, static_argnames=("k", "interpret"))
def winsorized_mean(
    inputs: jax.Array, cotangents: jax.Array, *, k: int, interpret: bool = False
) -> jax.Array:
    """Of each coordinate of `inputs` [L, m, K] x `cotangents` [L, m, N]: float32 [L, K, N].

    Two passes over the examples: the first keeps the k + 1 smallest and largest values, the second
    sums the clipped values. For 0 < k <= 8 and m >= 2 k + 2; what it makes of nan
    is not said.
    """
    blocks, m, height = inputs.shape
    width = cotangents.shape[2]
    rows = min(_ROWS, pl.next_power_of_2(height))
    padded = lambda x, part: jnp.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % part)))
    a, d = padded(inputs, rows), padded(cotangents, _COLUMNS)

    def kernel(a_ref, d_ref, out_ref):
        values = lambda i: a_ref[0, i, :][:, None] * d_ref[0, i, :][None, :]

        def keep(i, bounds):
            low, high = bounds
            return _inserted(low, values(i), least=True), _inserted(high, values(i), least=False)

        full = lambda x: tuple(jnp.full((rows, _COLUMNS), x, a.dtype) for _ in range(k + 1))
        low, high = lax.fori_loop(0, m, keep, (full(jnp.inf), full(-jnp.inf)))

        def add(i, total):
            return total + jnp.minimum(jnp.maximum(values(i), low[k]), high[k]).astype(jnp.float32)

        total = lax.fori_loop(0, m, add, jnp.zeros((rows, _COLUMNS), jnp.float32))
        out_ref[0] = total / m

    part = lambda size, axis: pl.BlockSpec((1, m, size), lambda *at: (at[0], 0, at[axis]))
    result = pl.pallas_call(
        kernel,
        grid=(blocks, a.shape[2] // rows, d.shape[2] // _COLUMNS),
        in_specs=[part(rows, 1), part(_COLUMNS, 2)],
        out_specs=pl.BlockSpec((1, rows, _COLUMNS), lambda *at: at),
        out_shape=jax.ShapeDtypeStruct((blocks, a.shape[2], d.shape[2]), jnp.float32),
        compiler_params=plgpu.CompilerParams(num_warps=_WARPS),
        interpret=interpret,
    )(a, d)
    return result[:, :height, :width]


def _inserted(values, value, least):
    """The values, in order, with one more among them and the last dropped."""
    updated = []
    for old in values:
        smaller, larger = jnp.minimum(old, value), jnp.maximum(old, value)
        better, value = (smaller, larger) if least else (larger, smaller)
        updated.append(better)
    return tuple(updated)
