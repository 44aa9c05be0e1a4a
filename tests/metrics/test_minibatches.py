"""Alpha from mini-batch gradients alone."""

import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from tests import reference


def partition(g, k, seed):
    order = np.random.default_rng(seed).permutation(len(g))
    return g[order].reshape(-1, k, g.shape[1]).mean(1)


def test_the_papers_formula_inverts_the_papers_amplification():
    batches = np.random.default_rng(0).normal(size=(50, 8)) + 0.2
    amplified, k = reference.alpha(batches), 10
    found = float(co.metrics.alpha_from_minibatches(jnp.asarray(batches), k))
    np.testing.assert_allclose(k * found / (1 + (k - 1) * found), amplified, rtol=1e-5)


@pytest.mark.parametrize("k", [2, 5, 20])
def test_orthogonal_examples_are_found_at_the_orthogonal_limit(k):
    g = np.eye(60)
    np.testing.assert_allclose(
        co.metrics.alpha_from_minibatches(jnp.asarray(partition(g, k, 0)), k, 60), 1 / 60, rtol=1e-4
    )
    np.testing.assert_allclose(
        co.metrics.alpha_from_minibatches(jnp.asarray(partition(g, k, 0)), k),
        1 / (60 - k + 1),
        rtol=1e-4,
    )


def test_averaged_over_partitions_the_finite_form_finds_the_samples_alpha():
    g = np.random.default_rng(0).normal(size=(200, 30)) + 0.3
    found = [
        float(co.metrics.alpha_from_minibatches(jnp.asarray(partition(g, 10, seed)), 10, 200))
        for seed in range(100)
    ]
    error = np.std(found) / 10
    assert abs(np.mean(found) - reference.alpha(g)) < 4 * error + 1e-3 * reference.alpha(g)


def test_impossible_samples_are_refused():
    g = jnp.ones((5, 3))
    with pytest.raises(ValueError, match="needs the gradients of at least 2 batches, got 1"):
        co.metrics.alpha_from_minibatches(g[:1], 10)
    with pytest.raises(ValueError, match="batch_size must be at least 1 example, got 0"):
        co.metrics.alpha_from_minibatches(g, 0)
    with pytest.raises(
        ValueError, match="m is the size of the sample, batches x batch_size = 5 x 10 = 50, got 60"
    ):
        co.metrics.alpha_from_minibatches(g, 10, 60)
