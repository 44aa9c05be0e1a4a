"""Tools of experiments: windows are pooled before they divide, levels read where first reached."""

import math

import numpy as np
import pytest
import scipy.stats

from coherence.lab import analysis
from coherence.lab.analysis import (
    alpha_ratio,
    at_loss_levels,
    at_losses,
    cross_fitted,
    first_at,
    pooled_windows,
    stacked,
)
from coherence.lab.runs import Run


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
    between = 10 * (3 / 7 + 6 / 8) / 2  # windows with losses of 2.5 and 1.5
    np.testing.assert_allclose(at_loss_levels([run], (0.5, 0.1), 2), [[between, np.nan]])
    assert np.isnan(at_loss_levels([run], (0.5,), 50)).all()
    np.testing.assert_allclose(at_losses([run, run], [2.5], 2), [[10 * 3 / 7]] * 2)


def test_a_loss_passed_within_the_first_window_is_left_out(run):
    """There the window's coherence is that of another loss: of 3.5, the first window's."""
    np.testing.assert_array_equal(at_losses([run], [3.6, 3.5], 2), [[np.nan, 10 * 2 / 4]])


def test_a_place_found_on_the_other_seeds_is_not_above_the_truth():
    noise = np.random.default_rng(0).normal(size=(2000, 8, 20))
    assert np.mean([curves.max(1).mean() for curves in noise]) > 1.5
    highest = [cross_fitted(curves, np.argmax).mean() for curves in noise]
    assert abs(np.mean(highest)) < 0.03
    peaked = np.tile([0.0, 1.0, 3.0, 2.0], (5, 1))
    np.testing.assert_array_equal(cross_fitted(peaked, np.argmax), [3.0] * 5)
    np.testing.assert_array_equal(cross_fitted(peaked[:1], np.argmax), [3.0])


def test_a_ratio_of_alphas_has_no_floor():
    top, bottom = np.array([20.0, 24.0]), np.array([2.0, 4.0])
    numerator, denominator, note = alpha_ratio(top, bottom, 100)
    np.testing.assert_allclose(numerator / denominator, [19.0, 23 / 3])
    assert note == "m-coherence 22 over 3, m = 100"


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


def test_curves_and_levels_broadcast_as_numpy_does():
    rng = np.random.default_rng(0)
    curve, values = rng.random((2, 3, 6)).cumsum(-1), rng.random((2, 3, 6))
    levels = np.array([0.5, 1.5, 9.0])
    found = first_at(curve[..., None, :], values[..., None, :], levels)
    assert found.shape == (2, 3, 3)
    for place in np.ndindex(2, 3, 3):
        np.testing.assert_equal(
            found[place], first_at(curve[place[:2]], values[place[:2]], levels[place[2]])
        )
    own = rng.random((2, 3))
    np.testing.assert_equal(
        first_at(curve, np.arange(6), own)[1, 2], first_at(curve[1, 2], range(6), own[1, 2])
    )


def test_rank_correlation_is_scipys_of_every_pair():
    a = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
    np.testing.assert_allclose(analysis.rank_correlation(a, [1, 2, 3]), [1.0, -0.5])
    assert analysis.rank_correlation([1, 2, 3], [3, 2, 1]) == -1
    a, b = np.random.default_rng(0).integers(0, 5, (2, 4, 20))  # with ties
    expected = [scipy.stats.spearmanr(*pair).statistic for pair in zip(a, b)]
    np.testing.assert_allclose(analysis.rank_correlation(a, b), expected)
    for values in ([1.0, np.nan, 2.0], [1.0, 1.0, 1.0]):
        assert np.isnan(analysis.rank_correlation(values, [1, 2, 3]))


def test_the_datamodel_score_is_the_mean_correlation_over_test_examples():
    rng = np.random.default_rng(0)
    inside = rng.random((40, 6)) < 0.7
    influences = rng.normal(size=(3, 6))
    outputs = inside @ influences.T
    assert analysis.datamodel_score(influences, inside, np.exp(outputs)) == pytest.approx(1)
    noisy = outputs + rng.normal(size=outputs.shape)
    each = [
        scipy.stats.spearmanr(inside @ row, column)[0] for row, column in zip(influences, noisy.T)
    ]
    assert analysis.datamodel_score(influences, inside, noisy) == pytest.approx(np.mean(each))


