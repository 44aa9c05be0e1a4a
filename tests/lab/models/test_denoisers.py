"""Noise predictors: one example or many, noise level and label, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.lab.models import DenoisingMLP, UNet
from coherence.lab.settings import rooms

MODELS = {
    "MLP": DenoisingMLP(8, 2, (3,), classes=4, embedding=6),
    "U-Net": UNet(4, 2, (4, 6, 2), classes=4, embedding=6),
}
T, Y = jnp.array([0, 7, 199]), jnp.array([0, 3, 4])


def made(name):
    model = MODELS[name]
    x = jax.random.normal(jax.random.key(0), (3, *model.shape))
    return jax.jit(model.apply), jax.jit(model.init)(jax.random.key(1), x, T, Y), x


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_gives_what_its_examples_give_one_by_one_and_all_that_is_told_counts(name):
    apply, params, x = made(name)
    together = apply(params, x, T, Y)
    assert together.shape == x.shape
    for i in range(3):
        alone = apply(params, x[i], T[i], Y[i])
        np.testing.assert_allclose(together[i], alone, rtol=1e-4, atol=1e-5)
    changed = [apply(params, x, T[::-1], Y), apply(params, x, T, Y[::-1])]
    for other in changed:
        assert (np.abs(other - together).reshape(3, -1).max(1) > 1e-4).tolist() == [
            True,
            False,
            True,
        ]
    untold = apply(params, x, T)
    np.testing.assert_allclose(untold[2], together[2], atol=1e-5)  # the label `classes` is none
    assert not np.allclose(untold[0], together[0])


def test_levels_are_told_apart_by_sines_and_cosines_of_falling_frequency():
    waves = DenoisingMLP(embedding=4).apply({}, jnp.array([0, 50]), None, method="conditions")
    expected = np.sin([0.5, 50.0]), np.cos([0.5, 50.0])
    np.testing.assert_allclose(waves[0], [0, 0, 1, 1])
    np.testing.assert_allclose(waves[1][::2], [expected[0][1], expected[1][1]], atol=1e-5)
    np.testing.assert_allclose(waves[1][1::2], [expected[0][0], expected[1][0]], atol=1e-5)


def test_a_u_net_halves_the_image_and_doubles_its_channels_once():
    model = UNet(8, 3, (8, 8, 1))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((8, 8, 1)), 0)["params"]
    kernel = lambda name: shapes[name]["kernel"].shape
    assert kernel("input") == (3, 3, 1, 8)
    assert [kernel(f"down_{i}") for i in (1, 2)] == [(3, 3, 8, 16), (3, 3, 16, 16)]
    assert kernel("decode_0_conv_0") == (3, 3, 16, 8)  # its own 8 and 8 that were passed on
    assert kernel("output") == (3, 3, 8, 1)


def test_they_describe_themselves_and_are_settings():
    assert DenoisingMLP().describe() == "noise predictor 2-256-256-256-2"
    assert UNet(classes=10).describe() == "U-Net 16-32, told one of 10 classes"
    assert {"DenoisingMLP", "UNet"} <= set(rooms.members("Denoisers"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DenoisingMLP(width=0), "DenoisingMLP: .* got width=0, depth=3, classes=0"),
        (lambda: DenoisingMLP(shape=()), r"DenoisingMLP\(shape\): .* at least 1 each; got \(\)"),
        (lambda: UNet(shape=(8, 8)), r"UNet: shape is height, width, channels, .* got \(8, 8\)"),
        (
            lambda: UNet(depth=3, shape=(8, 6, 1)),
            r"UNet\(depth=3, shape=\(8, 6, 1\)\): .* halved 2 times, so they are multiples of 4",
        ),
        (
            lambda: UNet().init(jax.random.key(0), jnp.zeros((2, 28, 28, 1)), 0),
            r"UNet\(shape=\(8, 8, 1\)\) takes one .* got shape \(2, 28, 28, 1\)",
        ),
        (
            lambda: DenoisingMLP().init(jax.random.key(0), jnp.zeros(2), 0, 1),
            r"DenoisingMLP has classes=0 and was given a label: .* DenoisingMLP\(classes=10\)",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
