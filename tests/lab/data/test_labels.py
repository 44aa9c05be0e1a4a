"""Label noise: how many, which, and who counts as corrupt."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coherence.lab.data import corrupt_labels, digits, label_noise, learnable

LABELS = np.random.default_rng(0).integers(0, 10, 2000).astype(np.int32)
HOW = pytest.mark.parametrize("how", ["permute", "redraw"])


@HOW
@given(fraction=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_corrupt_means_changed_and_no_more_than_the_fraction_is(how, fraction, seed):
    noisy, corrupt = corrupt_labels(LABELS, fraction, seed=seed, how=how)
    np.testing.assert_array_equal(corrupt, noisy != LABELS)
    assert corrupt.sum() <= round(fraction * len(LABELS))
    assert noisy.dtype == LABELS.dtype


@HOW
def test_a_tenth_of_the_chosen_keep_their_label_by_luck(how):
    _, corrupt = corrupt_labels(LABELS, 0.5, seed=0, how=how)
    assert corrupt.mean() == pytest.approx(0.5 * 0.9, abs=0.02)


def test_permuting_keeps_the_class_frequencies_and_redrawing_makes_them_uniform():
    labels = np.repeat([0, 1], [900, 100])
    np.testing.assert_array_equal(np.bincount(corrupt_labels(labels, 1.0, seed=0)[0]), [900, 100])
    assert np.bincount(
        corrupt_labels(labels, 1.0, seed=0, how="redraw", classes=4)[0]
    ) == pytest.approx([250] * 4, abs=50)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, np.int8])
def test_labels_of_any_integers_are_redrawn(dtype):
    labels = np.arange(10).repeat(20).astype(dtype)
    noisy, _ = corrupt_labels(labels, 1.0, seed=0, how="redraw")
    assert (noisy.dtype, set(noisy.tolist())) == (dtype, set(range(10)))
    assert len(corrupt_labels(labels[:0], 1.0, seed=0, how="redraw")[0]) == 0


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_labels_are_permuted_among_the_chosen_examples_alone(fraction):
    labels = np.arange(
        1000
    )  # each of a class of its own: a label from elsewhere would be there twice
    noisy, corrupt = corrupt_labels(labels, fraction, seed=3)
    np.testing.assert_array_equal(np.sort(noisy), labels)
    np.testing.assert_array_equal(np.sort(noisy[corrupt]), labels[corrupt])
    assert corrupt.sum() >= 1000 * fraction - 10


def test_exactly_the_fraction_is_chosen():
    labels = np.zeros(1000, int)
    changed = [
        corrupt_labels(labels, 0.3, seed=seed, how="redraw", classes=10**6)[1].sum()
        for seed in range(20)
    ]
    assert changed == [300] * 20


def test_the_same_seed_gives_the_same_labels_and_another_seed_others():
    (a, _), (b, _), (c, _) = (corrupt_labels(LABELS, 0.5, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


@HOW
def test_no_noise_changes_nothing_and_the_given_labels_are_left_alone(how):
    before = LABELS.copy()
    noisy, corrupt = corrupt_labels(LABELS, 0.0, seed=0, how=how)
    np.testing.assert_array_equal(noisy, LABELS)
    assert not corrupt.any()
    corrupt_labels(LABELS, 1.0, seed=0, how=how)
    np.testing.assert_array_equal(before, LABELS)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, 50, float("nan")])
def test_a_fraction_is_no_percentage(fraction):
    with pytest.raises(
        ValueError, match=r"label_noise\(fraction\): the fraction .* is in \[0, 1\], got"
    ):
        corrupt_labels(LABELS, fraction, seed=0)
    with pytest.raises(ValueError, match=r"label_noise\(fraction\)"):
        label_noise(fraction)  # before anything is loaded


def test_label_noise_touches_training_labels_only():
    clean = digits()
    noisy, corrupt = label_noise(0.5)(clean, 3)
    labels, same = corrupt_labels(clean.y_train, 0.5, seed=3)
    np.testing.assert_array_equal(noisy.y_train, labels)
    np.testing.assert_array_equal(corrupt, same)
    assert corrupt.mean() == pytest.approx(0.45, abs=0.03)
    assert noisy.x_train is clean.x_train
    assert noisy.y_test is clean.y_test
    drawn, _ = label_noise(1.0, "redraw")(clean, 3)
    assert (np.bincount(drawn.y_train) != np.bincount(clean.y_train)).any()


def test_targets_cannot_be_made_noisy():
    with pytest.raises(ValueError, match="label_noise: learnable has targets, not classes"):
        label_noise(0.5)(learnable(), 0)


def test_other_ways_are_refused():
    with pytest.raises(
        ValueError, match=r'label_noise\(how\): "permute" or "redraw", got \'shuffle\''
    ):
        corrupt_labels(LABELS, 0.5, seed=0, how="shuffle")


@pytest.mark.parametrize("labels", [np.zeros(3), np.eye(3, dtype=int)])
def test_labels_are_integers_on_one_axis(labels):
    with pytest.raises(
        ValueError, match=r"corrupt_labels\(labels\): labels are integers of shape \[n\]"
    ):
        corrupt_labels(labels, 0.5, seed=0)
