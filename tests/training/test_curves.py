"""Runs as arrays: windows are pooled before they divide."""

import numpy as np
import pytest

from coherence.runs import Run
from coherence.training.curves import at_loss_levels, pooled_windows, stacked


@pytest.fixture
def run(tmp_path):
    one = Run.open(tmp_path, {"batch_size": 10}, seed=0)
    one.append({"step": 0, "train_loss": 4.0, "vector": [1.0, 2.0]})
    one.append({"step": 5, "train_loss": 1.0, "vector": [3.0, 4.0]})
    one.save("batches", loss=[4, 3, 2, 1, 0.5], squared_norm_of_mean=[1, 1, 2, 4, 1], mean_squared_norm=[1, 3, 4, 4, 8])
    return one


def test_a_window_divides_the_sums_not_the_ratios(run):
    loss, coherence = pooled_windows(run, 2)
    np.testing.assert_allclose(loss, [3.5, 2.5, 1.5, 0.75])
    np.testing.assert_allclose(coherence, 10 * np.array([2 / 4, 3 / 7, 6 / 8, 5 / 12]))


def test_coherence_is_read_where_the_loss_first_falls_to_a_level(run):
    np.testing.assert_allclose(at_loss_levels(run, (0.75, 0.5, 0.1), 2), [10 * 3 / 7, 10 * 6 / 8, np.nan])
    assert np.isnan(at_loss_levels(run, (0.5,), 50)).all()


def test_curves_of_seeds_are_stacked_and_padded(run, tmp_path):
    short = Run.open(tmp_path / "other", {"batch_size": 10}, seed=1)
    short.append({"step": 0, "train_loss": 2.0, "vector": [0.0, 0.0]})
    found = stacked([run, short], "train_loss", "vector")
    np.testing.assert_array_equal(found["step"], [0, 5])
    np.testing.assert_array_equal(found["train_loss"], [[4, 1], [2, np.nan]])
    assert found["vector"].shape == (2, 2, 2)
