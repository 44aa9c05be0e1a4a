"""Sharpness against numpy's eigenvalues of the whole Hessian: known spectra and small nets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from coherence.metrics.curvature import sharpness
from tests import zoo

KEY = jax.random.key(0)


def bowl(params, curvatures):
    """Per-example curvatures along rotated axes; their mean is the spectrum."""
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
    return 0.5 * jnp.sum(
        curvatures
        * (jnp.asarray(rotation, jnp.float32) @ jnp.concatenate([params["a"], params["b"]])) ** 2
    )


PARAMS = {"a": jnp.ones(2), "b": jnp.ones(4)}
SPECTRA = {
    "one large": [9.0, 1.0, 0.5, 0.1, 0.0, -1.0],
    "a more negative one": [2.0, 1.0, 0.5, 0.1, 0.0, -9.0],
    "equally far on both sides": [3.0, 1.0, 0.5, 0.1, -1.0, -3.0],
    "almost equally far": [3.0, 1.0, 0.5, 0.1, -1.0, -2.99],
    "negative definite": [-1.0, -2.0, -3.0, -4.0, -5.0, -9.0],
    "all the same": [2.0] * 6,
    "all the same, negative": [-2.0] * 6,
}


@pytest.fixture(scope="module")
def sharpness_of_bowl():
    return jax.jit(
        lambda batch, tolerance: sharpness(
            bowl, PARAMS, batch, KEY, iterations=200, tolerance=tolerance
        )
    )


@pytest.mark.parametrize("name", SPECTRA)
def test_the_largest_curvature_of_a_bowl_is_found(name, sharpness_of_bowl):
    spectrum = np.array(SPECTRA[name])
    batch = jnp.asarray(np.stack([spectrum + 1, spectrum - 1]), jnp.float32)
    found = sharpness_of_bowl(batch, 1e-3)
    np.testing.assert_allclose(found.value, spectrum.max(), rtol=1e-3)
    assert found.residual <= 1e-3
    assert found.iterations <= 400  # two rounds


def test_a_smaller_tolerance_takes_longer_and_comes_closer(sharpness_of_bowl):
    batch = jnp.asarray([[9.0, 8.0, 7.0, 5.0, 3.0, 1.0]])
    coarse, fine = sharpness_of_bowl(batch, 1e-1), sharpness_of_bowl(batch, 1e-4)
    assert coarse.iterations < fine.iterations < 200
    assert fine.residual <= 1e-4 < coarse.residual <= 1e-1
    assert abs(fine.value - 9) < abs(coarse.value - 9)


def test_opposite_curvatures_do_not_confuse_it_wherever_it_starts():
    batch, keys = jnp.asarray([SPECTRA["almost equally far"]]), jax.random.split(KEY, 8)
    found = jax.jit(jax.vmap(lambda key: sharpness(bowl, PARAMS, batch, key)))(keys)
    np.testing.assert_allclose(found.value, 3, rtol=1e-3)


def test_the_units_of_the_loss_do_not_count(sharpness_of_bowl):
    batch = jnp.asarray([SPECTRA["one large"]])
    small, large = sharpness_of_bowl(batch, 1e-3), sharpness_of_bowl(1024 * batch, 1e-3)
    np.testing.assert_allclose(
        large, (1024 * small.value, small.residual, small.iterations), rtol=1e-3
    )


def test_a_tolerance_of_nothing_is_survived():
    loss = lambda w, x: -x * jnp.sum(w**2)  # once shifted, nothing is left but rounding
    found = jax.jit(
        jax.vmap(lambda key: sharpness(loss, jnp.ones(6), jnp.ones(1), key, tolerance=0))
    )(jax.random.split(KEY, 8))
    np.testing.assert_allclose(found.value, -2, rtol=1e-5)


def test_flat_ground_has_none_and_takes_one_look(sharpness_of_bowl):
    np.testing.assert_array_equal(sharpness_of_bowl(jnp.zeros((1, 6)), 1e-3), (0, 0, 1))


def test_when_the_iterations_run_out_the_residual_says_so():
    found = sharpness(
        bowl, PARAMS, jnp.asarray([[9.0, 8.9, 8.8, 5.0, 3.0, 1.0]]), KEY, iterations=2
    )
    assert found.residual > 1e-3
    assert found.iterations == 4  # two rounds
    assert 5 < found.value < 9


def test_the_second_round_goes_on_where_the_first_was_cut_short():
    curvatures = np.array([9.0, 8.9, 8.8, 5.0, 3.0, 1.0])
    hessian = jax.hessian(lambda v: bowl({"a": v[:2], "b": v[2:]}, curvatures))(jnp.ones(6))
    v = hessian @ jax.random.normal(KEY, (6,))
    after_the_first = v @ hessian @ v / (v @ v)
    assert (
        sharpness(bowl, PARAMS, jnp.asarray(curvatures[None]), KEY, iterations=2).value
        > after_the_first + 1e-3
    )


@pytest.mark.parametrize("model", [zoo.dense, zoo.siamese, zoo.norm_layer])
def test_a_networks_sharpness_is_the_largest_eigenvalue_of_its_hessian(model):
    loss, params, batch = model()
    flat, unravel = ravel_pytree(params)
    hessian = jax.hessian(
        lambda v: jnp.mean(jax.vmap(lambda example: loss(unravel(v), example))(batch))
    )(flat)
    expected = np.linalg.eigvalsh(np.asarray(hessian, np.float64)).max()
    found = jax.jit(lambda p, b, key: sharpness(loss, p, b, key, iterations=1000))(
        params, batch, KEY
    )
    np.testing.assert_allclose(found.value, expected, rtol=2e-3)


def test_narrow_parameters_are_measured_in_float32():
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    found = sharpness(bowl, narrow, jnp.asarray([SPECTRA["one large"]]), KEY)
    assert found.value.dtype == jnp.float32
    np.testing.assert_allclose(found.value, 9, rtol=0.02)


def test_a_diverged_run_shows():
    found = sharpness(bowl, PARAMS, jnp.full((1, 6), jnp.nan), KEY)
    assert np.isnan(found.value)
    assert np.isnan(found.residual)


def test_impossible_requests_are_refused():
    with pytest.raises(
        ValueError, match=r"sharpness\(iterations\): at least 1 product with the Hessian, got 0"
    ):
        sharpness(bowl, PARAMS, jnp.ones((1, 6)), KEY, iterations=0)
    with pytest.raises(
        ValueError, match=r"loss must return a scalar for one example, got shape \(6,\)"
    ):
        sharpness(lambda p, x: x * p["a"][0], PARAMS, jnp.ones((1, 6)), KEY)
