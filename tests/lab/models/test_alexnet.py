"""AlexNet in small: locally connected layers are convolutions whose kernels need not be equal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence.lab.models import AlexNet

SHAPE = (7, 6, 2)
X = jax.random.normal(jax.random.key(0), (3, *SHAPE))


def pair():
    """The shared network and the locally connected one with the same kernel at every place."""
    shared, local = (AlexNet(2, 5, 3, shared=s) for s in (True, False))
    params, wider = shared.init(jax.random.key(1), X), local.init(jax.random.key(1), X)
    spread = lambda a, b: jnp.broadcast_to(a.reshape(-1, a.shape[-1]) if a.ndim > 1 else a, b.shape)
    same = jax.tree.map(
        lambda a, b: a if a.shape == b.shape else spread(a, b), params["params"], wider["params"]
    )
    return shared, params, local, {"params": same}


def test_with_equal_kernels_everywhere_it_is_the_convolutional_network():
    shared, params, local, same = pair()
    assert np.allclose(local.apply(same, X), shared.apply(params, X), atol=1e-5)
    assert np.allclose(local.apply(same, X[0]), shared.apply(params, X[0]), atol=1e-5)


def test_a_shared_kernels_gradient_is_the_sum_over_places():
    shared, params, local, same = pair()
    loss = lambda net: lambda p: (net.apply(p, X) ** 2).sum()
    by_kernel, by_place = jax.grad(loss(shared))(params), jax.grad(loss(local))(same)
    for layer in ("conv_0", "conv_1", "conv_2"):
        summed = by_place["params"][layer]["kernel"].sum((0, 1))
        own = by_kernel["params"][layer]["kernel"]
        assert np.allclose(summed.reshape(own.shape), own, rtol=1e-3, atol=1e-4)


def test_every_gradient_of_locally_connected_layers_has_a_rule():
    net = AlexNet(2, 5, 3, shared=False)
    params = net.init(jax.random.key(1), X)
    loss = lambda p, example: (net.apply(p, example) ** 2).sum()
    _, gradients = jax.jit(co.per_example_value_and_grad(loss))(params, X)
    rows = jax.vmap(jax.grad(loss), (None, 0))(params, X)
    expected = sum(jnp.square(leaf).sum(range(1, leaf.ndim)) for leaf in jax.tree.leaves(rows))
    assert np.allclose(co.gradients.squared_norms(gradients), expected, rtol=1e-4)


def test_it_is_described_by_its_layers_and_folds_flat_examples():
    assert AlexNet().describe(3072) == "AlexNet 8-16-16-256-256"
    local = AlexNet(4, 32, shared=False)
    assert local.describe(0) == "AlexNet, locally connected 4-8-8-32-32"
    flat = AlexNet(2, 5, 3, shape=SHAPE)
    params = flat.init(jax.random.key(0), X.reshape(3, -1))
    assert np.allclose(flat.apply(params, X.reshape(3, -1)), flat.apply(params, X))


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="AlexNet: width is at least 1, dense is at least 1; got"):
        AlexNet(dense=0)
    with pytest.raises(ValueError, match=r"AlexNet: shape is height, width, channels"):
        AlexNet(shape=(32, 32))
