"""The built-in networks: sizes, the paper's initial weights, one example or many."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.lab.models import (
    CNN,
    LSTM,
    MLP,
    RNN,
    DeepLinear,
    DiagonalChain,
    Linear,
    ResNet,
)

NETWORKS = [
    (MLP(width=8, depth=2), (6,)),
    (MLP(width=8, depth=0), (6,)),
    (MLP(width=8), (4, 4, 2)),
    (CNN(width=4), (8, 8, 1)),
    (CNN(width=4, depth=1, shape=(8, 8, 1)), (64,)),
    (ResNet(width=4, depth=1, stages=2), (8, 8, 3)),
    (ResNet(width=3, depth=1, stages=1, shape=(4, 4, 2)), (32,)),
    (Linear(outputs=10), (6,)),
    (DeepLinear(width=8, depth=2), (6,)),
    (DeepLinear(width=8), (4, 4, 2)),
    (DiagonalChain(outputs=10, initial=0.5), (6,)),
    (DiagonalChain(outputs=10, initial=0.5), (2, 2, 2)),
    (LSTM(width=5, depth=2), (7, 3)),
    (LSTM(width=5, shape=(7, 3)), (21,)),
    (RNN(width=5, depth=2), (7, 3)),
    (RNN(width=5, shape=(7, 3)), (21,)),
]


@pytest.mark.parametrize(("model", "shape"), NETWORKS)
def test_a_batch_gives_what_its_examples_give_one_by_one(model, shape):
    batch = jax.random.normal(jax.random.key(0), (3, *shape))
    init = jax.jit(model.init)
    params, again, other = (init(jax.random.key(seed), batch[0]) for seed in (1, 1, 2))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(
        jnp.shape, jax.eval_shape(model.init, jax.random.key(1), batch)
    )
    both_ways = lambda p, batch: (
        model.apply(p, batch),
        jax.lax.map(lambda x: model.apply(p, x), batch),
    )
    together, in_turn = jax.jit(both_ways)(params, batch)
    assert together.shape == (3, 10)
    assert jax.eval_shape(model.apply, params, batch[:1]).shape == (1, 10)
    np.testing.assert_allclose(together, in_turn, rtol=1e-4, atol=1e-5)
    same = lambda a, b: all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
    assert same(params, again)  # the key decides, and only it
    assert same(params, other) == isinstance(
        model, Linear | DiagonalChain
    )  # these start at one constant


def test_depth_counts_the_hidden_layers():
    params = jax.eval_shape(MLP(width=256, depth=3).init, jax.random.key(0), jnp.zeros(784))[
        "params"
    ]
    assert jax.tree.map(jnp.shape, params) == {
        "hidden_0": {"kernel": (784, 256), "bias": (256,)},
        "hidden_1": {"kernel": (256, 256), "bias": (256,)},
        "hidden_2": {"kernel": (256, 256), "bias": (256,)},
        "output": {"kernel": (256, 10), "bias": (10,)},
    }


def test_the_papers_initial_weights_are_root_two_times_glorots_and_biases_zero():
    params = jax.jit(MLP(width=300).init)(jax.random.key(0), jnp.zeros(500))["params"]
    assert MLP().initializer == "paper"
    assert params["hidden_0"]["kernel"].std() == pytest.approx(2 / np.sqrt(500 + 300), rel=0.01)
    assert abs(params["hidden_0"]["kernel"]).max() > 3.5 * 2 / np.sqrt(
        800
    )  # a normal's tails, not a truncated one's
    assert not params["hidden_0"]["bias"].any()
    assert not params["output"]["bias"].any()


def test_a_cnn_doubles_its_channels_once_and_halves_the_image_at_each_later_convolution():
    shapes = jax.eval_shape(CNN().init, jax.random.key(0), jnp.zeros((28, 28, 1)))["params"]
    assert [shapes[f"conv_{layer}"]["kernel"].shape for layer in range(3)] == [
        (3, 3, 1, 32),
        (3, 3, 32, 64),
        (3, 3, 64, 64),
    ]
    assert shapes["output"]["kernel"].shape == (7 * 7 * 64, 10)
    shapes = jax.eval_shape(CNN(width=8, depth=4).init, jax.random.key(0), jnp.zeros((32, 32, 3)))[
        "params"
    ]
    assert shapes["conv_3"]["kernel"].shape == (3, 3, 16, 16)
    assert shapes["output"]["kernel"].shape == (4 * 4 * 16, 10)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            CNN(),
            r"CNN takes images \[h, w, c\] .* got shape \(784,\)\. .*CNN\(shape=\(28, 28, 1\)\)",
        ),
        (
            ResNet(),
            r"ResNet takes images \[h, w, c\] .* got shape \(784,\)\. .*ResNet\(shape=\(28, 28, "
            r"1\)\)",
        ),
        (
            CNN(shape=(8, 8, 1)),
            r"shape: \(8, 8, 1\) holds 64 numbers and a flat example has 784\. Leave shape away "
            r"where",
        ),
        (RNN(shape=(8, 8)), r"shape: \(8, 8\) holds 64 numbers and a flat example has 784"),
    ],
)
def test_flat_examples_need_their_shape(model, said):
    with pytest.raises(ValueError, match=said):
        model.init(jax.random.key(0), jnp.zeros(784))


def test_folding_flat_examples_changes_no_number():
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    for flat, model in (
        (CNN(4, 1, shape=(8, 8, 3)), CNN(4, 1)),
        (LSTM(4, shape=(8, 24)), LSTM(4)),
        (RNN(4, shape=(8, 24)), RNN(4)),
    ):
        sequences = images if isinstance(model, CNN) else images.reshape(2, 8, 24)
        params = jax.jit(model.init)(jax.random.key(1), sequences)
        both = jax.jit(
            lambda *args, a=flat, b=model: (a.apply(*args[:2]), b.apply(args[0], args[2]))
        )
        np.testing.assert_array_equal(*both(params, images.reshape(2, -1), sequences))
