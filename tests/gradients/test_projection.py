"""Sketches are one linear map of the formed gradients, and keep their inner products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from coherence.checks import example_gradients
from coherence.gradients import gram, materialize, per_example_value_and_grad, project
from coherence.gradients.projection import _hadamard
from tests import zoo

KEY = jax.random.key(3)
sketch = jax.jit(project, static_argnums=1)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


MODELS = {
    "a vector, a sequence, rows, recomputed": lambda: (lambda real: (real.nodes, real.rows))(
        example_gradients.real()
    ),
    "table looked up and multiplied with": lambda: formed(zoo.tied_embedding),
    "convolution": lambda: formed(zoo.convolution_of_a_small_map),
    "slices of a leaf": lambda: formed(zoo.sliced_weights),
    "scaled": lambda: formed(zoo.scaled_weights),
    "stacked layers": lambda: formed(zoo.scanned_layers),
}


def formed(model):
    gradients = zoo.gradients(model)
    return gradients, jax.tree.map(np.asarray, materialize(gradients))


@pytest.mark.parametrize("name", MODELS)
def test_factors_have_the_sketch_of_their_rows(name):
    gradients, rows = MODELS[name]()
    result, expected = sketch(gradients, 5, KEY), sketch(rows, 5, KEY)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_a_sketch_is_the_sum_of_signed_products_that_its_matrix_says():
    """Of one leaf 3 x 5: the map of each unit matrix, by which all its numbers are known."""
    units = np.eye(15, dtype=np.float32).reshape(15, 3, 5)
    matrix = np.asarray(sketch(units, 400, KEY)).T * 20  # [400, 15]
    # A sum of four products of signs over 2, so that its mean square is 1.
    assert set(np.unique(matrix.round(5))) <= {-2.0, -1.0, 0.0, 1.0, 2.0}
    assert abs(np.mean(matrix**2) - 1) < 0.05
    off_diagonal = matrix.T @ matrix / 400 - np.diag(np.mean(matrix**2, 0))
    assert np.abs(off_diagonal).max() < 5 / 400**0.5


def test_it_is_linear_and_a_tree_is_a_batch_of_one():
    g, scale = {"w": normal(4, 6, 7), "b": normal(4, 7, seed=1)}, 3.0
    each = sketch(g, 9, KEY)
    mean = jax.tree.map(lambda x: scale * x.mean(0, keepdims=True), g)
    np.testing.assert_allclose(sketch(mean, 9, KEY)[0], scale * each.mean(0), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def network():
    loss = lambda p, x: jnp.sum(jnp.tanh(jnp.tanh(x @ p["first"] + p["bias"]) @ p["second"]) ** 2)
    params = {"first": normal(50, 40) / 7, "bias": normal(40), "second": normal(40, 5) / 6}
    params = jax.tree.map(jnp.asarray, params)
    return jax.jit(per_example_value_and_grad(loss))(params, normal(60, 50) + 0.5)[1]


def errors(network, k, keys):
    """Of inner products, in units of the product of the norms: [keys, pairs]."""
    truth = np.asarray(gram(network), np.float64)
    norms = np.sqrt(np.diag(truth))
    each = jax.jit(jax.vmap(lambda key: project(network, k, key)))(keys)
    products = np.einsum("smk,snk->smn", each, each, dtype=np.float64)
    pairs = np.triu_indices(len(truth))
    return ((products - truth) / np.outer(norms, norms))[:, *pairs]


@pytest.fixture(scope="module")
def errors_of_64(network):
    return errors(network, 64, jax.random.split(KEY, 40))


def test_inner_products_are_unbiased_and_right_within_three_over_root_k(errors_of_64):
    wrong = errors_of_64
    standard = wrong.std(0) / 40**0.5
    assert np.abs(wrong.mean(0) / standard).mean() < 1.1  # 0.8 where the mean is zero
    assert np.mean(np.abs(wrong) < 3 / 8) > 0.99
    assert np.sqrt(np.mean(wrong**2)) < 1.5 / 8


def test_four_times_the_numbers_halve_the_error(network, errors_of_64):
    spread = errors(network, 16, jax.random.split(KEY, 10)).std()
    assert abs(spread / errors_of_64.std() - 2) < 0.5


def test_masked_examples_have_a_sketch_of_zeros():
    real = example_gradients.real()
    keep = np.asarray(real.masked["bias"].mask)
    result = np.asarray(sketch(real.masked, 5, KEY))
    assert not result[~keep].any()
    expected = np.asarray(sketch(real.rows, 5, KEY))[keep]
    np.testing.assert_allclose(
        result[keep], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )


def test_rows_are_never_formed():
    loss = lambda p, x: jnp.sum(jnp.tanh(jnp.tanh(x @ p["first"]) @ p["second"]) ** 2)
    params = {"first": jnp.ones((400, 500)), "second": jnp.ones((500, 2))}

    def sketched(params, batch):
        return project(per_example_value_and_grad(loss)(params, batch)[1], 64, KEY)

    program = jax.jit(sketched).lower(params, np.zeros((100, 400), np.float32)).compile()
    assert program.memory_analysis().temp_size_in_bytes < 4 * 100 * 400 * 500 / 10


def test_half_precision_is_transformed_in_float32():
    g = jnp.asarray(normal(3, 30, 20), jnp.bfloat16)
    result = sketch(g, 8, KEY)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, sketch(g.astype(jnp.float32), 8, KEY), rtol=1e-6)


@pytest.mark.parametrize("n", [1, 8, 256])
def test_the_transform_is_a_product_with_the_hadamard_matrix(n):
    x = normal(2, n)
    np.testing.assert_allclose(_hadamard(x), x @ scipy.linalg.hadamard(n), rtol=1e-4, atol=1e-4)


def test_a_sketch_has_numbers():
    with pytest.raises(
        ValueError, match=r"project\(k\): each gradient becomes at least 1 number, got 0\."
    ):
        project(normal(3, 2), 0, KEY)
