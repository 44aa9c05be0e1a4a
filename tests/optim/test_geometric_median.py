"""The geometric median where it is known without computing, and where it nearly divides by zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.optim import geometric_median


def result(g, *args):
    return np.asarray(
        jax.jit(lambda g: geometric_median(*args).update(g, None)[0])(jnp.asarray(g, jnp.float32))
    )


def test_of_a_convex_quadrilateral_it_is_where_the_diagonals_meet():
    np.testing.assert_allclose(
        result([[0, 0], [1, 0], [0, 1], [1e3, 1e3]], 200), [0.5, 0.5], atol=1e-3
    )


def test_where_more_than_half_agree_it_is_theirs():
    g = np.array([[1.0, 2.0]] * 4 + [[1e3, -1e3], [-50.0, 0.0], [7.0, 7.0]])
    np.testing.assert_allclose(result(g), [1, 2], atol=1e-2)
    np.testing.assert_allclose(result(g, 32, 1e-6), [1, 2], atol=1e-2)


@pytest.mark.parametrize("smoothing", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize(
    "g", [np.zeros((5, 3)), np.ones((5, 3)), np.ones((1, 3)), np.full((4, 3), 1e-12)]
)
def test_equal_gradients_divide_nothing_by_zero(g, smoothing):
    np.testing.assert_allclose(result(g, 32, smoothing), g[0], rtol=1e-6)


def test_it_turns_with_the_axes():
    g = np.random.default_rng(0).normal(size=(30, 6)) ** 3
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))
    np.testing.assert_allclose(result(g @ turn), result(g) @ turn, atol=1e-5)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_units_do_not_matter(unit):
    g = np.random.default_rng(0).normal(size=(30, 6)) ** 3
    np.testing.assert_allclose(result(unit * g) / unit, result(g), rtol=1e-4, atol=1e-5)


def test_a_minority_however_far_cannot_carry_it_off():
    g = np.random.default_rng(0).normal(size=(30, 6))
    g[:9] = 1e6
    assert np.linalg.norm(result(g)) < 2 * np.linalg.norm(g[9:], axis=1).max()


def test_a_nan_is_not_hidden():
    assert np.isnan(result([[1.0, 2.0], [np.nan, 0.0], [3.0, 4.0]])).all()


@pytest.mark.parametrize("iterations", [0, -1, 2.5])
def test_iterations_are_whole_numbers(iterations):
    said = rf"geometric_median\(iterations\): .* a whole number, at least 1, got {iterations}\."
    with pytest.raises(ValueError, match=said):
        geometric_median(iterations)


@pytest.mark.parametrize("smoothing", [-0.1, 0, 2.0, float("nan")])
def test_smoothing_is_a_share(smoothing):
    said = rf"geometric_median\(smoothing\): .* median distance, in \(0, 1\], got {smoothing}\."
    with pytest.raises(ValueError, match=said):
        geometric_median(smoothing=smoothing)


@pytest.mark.parametrize("far", [1e3, 1e6, 1e12, 1e20])
def test_a_minority_cannot_carry_it_off_however_far_and_large(far):
    values = np.array([1.0] * 12 + [far] * 9)[:, None]
    assert result(values)[0] == pytest.approx(1, rel=1e-5)
    assert result([[1.0], [1.2], [1.1], [far]])[0] == pytest.approx(1.1, abs=0.1)