def test_log_odds_are_those_of_the_softmax():
    outputs = np.random.default_rng(1).normal(size=(2, 5, 3))
    labels = np.array([0, 1, 2, 0, 1])
    p = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    p = p[:, np.arange(5), labels]
    np.testing.assert_allclose(analysis.log_odds(outputs, labels), np.log(p / (1 - p)))


def test_ranks_of_equal_values_are_their_mean():
    values = [3.0, 1.0, 3.0, 2.0]
    np.testing.assert_array_equal(analysis.ranks(values), scipy.stats.rankdata(values))


def test_arms_that_measured_alike_are_one_array(run):
    found = analysis.stacked_arms([[run], [run]], "train_loss", "vector")
    assert found["train_loss"].shape == (2, 1, 2)
    assert found["vector"].shape == (2, 1, 2, 2)
    np.testing.assert_array_equal(found["step"], [0, 5])


def test_layers_of_records_are_the_last_axis(run):
    run.append({"step": 7, "coherence_by_layer": {"a": 1.0, "b": 2.0}})
    parts, values = analysis.stacked_parts([run, run], "coherence_by_layer")
    assert parts == ["a", "b"]
    assert values.tolist() == [[[1, 2]], [[1, 2]]]


def test_what_runs_computed_and_learned_is_read_back(run):
    run.save("computed", accuracy=np.float32(0.5), curve=np.arange(3))
    run.save("params", **{"dense/kernel": np.ones((2, 3)), "dense/bias": np.ones(3)})
    assert analysis.computed([run, run])["curve"].tolist() == [[0, 1, 2], [0, 1, 2]]
    assert list(analysis.computed([run], "accuracy")) == ["accuracy"]
    assert analysis.parameter_count(run) == 9


def test_names_get_a_prefix_and_numbers_single_precision():
    found = analysis.under("arm", analysis.single({"x": np.ones(2), "n": np.arange(2), "c": 0.5}))
    assert {
        name: values.dtype.kind + str(values.dtype.itemsize) for name, values in found.items()
    } == {
        "arm/x": "f4",
        "arm/n": "i8",
        "arm/c": "f4",
    }


def test_a_precondition_says_what_is_missing_and_by_how_much():
    assert analysis.too_low([0.9, 0.95], 0.9, "SGD did not memorize: corrupt accuracy") is None
    assert (
        analysis.too_low([0.714, 0.95], 0.9, "SGD did not memorize:")
        == "SGD did not memorize: 0.71 < 0.9"
    )
    assert analysis.too_high([0.3, 0.514], 0.5, "a run did not fit: training loss").endswith(
        "loss 0.51 > 0.5"
    )
    assert analysis.too_high(0.5, 0.5, "") is None
    assert analysis.too_low([0.9875], 0.99, "fitted") == "fitted 0.988 < 0.99"
    assert analysis.too_low([0.9], 0.90001, "fitted") == "fitted 0.90 < 0.90001"
    assert analysis.too_high(1e-7, 0, "loss") == "loss 1e-07 > 0"
    assert analysis.too_low([np.nan], 0.9, "diverged:") == "diverged: nan < 0.9"
    assert analysis.given("why", {"a": [1], "b": [2]}) == {"a": ([1], "why"), "b": ([2], "why")}


def test_a_table_has_means_with_half_of_their_interval_and_text_as_it_is():
    half = 12.7062047 * math.sqrt(0.5) / math.sqrt(2)  # t of one degree of freedom at 97.5 %
    rows = [{"arm": name, "seeds": 2, "loss": np.array([1.0, 2.0])} for name in ("a", "b")]
    assert analysis.tabulate(rows, "a note").splitlines() == [
        "arm  seeds  loss",
        f"a        2  1.5 ± {half:.2g}",
        f"b        2  1.5 ± {half:.2g}",
        "a note; mean ± half of the 95 % interval over seeds",
    ]
    assert analysis.tabulate([{"arm": "a", "steps": "7"}]).splitlines() == [
        "arm  steps",
        "a        7",
    ]
