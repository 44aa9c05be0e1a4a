"""Activations and their derivatives against closed forms, and what residual connections compute."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, expit

from coherence.lab.models import MLP
from coherence.lab.models.activations import ACTIVATIONS

X = np.array([-30.0, -3, -1, -0.25, 0.25, 1, 3, 30])
DENSITY = np.exp(-(X**2) / 2) / np.sqrt(2 * np.pi)
BELOW = (1 + erf(X / np.sqrt(2))) / 2
EXACT = {
    "step": (X > 0, 0 * X),
    "sigmoid": (expit(X), expit(X) * expit(-X)),
    "tanh": (np.tanh(X), 1 - np.tanh(X) ** 2),
    "relu": (X.clip(0), X > 0),
    "leaky_relu": (np.where(X > 0, X, 0.01 * X), np.where(X > 0, 1, 0.01)),
    "gelu": (X * BELOW, BELOW + X * DENSITY),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_derivatives_are_their_closed_forms(name):
    with jax.enable_x64(True):
        value, derivative = jax.vmap(jax.value_and_grad(ACTIVATIONS[name]))(jnp.asarray(X))
    np.testing.assert_allclose(value, EXACT[name][0], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(derivative, EXACT[name][1], rtol=1e-12, atol=1e-15)


def test_a_sigmoid_is_a_half_at_zero_and_nowhere_steeper_than_a_quarter():
    value, slope = jax.value_and_grad(ACTIVATIONS["sigmoid"])(0.0)
    assert (float(value), float(slope)) == (0.5, 0.25)
    assert float(jax.vmap(jax.grad(ACTIVATIONS["sigmoid"]))(jnp.linspace(-5, 5, 101)).max()) == 0.25


def test_a_residual_network_adds_what_comes_in_from_the_second_hidden_layer_on():
    x = np.linspace(-1, 1, 4, dtype=np.float32)
    model = MLP(3, 3, outputs=2, activation="tanh", residual=True)
    params = jax.jit(model.init)(jax.random.key(0), x)
    layer = lambda name, x: x @ params["params"][name]["kernel"] + params["params"][name]["bias"]
    h = np.tanh(layer("hidden_0", x))
    h = h + np.tanh(layer("hidden_1", h))
    h = h + np.tanh(layer("hidden_2", h))
    np.testing.assert_allclose(jax.jit(model.apply)(params, x), layer("output", h), rtol=1e-5)
