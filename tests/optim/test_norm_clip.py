"""Lengths are of all leaves together, and nobody's exceeds the limit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coherence import per_example_value_and_grad
from coherence.optim import average, norm_clip


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("longest", [0.1, 2.0, 100.0])
def test_optax_sums_what_is_averaged_here(longest):
    g = {"w": random(9, 3, 4), "b": random(9, seed=1)}
    sums, _ = optax.per_example_global_norm_clip(jax.tree.leaves(g), longest)
    got = norm_clip(longest).update(g, None)[0]
    for ours, theirs in zip(jax.tree.leaves(got), sums):
        np.testing.assert_allclose(ours, theirs / 9, rtol=1e-5, atol=1e-7)


def test_without_a_limit_it_is_the_mean():
    g = random(9, 5)
    np.testing.assert_allclose(
        norm_clip(np.inf).update(g, None)[0], average().update(g, None)[0], rtol=1e-6
    )


def test_zero_gradients_stay_zero_and_count():
    g = jnp.array([[0.0, 0.0], [6.0, 8.0]])
    np.testing.assert_allclose(norm_clip(5.0).update(g, None)[0], [1.5, 2.0])
    np.testing.assert_array_equal(norm_clip(5.0).update(jnp.zeros((3, 2)), None)[0], 0)


def test_masked_examples_neither_move_the_mean_nor_count():
    x, keep = random(9, 5), np.arange(9) % 3 != 1
    gradients = per_example_value_and_grad(lambda w, example: w @ example)
    _, masked = gradients(jnp.zeros(5), x, jnp.asarray(keep))
    got = norm_clip(2.0).update(masked, None)[0]
    np.testing.assert_allclose(got, norm_clip(2.0).update(x[keep], None)[0], rtol=1e-6)


def test_a_length_that_overflows_is_scaled_to_nothing():
    np.testing.assert_array_equal(
        norm_clip(5.0).update(jnp.array([[3.0, 4.0], [1e30, 0.0]]), None)[0], [1.5, 2.0]
    )


def test_a_nan_is_not_hidden():
    assert np.isnan(norm_clip(1.0).update(jnp.array([[1.0, jnp.nan], [1.0, 1.0]]), None)[0]).all()


@pytest.mark.parametrize("longest", [0, -1.0, float("nan")])
def test_limits_are_positive(longest):
    with pytest.raises(
        ValueError, match=rf"norm_clip\(max_norm\): max_norm is a length, above 0, got {longest}\."
    ):
        norm_clip(longest)
