"""Aggregators that choose among examples or groups, where the choice is known beforehand."""

import jax
import numpy as np
import pytest

from coherence.gradients import Stacked
from coherence.optim import (
    agreement_filter,
    conflict_free,
    krum,
    medoid_of_means,
    slow_gradients,
)
from tests.optim import twins


def result(tx, g, keep=None):
    g = np.asarray(g, np.float32)
    given = g if keep is None else Stacked(np.where(keep[:, None], g, 0), keep)
    return np.asarray(jax.jit(lambda g: tx.update(g, tx.init(None))[0])(given))


def test_krum_takes_an_honest_example_whatever_the_others_send():
    g = np.random.default_rng(0).normal(size=(10, 4))
    g[:3] = 1e3  # they agree with each other, but are too few to be each other's neighbours
    chosen = result(krum(0.3), g)
    assert abs(chosen - g[3:]).sum(1).min() < 1e-3
    several = result(krum(0.3, 7), g)
    np.testing.assert_allclose(several, g[3:].mean(0), rtol=1e-3, atol=1e-3)


def test_krum_of_fewer_examples_than_it_averages_is_their_mean():
    g, keep = np.random.default_rng(0).normal(size=(6, 2)), np.arange(6) < 3
    np.testing.assert_allclose(result(krum(0.2, 4), g, keep), g[:3].mean(0), rtol=1e-5)


def test_krum_of_one_example_is_its_gradient():
    np.testing.assert_array_equal(result(krum(), [[1.0, 2.0]]), [1, 2])


def test_the_share_of_krum_is_the_decimal_it_is_written_as():
    """29 of 100, though 0.29 * 100 is a little less: the choice is another one."""
    g = np.random.default_rng(5).normal(size=(100, 2))
    np.testing.assert_allclose(result(krum(0.29), g), g[11], rtol=1e-5)


def test_krum_takes_an_example_that_is_infinitely_far_before_a_masked_one():
    g, keep = [[5.0], [1.0], [1.5], [1e20]], np.array([False, True, True, True])
    np.testing.assert_allclose(result(krum(0.2, 3), g, keep), [1e20 / 3], rtol=1e-5)


def test_of_groups_the_medoid_is_one_of_them():
    g = [[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [1.0, 1.0]]
    np.testing.assert_array_equal(result(medoid_of_means(4), g), [1, 1])
    np.testing.assert_array_equal(result(medoid_of_means(9), g), [1, 1])


def test_the_filter_drops_the_group_that_points_against():
    g = [[1.0, 0.0], [-1.0, 0.1], [1.0, 0.2]]
    np.testing.assert_allclose(result(agreement_filter(1.0, 3), g), [1, 0.1], rtol=1e-6)


def test_where_no_group_agrees_the_filter_says_zero_but_not_where_there_is_one_group():
    g, first = [[1.0, 0.0], [-1.0, 0.1]], np.array([True, False])
    np.testing.assert_array_equal(result(agreement_filter(1.0, 2), g), 0)
    np.testing.assert_array_equal(result(agreement_filter(1.0, 2), g, first), [1, 0])
    np.testing.assert_allclose(result(agreement_filter(1.0, 1), g), [0, 0.05], rtol=1e-5)


def test_no_example_loses_along_a_direction_without_conflict():
    """By non-negative least squares, each by itself, too."""
    g = np.random.default_rng(4).normal(size=(4, 7)) - 0.3
    direction = result(conflict_free(300), g)
    assert (g @ g.mean(0)).min() < 0 < (g @ direction).min() + 1e-4
    np.testing.assert_allclose(direction, twins.without_conflict(g), rtol=1e-3, atol=1e-4)


def test_examples_without_conflict_have_their_mean_and_opposites_nothing():
    np.testing.assert_allclose(result(conflict_free(), np.eye(3)), np.full(3, 1 / 3), rtol=1e-5)
    opposed = result(conflict_free(), [[1.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_allclose(opposed, 0, atol=1e-4)
    np.testing.assert_array_equal(result(conflict_free(), np.zeros((3, 2))), 0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: krum(0.5), r"krum\(share\): a fraction .* below 0\.5, got 0\.5\."),
        (lambda: krum(chosen=0), r"krum\(chosen\): a whole number of examples, .* got 0\."),
        (lambda: medoid_of_means(0), r"medoid_of_means\(groups\): a whole number .* got 0\."),
        (lambda: agreement_filter(3), r"\(max_distance\): a cosine distance, in \[0, 2\], got 3\."),
        (lambda: agreement_filter(groups=0), r"agreement_filter\(groups\): .* got 0\."),
        (lambda: conflict_free(0), r"conflict_free\(sweeps\): a whole number, .* got 0\."),
        (lambda: slow_gradients(1), r"slow_gradients\(decay\): in \[0, 1\), got 1\."),
        (lambda: slow_gradients(factor=-1), r"slow_gradients\(factor\): at least 0, got -1\."),
    ],
)
def test_arguments_are_checked(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize("wild", [1e20, 1e30, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_medoid_is_never_a_group_that_is_out_of_range(wild, place):
    rows = np.array([1.1, 0.9, 1.0], np.float32)
    rows[place] = wild
    assert result(medoid_of_means(3), rows[:, None])[0] in np.delete(rows, place)
    assert np.isnan(result(medoid_of_means(3), [[1.0], [np.nan], [2.0]]))


@pytest.mark.parametrize("ratio", [1e-6, 1e-3, 1.0, 1e3, 1e6])
def test_conflict_is_removed_however_unequal_the_lengths(ratio):
    g = np.array([[ratio, 0.0], [-1.0, 1.0]], np.float32)
    right = [ratio / 4, ratio / 4 + 0.5]  # projections: (r/2, r/2) and (0, 1)
    tolerance = {"rtol": 1e-4, "atol": 2e-6}  # the damping's
    np.testing.assert_allclose(result(conflict_free(), g), right, **tolerance)


@pytest.mark.parametrize("scale", [1e-15, 1e-10, 1.0, 1e10, 1e15])
def test_the_filter_does_not_depend_on_units(scale):
    g = np.array([[1.0, 0.5], [1.0, 0.4], [1.0, 0.6], [-1.0, 0.5]])
    of = lambda rows: result(agreement_filter(groups=4), rows)
    np.testing.assert_allclose(of(g * scale) / scale, of(g), rtol=1e-5)
