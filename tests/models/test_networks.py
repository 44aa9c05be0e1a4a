"""The built-in networks: sizes, the paper's initial weights, one example or many."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.models import CNN, MLP, Convolutional, FullyConnected, Linear, LinearMap, paper_init

NETWORKS = [
    (MLP(width=8, depth=2), (6,)),
    (MLP(width=8, depth=0), (6,)),
    (MLP(width=8), (4, 4, 2)),
    (CNN(features=(4, 4, 4)), (8, 8, 1)),
    (CNN(features=(4,), shape=(8, 8, 1)), (64,)),
    (Linear(outputs=10), (6,)),
]


@pytest.mark.parametrize(("model", "shape"), NETWORKS)
def test_a_batch_gives_what_its_examples_give_one_by_one(model, shape):
    batch = jax.random.normal(jax.random.key(0), (3, *shape))
    params = model.init(jax.random.key(1), batch[0])
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, model.init(jax.random.key(1), batch))
    together = model.apply(params, batch)
    assert together.shape == (3, 10)
    np.testing.assert_allclose(together, jnp.stack([model.apply(params, x) for x in batch]), rtol=1e-5, atol=1e-6)


def test_depth_counts_the_hidden_layers():
    params = MLP(width=256, depth=3).init(jax.random.key(0), jnp.zeros(784))["params"]
    assert jax.tree.map(jnp.shape, params) == {
        "hidden_0": {"kernel": (784, 256), "bias": (256,)},
        "hidden_1": {"kernel": (256, 256), "bias": (256,)},
        "hidden_2": {"kernel": (256, 256), "bias": (256,)},
        "output": {"kernel": (256, 10), "bias": (10,)},
    }


def test_the_papers_initial_weights_are_root_two_times_glorots_and_biases_zero():
    params = MLP(width=300).init(jax.random.key(0), jnp.zeros(500))["params"]
    assert params["hidden_0"]["kernel"].std() == pytest.approx(2 / np.sqrt(500 + 300), rel=0.01)
    assert abs(params["hidden_0"]["kernel"]).max() > 3.5 * 2 / np.sqrt(800)  # a normal's tails, not a truncated one's
    assert not params["hidden_0"]["bias"].any()
    assert not params["output"]["bias"].any()


def test_the_linear_model_starts_at_zero_without_bias():
    params = Linear().init(jax.random.key(0), jnp.zeros(6))["params"]
    assert jax.tree.map(jnp.shape, params) == {"output": {"kernel": (6, 1)}}
    assert not params["output"]["kernel"].any()


def test_strides_halve_the_image_after_the_first_convolution():
    params = CNN().init(jax.random.key(0), jnp.zeros((28, 28, 1)))["params"]
    assert params["output"]["kernel"].shape == (7 * 7 * 64, 10)


def test_flat_examples_need_a_shape():
    with pytest.raises(ValueError, match=r"CNN takes images \[h, w, c\] .* got shape \(784,\)\. .*CNN\(shape=\(28, 28, 1\)\)"):
        CNN().init(jax.random.key(0), jnp.zeros(784))


def test_settings_build_the_network_they_describe():
    assert FullyConnected(32, 2).build(5) == MLP(32, 2, 5, paper_init)
    assert Convolutional([8], [28, 28, 1]).build(10) == CNN((8,), 10, (28, 28, 1))
    assert LinearMap().build(1) == Linear(1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FullyConnected(width=0), "FullyConnected: width is at least 1 and depth at least 0, got width=0, depth=1"),
        (lambda: FullyConnected(depth=-1), "depth=-1"),
        (lambda: Convolutional(features=()), "Convolutional: features are the channels of at least one convolution"),
        (lambda: Convolutional(shape=(28, 28)), r"Convolutional: shape is height, width and channels, as \(28, 28, 1\)"),
    ],
)
def test_impossible_sizes_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_settings_never_import_jax():
    program = "import sys; from coherence.models import FullyConnected, Convolutional; FullyConnected(); print('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
