"""The same nets in JAX: those of `coherence.lab.models`."""

import jax
import jax.numpy as jnp
import numpy as np
from nets import images, tokens

from coherence.lab.models import CNN, LSTM, MLP, ResNet, Transformer
from coherence.lab.tasks import cross_entropy

NETS = {
    "MLP 784-2048-10, m=100": (MLP(width=2048), images(100, 784)),
    "CNN 32-64-64, 32x32x3, m=128": (CNN(), images(128, 32, 32, 3)),
    "ResNet-18, group norm, m=32": (ResNet(), images(32, 32, 32, 3)),
    "transformer 4x256, T=128, m=16": (Transformer(tied=False), tokens(16, 128, 256)),
    "the same, tied embedding": (Transformer(), tokens(16, 128, 256)),
    "LSTM 128, T=64, m=32": (LSTM(), images(32, 64, 32)),
}


def problem(net):
    """The loss of one example (for sequences the mean over positions), parameters and a batch."""
    model, draw = NETS[net]
    batch = jax.tree.map(jnp.asarray, draw(np.random.default_rng(0)))
    losses = cross_entropy(model)
    return (
        lambda params, example: jnp.mean(losses(params, example)),
        jax.jit(model.init)(jax.random.key(0), batch[0][:1]),
        batch,
    )
