"""The maximal update parametrization.

How much a step of SGD does at every width, and what does not change.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence.lab.models import MLP, MuMLP, he_init, paper_init
from coherence.lab.tasks import cross_entropy

INPUTS, EXAMPLES = 32, 16
X = jax.random.uniform(jax.random.key(0), (EXAMPLES, INPUTS))
Y = jnp.arange(EXAMPLES) % 10
BASE, NARROW, WIDE = 32, 128, 1024
NETWORKS = {
    "standard": functools.partial(MLP, initializer="he"),
    "mu": functools.partial(MuMLP, base_width=BASE),
}


@functools.cache
def first_step(parametrization, width):
    """Root mean squares, means over 2 seeds.

    Of the logits at first, of their change by a step of gradient descent, and of the change of the
    last hidden layer's preactivations.
    """
    model = NETWORKS[parametrization](width, 2)

    def seen(params):
        logits, state = model.apply(params, X, capture_intermediates=True)
        return logits, state["intermediates"]["hidden_1"]["__call__"][0]

    def one(key):
        params = model.init(key, X[:1])
        batch_loss = lambda p: jax.vmap(cross_entropy(model), (None, 0))(p, (X, Y)).mean()
        moved = jax.tree.map(lambda p, g: p - 1e-3 * g, params, jax.grad(batch_loss)(params))
        (logits, hidden), (logits_after, hidden_after) = seen(params), seen(moved)
        return jnp.stack(
            [
                jnp.sqrt(jnp.mean(v**2))
                for v in (logits, logits_after - logits, hidden_after - hidden)
            ]
        )

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 2))).mean(0)


def growth(parametrization):
    """From the narrow network to one 8 times as wide."""
    return first_step(parametrization, WIDE) / first_step(parametrization, NARROW)


def test_at_its_base_width_it_is_the_standard_network():
    standard, maximal = (NETWORKS[how](BASE, 2) for how in ("standard", "mu"))
    params = jax.jit(standard.init)(jax.random.key(1), X[:1])
    np.testing.assert_allclose(
        jax.jit(maximal.apply)(params, X),
        jax.jit(standard.apply)(params, X),
        rtol=1e-5,
        atol=1e-6,
    )
    again = jax.jit(maximal.init)(jax.random.key(1), X[:1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), again, params)


def test_factors_of_weights_and_biases_are_those_of_the_equations():
    """At four times the base width s is 2."""
    model = MuMLP(4 * BASE, 2, 3, base_width=BASE)
    like = jax.eval_shape(model.init, jax.random.key(0), X[:1])
    leaves, treedef = jax.tree.flatten(like)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves)]
    params = treedef.unflatten(drawn)
    first, second, last = (
        jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"][name])
        for name in ("hidden_0", "hidden_1", "output")
    )
    hidden = np.maximum(2 * (np.asarray(X) @ first["kernel"] + first["bias"]), 0)
    hidden = np.maximum(hidden @ second["kernel"] + 2 * second["bias"], 0)
    expected = hidden @ last["kernel"] / 2 + last["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)(params, X), expected, rtol=1e-4)


def test_a_step_moves_logits_as_far_at_every_width_and_farther_the_wider_without_mu():
    assert growth("standard")[1] > 5  # 8 in the limit
    assert 0.6 < growth("mu")[1] < 1.6


def test_logits_start_smaller_the_wider():
    for width in (NARROW, WIDE):
        assert first_step("mu", width)[0] / first_step("standard", width)[0] == pytest.approx(
            (BASE / width) ** 0.5, rel=1e-3
        )


def test_hidden_layers_learn_as_much_at_every_width():
    assert 0.6 < growth("mu")[2] < 1.6
    assert growth("standard")[2] > 1.8  # 2.8 in the limit: the root of the width


def test_its_examples_keep_factors_and_nothing_is_recomputed():
    model = MuMLP(48, 2, 10, base_width=16)
    params = jax.eval_shape(model.init, jax.random.key(0), X[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value_and_grad = co.per_example_value_and_grad(cross_entropy(model))
        _, gradients = jax.eval_shape(value_and_grad, params, (X, Y))
    kinds = {
        type(leaf).__name__ for layer in gradients["params"].values() for leaf in layer.values()
    }
    assert kinds <= {"Factored", "Stacked"}
    assert type(gradients["params"]["hidden_1"]["kernel"]).__name__ == "Factored"
    by_layer = lambda g: co.gradients.squared_norms(g, by="layer")
    assert list(jax.eval_shape(by_layer, gradients)) == ["hidden_0", "hidden_1", "output"]


@pytest.mark.parametrize(("name", "function"), [("he", he_init), ("paper", paper_init)])
def test_an_initializer_is_named_or_given(name, function):
    one, other = (jax.jit(MLP(8, 1, 3, x).init)(jax.random.key(0), X[:1]) for x in (name, function))
    jax.tree.map(np.testing.assert_array_equal, one, other)
