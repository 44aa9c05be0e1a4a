"""Autoencoders: the tutorial's layers and PyTorch's initial weights, one image or many, labels
joined at both ends.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.lab.models import AE, VAE, ConditionalVAE, ConvVAE, uniform_init

SMALL = {"width": 6, "latents": 2, "shape": (8, 8, 1)}
NETWORKS = [
    AE(**SMALL),
    VAE(**SMALL),
    VAE(**SMALL, sigmoid=True),
    ConditionalVAE(**SMALL),
    ConvVAE(**{**SMALL, "width": 3}),
]
IMAGES = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1))
LABELS = jnp.array([0, 9, 3])


def inputs(model, x=IMAGES, y=LABELS):
    return (x, y) if isinstance(model, ConditionalVAE) else (x,)


def shapes(model, *examples):
    return jax.tree.map(
        lambda leaf: leaf.shape, jax.eval_shape(model.init, jax.random.key(0), *examples)["params"]
    )


def count(model, *examples):
    return sum(
        math.prod(leaf.shape)
        for leaf in jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0), *examples))
    )


def layer(inputs, outputs):
    return {"kernel": (inputs, outputs), "bias": (outputs,)}


def window(inputs, outputs):
    return {"kernel": (3, 3, inputs, outputs), "bias": (outputs,)}


@pytest.mark.parametrize("model", NETWORKS, ids=lambda model: type(model).__name__)
def test_a_batch_gives_what_its_images_give_one_by_one_flat_or_folded(model):
    batch = inputs(model)
    params = model.init(jax.random.key(1), *batch)
    apply = jax.jit(model.apply, static_argnames="method")
    for method in (None, "encode"):
        together = apply(params, *batch, method=method)
        alone = [apply(params, *(x[i] for x in batch), method=method) for i in range(3)]
        jax.tree.map(
            lambda a, *b: np.testing.assert_allclose(a, np.stack(b), rtol=1e-4, atol=1e-6),
            together,
            *alone,
        )
        flat = apply(params, IMAGES.reshape(3, 64), *batch[1:], method=method)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), together, flat)
    assert apply(params, *batch).shape == (3, 8, 8, 1)


@pytest.mark.parametrize("model", NETWORKS, ids=lambda model: type(model).__name__)
def test_a_reconstruction_is_what_the_middle_decodes_to(model):
    batch = inputs(model)
    params = model.init(jax.random.key(1), *batch)
    middle = model.apply(params, *batch, method="encode")
    z = middle if isinstance(model, AE) else middle[0]
    image = model.apply(params, z, *batch[1:], method="decode")
    logits = model.apply(params, z, *batch[1:], method="logits")
    np.testing.assert_array_equal(image, model.apply(params, *batch))
    np.testing.assert_array_equal(image, jax.nn.sigmoid(logits) if model.sigmoid else logits)


def test_the_dense_networks_have_the_tutorials_layers():
    flat = jnp.zeros(784)
    decoder = {
        "hidden_0": layer(1, 2048),
        "hidden_1": layer(2048, 2048),
        "output": layer(2048, 784),
    }
    encoder = {"hidden_0": layer(784, 2048), "hidden_1": layer(2048, 2048)}
    assert shapes(AE(), flat) == {"encoder": {**encoder, "z": layer(2048, 1)}, "decoder": decoder}
    assert shapes(VAE(), flat) == {
        "encoder": {**encoder, "mu": layer(2048, 1), "log_var": layer(2048, 1)},
        "decoder": decoder,
    }
    assert count(AE(), flat) == (784 + 1 + 2048 + 1) * 2048 + 2049 + (2 + 2049) * 2048 + 2049 * 784
    assert count(VAE(), flat) == count(AE(), flat) + 2049


def test_the_convolutional_network_has_the_tutorials_layers():
    image = jnp.zeros((28, 28, 1))
    found = shapes(ConvVAE(), image)
    assert found["encoder"] == {
        "conv_0": window(1, 32),
        "conv_1": window(32, 64),
        "conv_2": window(64, 64),
        "conv_3": window(64, 64),
        "mu": layer(3136, 1),
        "log_var": layer(3136, 1),
    }
    assert found["decoder"] == {
        "input": layer(1, 3136),
        "conv_0": window(64, 64),
        "conv_1": window(64, 64),
        "conv_2": window(64, 32),
        "conv_3": window(32, 1),
    }
    assert (
        count(ConvVAE(), image)
        == 320 + 18496 + 2 * 36928 + 2 * 3137 + 2 * 3136 + 2 * 36928 + 18464 + 289
    )


def test_maps_halve_and_double_as_in_the_table():
    model, image = ConvVAE(), jnp.zeros((28, 28, 1))
    forward = lambda key: model.init_with_output(key, image, capture_intermediates=True)[1][
        "intermediates"
    ]
    found = jax.eval_shape(forward, jax.random.key(0))
    sizes = lambda part: [found[part][f"conv_{i}"]["__call__"][0].shape for i in range(4)]
    assert sizes("encoder") == [(28, 28, 32), (14, 14, 64), (7, 7, 64), (7, 7, 64)]
    assert sizes("decoder") == [(7, 7, 64), (14, 14, 64), (28, 28, 32), (28, 28, 1)]


def convolved(x, kernel, stride):
    """PyTorch's `Conv2d(kernel_size=3, padding=1)`."""
    x = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    steps = range(0, x.shape[0] - 2, stride), range(0, x.shape[1] - 2, stride)
    return np.array(
        [
            [np.einsum("hwc,hwco->o", x[i : i + 3, j : j + 3], kernel) for j in steps[1]]
            for i in steps[0]
        ]
    )


