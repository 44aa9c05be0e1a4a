"""Every network we ship gets all its per-example gradients from rules.

None is recomputed, at the sizes people use.
"""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import pytest

import coherence as co
from coherence.lab.models import CNN, LSTM, MLP, RNN, DeepLinear, DiagonalChain, ResNet, Transformer
from coherence.lab.tasks import cross_entropy
from coherence.trees import leaf

NETWORKS = {
    "MLP": (MLP(width=2048), (784,), ()),
    "CNN": (CNN(), (32, 32, 3), ()),
    "ResNet-18": (ResNet(), (32, 32, 3), ()),
    "transformer": (Transformer(tied=False), (128,), (128,)),
    "transformer, tied": (Transformer(), (128,), (128,)),
    "LSTM": (LSTM(), (64, 32), ()),
    "RNN": (RNN(depth=2), (64, 32), ()),
    "deep linear network": (DeepLinear(width=2048, depth=2), (784,), ()),
    "diagonal chain": (DiagonalChain(depth=3, outputs=10), (784,), ()),
}


# A large leaf that is multiplied with broadcast data, a number for ten of its own.
RECOMPUTED = {"diagonal chain": {"params/factor_0"}}


@pytest.mark.parametrize("name", NETWORKS)
def test_no_leaf_is_recomputed_but_where_there_is_no_rule(name):
    model, shape, labels = NETWORKS[name]
    x = jnp.zeros((2, *shape), jnp.float32 if not labels else jnp.int32)
    losses = cross_entropy(model)
    loss = lambda params, example: jnp.mean(losses(params, example))
    params = jax.eval_shape(model.init, jax.random.key(0), x)
    recomputed = RECOMPUTED.get(name, set())
    warning = pytest.warns(co.gradients.RecomputedWarning) if recomputed else nullcontext()
    with warning:  # others are errors
        _, nodes = jax.eval_shape(
            co.per_example_value_and_grad(loss), params, (x, jnp.zeros((2, *labels), jnp.int32))
        )
    kinds = co.gradients.Factored | co.gradients.Stacked | co.gradients.Recomputed
    leaves = jax.tree.leaves_with_path(nodes, is_leaf=lambda x: isinstance(x, kinds))
    assert {
        leaf(path) for path, node in leaves if isinstance(node, co.gradients.Recomputed)
    } == recomputed
