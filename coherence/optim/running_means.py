"""Running means of gradients, in float32 at least.

In bfloat16, of eight bits, a running mean with a decay of 0.999 never moves: a thousandth of its
value is rounded away.
"""

import jax
import jax.numpy as jnp

from coherence.gradients.factors import accumulator
from coherence.trees import PyTree


def running_zeros(params: PyTree) -> PyTree:
    """Zeros in the parameters' shapes, to begin with."""
    return jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), accumulator(jnp.result_type(p))), params)


def running_mean(old: PyTree, new: PyTree, decay: float) -> PyTree:
    """decay old + (1 - decay) new, in the old one's dtypes."""
    return jax.tree.map(lambda x, y: decay * x + (1 - decay) * y.astype(x.dtype), old, new)
