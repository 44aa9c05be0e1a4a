"""Runs as arrays: windows are pooled before they divide."""

import numpy as np
import pytest

from coherence.lab.runs import Run
from coherence.lab.training.curves import at_loss_levels, first_at, pooled_windows, stacked


@pytest.fixture
def run(tmp_path):
    one = Run.open(tmp_path, {"batch_size": 10}, seed=0)
    one.append({"step": 0, "train_loss": 4.0, "vector": [1.0, 2.0]})
    one.append({"step": 5, "train_loss": 1.0, "vector": [3.0, 4.0]})
    one.save(
        "batches",
        loss=[4, 3, 2, 1, 0.5],
        squared_norm_of_mean=[1, 1, 2, 4, 1],
        mean_squared_norm=[1, 3, 4, 4, 8],
    )
    return one


def test_a_window_divides_the_sums_not_the_ratios(run):
    loss, coherence = pooled_windows(run, 2)
    np.testing.assert_allclose(loss, [3.5, 2.5, 1.5, 0.75])
    np.testing.assert_allclose(coherence, 10 * np.array([2 / 4, 3 / 7, 6 / 8, 5 / 12]))


def test_coherence_is_read_where_the_loss_first_falls_to_a_level(run):
    np.testing.assert_allclose(
        at_loss_levels(run, (0.75, 0.5, 0.1), 2), [10 * 3 / 7, 10 * 6 / 8, np.nan]
    )
    assert np.isnan(at_loss_levels(run, (0.5,), 50)).all()


def test_curves_of_seeds_are_stacked_and_padded(run, tmp_path):
    short = Run.open(tmp_path / "other", {"batch_size": 10}, seed=1)
    short.append({"step": 0, "train_loss": 2.0, "vector": [0.0, 0.0]})
    found = stacked([run, short], "train_loss", "vector")
    np.testing.assert_array_equal(found["step"], [0, 5])
    np.testing.assert_array_equal(found["train_loss"], [[4, 1], [2, np.nan]])
    assert found["vector"].shape == (2, 2, 2)


def test_a_level_is_read_between_the_measurements_around_its_first_crossing():
    rising, steps = [0.0, 0.5, 0.9, 0.4, 1.0], [0, 10, 20, 30, 40]
    assert first_at(rising, steps, 0.7) == pytest.approx(15)
    assert first_at(rising, steps, 0.5) == 10
    np.testing.assert_allclose(
        first_at(rising, steps, [0.25, 0.95, 2.0]), [5, 30 + 10 * 0.55 / 0.6, np.nan]
    )
    falling = [2.0, 1.0, 1.5, 0.5]
    np.testing.assert_allclose(
        first_at(falling, [1.0, 3.0, 0.0, 4.0], (1.5, 0.75), falling=True), [2, 3]
    )


def test_a_curve_that_begins_at_the_level_was_there_first():
    assert first_at([0.8, 0.1], [7, 9], 0.5) == 7
    assert first_at([0.1, 0.8], [7, 9], 0.5, falling=True) == 7


def test_nothing_is_read_after_a_diverged_curve_or_where_the_level_was_never_reached():
    assert np.isnan(first_at([np.nan, np.nan], [1, 2], 0.5))
    assert np.isnan(first_at([3.0, 2.0], [1, 2], 0.5, falling=True))
