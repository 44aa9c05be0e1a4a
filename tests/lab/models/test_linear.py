"""Networks linear in their input.

The diagonal chain has closed forms, on the six-feature set with a shared feature.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence.lab.data import learnable
from coherence.lab.models import DeepLinear, DiagonalChain, Linear
from coherence.lab.tasks import cross_entropy
from coherence.lab.tasks.regression import half_squared_error
from tests import reference, zoo

M, START, STEP = 4, 0.1, 0.005


def test_the_linear_model_starts_at_zero_without_bias():
    params = jax.jit(Linear().init)(jax.random.key(0), jnp.zeros(6))["params"]
    assert jax.tree.map(jnp.shape, params) == {"output": {"kernel": (6, 1)}}
    assert not params["output"]["kernel"].any()


def test_a_deep_linear_network_is_the_product_of_its_matrices():
    model, x = DeepLinear(width=5, depth=2, outputs=3), zoo.normal(0, 4, 6)
    params = jax.jit(model.init)(jax.random.key(0), x)
    assert {name: leaf["kernel"].shape for name, leaf in params["params"].items()} == {
        "hidden_0": (6, 5),
        "hidden_1": (5, 5),
        "output": (5, 3),
    }
    product = np.eye(6)
    for name in ("hidden_0", "hidden_1", "output"):
        product = product @ np.asarray(params["params"][name]["kernel"], np.float64)
    np.testing.assert_allclose(
        jax.jit(model.apply)(params, x), np.asarray(x) @ product, rtol=1e-4, atol=1e-5
    )


def test_a_signal_keeps_its_size_through_many_linear_layers():
    x = zoo.normal(0, 10, 300)
    model = DeepLinear(width=300, depth=9, outputs=300)
    logits = jax.jit(model.init_with_output)(jax.random.key(0), x)[0]
    assert 0.5 < jnp.std(logits) < 2


def flow(depth, steps):
    """Gradient descent in small steps from `START`: the weights [6, steps] and alpha [steps]."""
    data, model = learnable(), DiagonalChain(depth, initial=START)
    gradient = co.per_example_value_and_grad(half_squared_error(model))

    def step(params, _):
        _, g = gradient(params, (data.x_train, data.y_train))
        return jax.tree.map(lambda w, d: w - STEP * d, params, co.mean(g)), (params, co.alpha(g))

    _, (factors, alphas) = jax.lax.scan(
        step, jax.jit(model.init)(jax.random.key(0), data.x_train), length=steps
    )
    weights = np.prod([np.asarray(w, np.float64)[..., 0] for w in jax.tree.leaves(factors)], axis=0)
    return weights.T, np.asarray(alphas)


def private_weight(depth, shared):
    """u_i where the shared weight is u_6, of gradient flow from equal weights."""
    if depth == 1:
        return START + (shared - START) / M
    if depth == 2:
        return START ** (1 - 1 / M) * shared ** (1 / M)
    beta = 1 - 2 / depth
    return (START**-beta - (START**-beta - shared**-beta) / M) ** (-1 / beta)


@pytest.mark.parametrize(
    ("depth", "learned", "coherent"), [(1, 0.739, 0.625), (2, 0.830, 0.872), (3, 0.849, 0.932)]
)
def test_a_diagonal_chain_follows_its_closed_form(depth, learned, coherent):
    (*private, unseen, shared), alphas = flow(depth, 1500)
    assert shared[0] == pytest.approx(START)
    assert shared[-1] == pytest.approx(
        learned, abs=2e-3
    )  # the deeper, the more of the label is put on what is shared
    np.testing.assert_allclose(private, np.tile(private_weight(depth, shared), (M, 1)), rtol=1e-3)
    np.testing.assert_allclose(unseen, START, rtol=1e-5)  # the test example's own feature
    kappa = 2 - 2 / depth
    np.testing.assert_allclose(
        alphas,
        (shared**kappa + private[0] ** kappa / M) / (shared**kappa + private[0] ** kappa),
        rtol=1e-5,
    )
    assert alphas[0] == pytest.approx(0.625)
    assert alphas[-1] == pytest.approx(coherent, abs=2e-3)


@pytest.mark.parametrize(("depth", "outputs"), [(1, 3), (2, 3), (3, 1)])
def test_every_factor_of_a_chain_has_exact_gradients_of_each_example(depth, outputs):
    model, x = DiagonalChain(depth, outputs), zoo.normal(0, 5, 6)
    params = jax.tree.map(
        lambda w: w + 0.3 * zoo.normal(w.size, *w.shape), jax.jit(model.init)(jax.random.key(0), x)
    )
    y = jnp.arange(5) % outputs if outputs > 1 else zoo.normal(1, 5)
    loss = cross_entropy(model) if outputs > 1 else half_squared_error(model)

    @jax.jit
    def reduced(params, batch):
        _, g = co.per_example_value_and_grad(loss)(params, batch)
        return co.gradients.materialize(g), co.gradients.squared_norms(g), co.gradients.gram(g)

    rows, norms, gram = reduced(params, (x, y))
    truth = reference.flat(reference.gradients(loss, params, (x, y)))
    assert len(jax.tree.leaves(params)) == depth
    np.testing.assert_allclose(reference.flat(rows), truth, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norms, (truth**2).sum(1), rtol=1e-4)
    scale = (truth**2).sum(1).max()
    np.testing.assert_allclose(gram, truth @ truth.T, rtol=1e-4, atol=1e-4 * scale)
