"""The maximal update parametrization: how much a step of SGD does at every width, and what does not change."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence.lab.models import MLP, FullyConnected, MuMLP, Parametrized, he_init, paper_init
from coherence.lab.tasks import cross_entropy

INPUTS, EXAMPLES = 32, 16
X = jax.random.uniform(jax.random.key(0), (EXAMPLES, INPUTS))
Y = jnp.arange(EXAMPLES) % 10
BASE, NARROW, WIDE = 32, 128, 1024


@functools.cache
def first_step(parametrization, width):
    """Root mean square of the logits at first, of their change by a step of gradient descent, and of the change of the last hidden
    layer's preactivations; mean over 2 seeds."""
    model = Parametrized(width, 2, parametrization, base_width=BASE).build(10)

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
    standard, maximal = (
        Parametrized(BASE, 2, how, base_width=BASE).build(10) for how in ("standard", "mu")
    )
    params = standard.init(jax.random.key(1), X[:1])
    np.testing.assert_allclose(
        maximal.apply(params, X), standard.apply(params, X), rtol=1e-5, atol=1e-6
    )
    again = maximal.init(jax.random.key(1), X[:1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), again, params)


def test_a_step_moves_the_logits_as_far_at_every_width_and_in_the_standard_parametrization_farther_the_wider():
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
    params = model.init(jax.random.key(0), X[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, gradients = co.per_example_value_and_grad(cross_entropy(model))(params, (X, Y))
    kinds = {
        type(leaf).__name__ for layer in gradients["params"].values() for leaf in layer.values()
    }
    assert kinds <= {"Factored", "Stacked"}
    assert type(gradients["params"]["hidden_1"]["kernel"]).__name__ == "Factored"
    assert list(co.squared_norms(gradients, by=co.layer)) == ["hidden_0", "hidden_1", "output"]


def test_settings_build_the_network_they_describe():
    mu, standard = Parametrized(128, 2, base_width=16), Parametrized(128, 2, "standard")
    assert mu.build(10) == MuMLP(128, 2, 10, 16)
    assert mu.describe(64, 10) == "MLP 64-128-128-10 (mu, base width 16)"
    assert standard.build(10) == MLP(128, 2, 10, he_init)
    assert standard.describe(64, 10) == "MLP 64-128-128-10 (standard)"
    assert FullyConnected(128, 2).build(10) == MLP(128, 2, 10, paper_init)  # as ever


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"base_width": 0},
            "Parametrized: parametrization is standard or mu and base_width at least 1, got parametrization='mu', base_w",
        ),
        ({"parametrization": "ntk"}, "got parametrization='ntk', base_width=64"),
        (
            {"width": 0},
            "Parametrized: width is at least 1 and depth at least 0, got width=0, depth=1",
        ),
    ],
)
def test_impossible_settings_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        Parametrized(**given)
