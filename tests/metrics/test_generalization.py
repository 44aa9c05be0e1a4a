"""The bound of the gap: the theorem's product and sum in loops, and its corollaries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence.metrics.generalization import gap_bound, gap_integrand
from tests import reference

CONSTANTS = {"lipschitz": 3.0, "smoothness": 0.7, "m": 50}


def draw(seed, steps=12):
    rng = np.random.default_rng(seed)
    return rng.uniform(size=steps), rng.uniform(0.01, 0.5, size=steps)


@pytest.mark.parametrize(
    ("alpha", "expected"), [(0, np.sqrt(2)), (0.5, 1), (1, 0), (1.01, 0), (-0.02, np.sqrt(2.04))]
)
def test_the_integrand_runs_from_root_two_to_nothing(alpha, expected):
    np.testing.assert_allclose(gap_integrand(alpha), expected, rtol=1e-6)


def test_the_integrand_bounds_how_far_apart_gradients_are():
    g = np.random.default_rng(0).normal(size=(9, 5)) + 0.5
    distance = np.mean([np.linalg.norm(a - b) for a in g for b in g])
    assert distance <= gap_integrand(co.alpha(jnp.asarray(g))) * np.sqrt((g**2).sum(1).mean())


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_is_the_theorems_right_side(seed):
    alphas, rates = draw(seed)
    found = jax.jit(lambda alphas, rates: gap_bound(alphas, rates, **CONSTANTS))(alphas, rates)
    expected = reference.gap_bound(alphas, rates, **CONSTANTS)
    np.testing.assert_allclose(found, (expected, np.log10(expected)), rtol=1e-5)


def test_one_learning_rate_is_that_of_every_step():
    alphas, _ = draw(0)
    np.testing.assert_allclose(
        gap_bound(alphas, 0.1, **CONSTANTS), gap_bound(alphas, np.full(12, 0.1), **CONSTANTS)
    )


def test_what_overflows_keeps_its_logarithm():
    alphas, rates = np.full(5000, 0.5), np.full(5000, 1.0)
    found = gap_bound(
        alphas, rates, lipschitz=1.0, smoothness=1.0, m=1
    )  # 1 + 2 + 4 + ... = 2^5000 - 1
    assert np.isinf(found.value)
    np.testing.assert_allclose(found.log10, 5000 * np.log10(2), rtol=1e-5)


def test_steps_that_do_not_depend_on_the_sample_open_no_gap():
    np.testing.assert_array_equal(gap_bound(np.ones(4), 0.1, **CONSTANTS), (0, -np.inf))


def test_coherence_counts_more_when_it_comes_early():
    early = np.linspace(0.9, 0.1, 10)
    assert gap_bound(early, 0.5, **CONSTANTS).value < gap_bound(early[::-1], 0.5, **CONSTANTS).value


@pytest.mark.parametrize("rate", [0.3, 1e-3])
def test_with_a_fixed_step_the_exponential_corollary_is_above_it(rate):
    alphas, _ = draw(1)
    later = np.exp(rate * 0.7 * np.arange(11, -1, -1))
    corollary = 9 * rate / 50 * np.sum(later * np.sqrt(2 * (1 - alphas)))
    value = float(gap_bound(alphas, rate, **CONSTANTS).value)
    assert value <= corollary
    assert value >= 0.999 * corollary or rate > 0.01


def test_with_decaying_steps_the_polynomial_corollary_is_above_it():
    alphas, _ = draw(2)
    value = gap_bound(alphas, 0.5 / np.arange(1, 13), **CONSTANTS).value
    assert value <= 9 * 0.5 * 12 ** (0.5 * 0.7) / 50 * np.sum(np.sqrt(2 * (1 - alphas)))


def test_unfitting_arrays_are_refused():
    with pytest.raises(
        ValueError, match=r"alphas must be \[T\], one a step and at least one, got \[\]"
    ):
        gap_bound(0.5, 0.1, **CONSTANTS)
    with pytest.raises(
        ValueError, match=r"alphas must be \[T\], one a step and at least one, got \[0\]"
    ):
        gap_bound([], 0.1, **CONSTANTS)
    with pytest.raises(
        ValueError, match=r"learning_rates must be one number or one a step, \[3\], got \[2\]"
    ):
        gap_bound(np.ones(3), np.ones(2), **CONSTANTS)
