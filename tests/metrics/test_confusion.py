"""Gradient confusion: the definition in loops over pairs, and its landmarks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence.metrics.confusion import gradient_confusion
from coherence.metrics.stiffness import sign_stiffness
from tests import reference, zoo


def draw(seed, m=9, p=4):
    return np.random.default_rng(seed).normal(size=(m, p)) + 0.3


@pytest.mark.parametrize("seed", range(3))
def test_confusion_is_that_of_the_definition(seed):
    g = draw(seed)
    g[2] = 0
    np.testing.assert_allclose(
        gradient_confusion(jnp.asarray(g)), reference.confusion(g), rtol=1e-4
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_is_the_smallest_there_is(seed):
    g, eta = draw(seed), float(gradient_confusion(jnp.asarray(draw(seed))).bound)
    products = [np.dot(g[i], g[j]) for i in range(9) for j in range(i)]
    assert all(p >= -eta * (1 + 1e-5) for p in products)
    assert not all(p >= -eta * 0.999 for p in products)


def test_landmarks():
    np.testing.assert_allclose(gradient_confusion(jnp.eye(4)), (0, 0, 0))
    np.testing.assert_allclose(gradient_confusion(jnp.full((4, 2), 3.0)), (0, 1, 0), rtol=1e-6)
    np.testing.assert_allclose(
        gradient_confusion(jnp.array([[2.0], [-3.0], [1.0]])), (6, -1, 2 / 3), rtol=1e-6
    )


def test_without_orthogonal_pairs_the_share_of_conflicts_and_sign_stiffness_are_the_same():
    g = jnp.asarray(draw(5))
    np.testing.assert_allclose(
        sign_stiffness(g), 1 - 2 * gradient_confusion(g).negative_share, rtol=1e-5
    )


def test_the_scale_of_the_loss_counts_in_the_bound_alone():
    small, large = (
        gradient_confusion(jnp.asarray(draw(1))),
        gradient_confusion(jnp.asarray(10 * draw(1))),
    )
    np.testing.assert_allclose(
        large, (100 * small.bound, small.minimum_cosine, small.negative_share), rtol=1e-5
    )


def test_factors_and_masks_give_what_rows_of_the_kept_examples_give():
    loss, params, batch = zoo.dense()
    keep = np.array([True, False, True, True, False, True])
    g = reference.flat(reference.gradients(loss, params, batch))
    measured = jax.jit(
        lambda *args: gradient_confusion(co.per_example_value_and_grad(loss)(*args)[1])
    )
    np.testing.assert_allclose(
        measured(params, batch, keep), reference.confusion(g[keep]), rtol=1e-4
    )
    np.testing.assert_allclose(
        measured(params, batch, np.ones(6, bool)), reference.confusion(g), rtol=1e-4
    )
    assert np.isnan(measured(params, batch, np.arange(6) == 2)).all()


def test_examples_without_a_direction_have_no_cosine():
    found = gradient_confusion(jnp.zeros((3, 2)).at[1].set(1))
    np.testing.assert_allclose(found, (0, np.nan, 0))


def test_a_diverged_run_shows():
    assert np.isnan(gradient_confusion(jnp.ones((3, 2)).at[1, 0].set(jnp.nan))).all()


def test_one_example_is_refused():
    with pytest.raises(ValueError, match="gradient_confusion needs at least 2 examples, got 1"):
        gradient_confusion(jnp.ones((1, 2)))
