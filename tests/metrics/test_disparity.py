"""Gradient disparity: its definition in loops, both ways of computing it, and P5's bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence.gradients import reductions
from coherence.metrics.disparity import gradient_disparity
from tests import reference, zoo


def draw(seed, m=11, p=7, shift=0.3):
    return np.random.default_rng(seed).normal(size=(m, p)) + shift


jitted = jax.jit(gradient_disparity, static_argnums=1)


@pytest.mark.parametrize("p", [3, 400], ids=["few parameters", "many"])
@pytest.mark.parametrize("batches", [2, 4, 11])
def test_disparity_is_the_mean_distance_of_batch_gradients(p, batches):
    g = draw(0, p=p)
    halves = {"a": jax.device_put(g[:, :2]), "b": jax.device_put(g[:, 2:])}
    np.testing.assert_allclose(jitted(halves, batches), reference.disparity(g, batches), rtol=1e-5)


@pytest.mark.parametrize("p", [3, 400], ids=["few parameters", "many"])
def test_only_with_many_parameters_are_the_pairs_of_examples_the_cheaper_way(p, monkeypatch):
    asked, gram = [], reductions.gram
    monkeypatch.setattr(reductions, "gram", lambda g: asked.append(True) or gram(g))
    gradient_disparity(jnp.asarray(draw(0, p=p)))
    assert bool(asked) == (p == 400)


@pytest.mark.parametrize("p", [3, 400])
def test_a_common_gradient_does_not_drown_the_differences(p):
    g = draw(0, p=p, shift=0) + 100.0
    np.testing.assert_allclose(
        gradient_disparity(jnp.asarray(g)),
        reference.disparity(g, 5),
        rtol=2e-2 if p == 400 else 1e-4,
    )


def test_equal_batches_have_none():
    assert gradient_disparity(jnp.tile(jnp.array([[1.0], [2.0]]), (5, 1))) == 0


@pytest.mark.parametrize("batches", [3, 6, 12])
def test_property_5_bounds_it_by_the_coherence_of_the_batches(batches):
    """The property's expectation is over independent pairs: a batch meets itself, too."""
    g = draw(4, m=12, shift=1.0)
    means = g.reshape(batches, -1, 7).mean(1)
    square = (1 - float(jax.jit(co.alpha)(means))) * np.mean(np.sum(means**2, 1))
    disparity = float(jitted(g, batches))
    assert disparity * (1 - 1 / batches) <= np.sqrt(2 * square)
    assert disparity <= np.sqrt(2 * square * batches / (batches - 1))
    assert disparity >= 0.8 * np.sqrt(2 * square * batches / (batches - 1))


def test_the_bound_is_met_by_batches_all_equally_far_apart():
    g = 3 * jnp.eye(5)
    np.testing.assert_allclose(
        gradient_disparity(g), jnp.sqrt(2 * (1 - co.alpha(g)) * 9 * 5 / 4), rtol=1e-5
    )


def test_noise_alone_gives_what_its_variance_says():
    g = np.random.default_rng(0).normal(size=(5 * 40, 2000))
    np.testing.assert_allclose(jitted(g), np.sqrt(2 * 2000 / 40), rtol=0.03)


def test_factors_and_masks_give_what_rows_of_the_kept_examples_give():
    loss, params, batch = zoo.dense()
    g = reference.flat(reference.gradients(loss, params, batch))
    measured = jax.jit(
        lambda *args: gradient_disparity(co.per_example_value_and_grad(loss)(*args)[1], 3)
    )
    np.testing.assert_allclose(
        measured(params, batch, np.ones(6, bool)), reference.disparity(g, 3), rtol=1e-5
    )
    keep = np.array([True, False, False, False, True, True])  # nothing of the second batch
    expected = np.linalg.norm(g[0] - (g[4] + g[5]) / 2)
    np.testing.assert_allclose(measured(params, batch, keep), expected, rtol=1e-5)
    assert np.isnan(measured(params, batch, np.arange(6) < 2))


@pytest.mark.parametrize("batches", [1, 5])
def test_impossible_batches_are_refused(batches):
    with pytest.raises(
        ValueError, match=f"at least 2 and at most one an example, of 4, got {batches}"
    ):
        gradient_disparity(jnp.ones((4, 2)), batches)