def spread(x, kernel, stride):
    """PyTorch's `ConvTranspose2d(kernel_size=3, padding=1, output_padding=stride - 1)`.

    Flax keeps the window turned around.
    """
    height, width, _ = x.shape
    y = np.zeros((stride * height + 2, stride * width + 2, kernel.shape[-1]))
    for i in range(height):
        for j in range(width):
            y[stride * i : stride * i + 3, stride * j : stride * j + 3] += np.einsum(
                "c,hwco->hwo", x[i, j], kernel[::-1, ::-1]
            )
    return y[1:-1, 1:-1]


def test_strided_windows_lie_as_in_pytorch():
    model = ConvVAE(width=2, shape=(8, 8, 1))
    params = model.init(jax.random.key(0), IMAGES[0])
    _, kept = model.apply(params, IMAGES[0], capture_intermediates=True, mutable=["intermediates"])
    leaky = lambda x: np.where(x > 0, x, 0.01 * x)
    for part, layer_of, strides in (
        ("encoder", convolved, (1, 2, 2, 1)),
        ("decoder", spread, (1, 2, 2, 1)),
    ):
        found = lambda i: np.asarray(kept["intermediates"][part][f"conv_{i}"]["__call__"][0])
        x = (
            IMAGES[0]
            if part == "encoder"
            else np.asarray(kept["intermediates"][part]["input"]["__call__"][0]).reshape(2, 2, 4)
        )
        for i, stride in enumerate(strides):
            weights = params["params"][part][f"conv_{i}"]
            np.testing.assert_allclose(
                found(i),
                layer_of(x, weights["kernel"], stride) + weights["bias"],
                rtol=1e-4,
                atol=1e-6,
            )
            x = leaky(found(i))


def test_weights_and_biases_start_uniform_within_pytorchs_bounds():
    params = jax.jit(ConvVAE(width=8).init)(jax.random.key(0), jnp.zeros((28, 28, 1)))["params"]
    fan_in = {
        ("encoder", "conv_0"): 9,
        ("encoder", "conv_1"): 9 * 8,
        ("encoder", "conv_3"): 9 * 16,
        ("encoder", "log_var"): 784,
        ("decoder", "input"): 1,
        ("decoder", "conv_0"): 9 * 16,
        ("decoder", "conv_2"): 9 * 8,  # of a transposed convolution: output channels
        ("decoder", "conv_3"): 9 * 1,
    }
    for (part, name), inputs_of_a_unit in fan_in.items():
        bound, weights = 1 / math.sqrt(inputs_of_a_unit), params[part][name]
        assert abs(weights["kernel"]).max() <= bound
        assert abs(weights["bias"]).max() <= bound
        assert weights["kernel"].std() == pytest.approx(bound / math.sqrt(3), rel=0.15)
        assert weights["bias"].any()
    dense = jax.jit(VAE(width=300, shape=(20, 20, 1)).init)(jax.random.key(0), jnp.zeros(400))[
        "params"
    ]["encoder"]["hidden_0"]
    assert dense["kernel"].std() == pytest.approx(1 / math.sqrt(3 * 400), rel=0.01)
    assert 0.9 / 20 < abs(dense["bias"]).max() <= 1 / 20
    assert abs(uniform_init(4)(jax.random.key(0), (10_000,)).mean()) < 0.01


def test_a_label_decides_what_a_conditional_network_draws():
    model = ConditionalVAE(**SMALL)
    params = model.init(jax.random.key(1), IMAGES, LABELS)
    z = jnp.zeros((10, 2))
    drawn = model.apply(params, z, jnp.arange(10), method="decode")
    assert len(np.unique(np.asarray(drawn).reshape(10, -1), axis=0)) == 10
    mu, _ = model.apply(params, IMAGES[:1].repeat(10, 0), jnp.arange(10), method="encode")
    assert len(np.unique(np.asarray(mu), axis=0)) == 10
    assert params["params"]["encoder"]["hidden_0"]["kernel"].shape == (64 + 10, 6)
    assert params["params"]["decoder"]["hidden_0"]["kernel"].shape == (2 + 10, 6)


@pytest.mark.parametrize(
    ("model", "described"),
    [
        (AE(), "AE 784-2048-2048-1"),
        (AE(16, 0, 3, (8, 8, 1)), "AE 64-3"),
        (VAE(latents=2, sigmoid=True), "VAE 784-2048-2048-2"),
        (ConditionalVAE(width=8, classes=4), "conditional VAE 784-8-8-1, 4 classes"),
        (ConvVAE(), "convolutional VAE 32-64-64-64-1"),
    ],
)
def test_they_describe_themselves(model, described):
    assert model.describe() == described


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: AE(width=0),
            "AE: width is at least 1, latents is at least 1; got width=0, latents=1",
        ),
        (lambda: VAE(latents=0), "VAE: .* got width=2048, latents=0"),
        (lambda: VAE(depth=-1), "VAE: depth is at least 0; got depth=-1"),
        (
            lambda: VAE(shape=(784,)),
            r"VAE: shape is height, width, channels, as \(28, 28, 1\); got \(784,\)",
        ),
        (
            lambda: ConditionalVAE(classes=0),
            "ConditionalVAE: classes is at least 1; got classes=0",
        ),
        (lambda: ConvVAE(width=0), "ConvVAE: width is at least 1, .* got width=0, latents=1"),
        (lambda: ConvVAE(shape=(10, 8, 1)), r"ConvVAE.* multiples of 4; got \(10, 8, 1\)"),
        (lambda: ConvVAE(shape=(8, 9, 1)), r"ConvVAE.* multiples of 4; got \(8, 9, 1\)"),
        (
            lambda: ConvVAE().init(jax.random.key(0), jnp.zeros(64)),
            r"shape: \(28, 28, 1\) holds 784 numbers and a flat example has 64",
        ),
    ],
)
def test_impossible_sizes_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
