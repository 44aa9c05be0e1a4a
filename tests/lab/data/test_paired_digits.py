"""Pairs of digits: what is beside what, and how they are labelled."""

import numpy as np
import pytest

from coherence.lab.data import digit_pairs
from coherence.lab.data.dataset import Dataset


@pytest.fixture
def single(monkeypatch):
    """A hundred training and twenty test images; every pixel of an image is its number."""
    numbers = np.arange(120, dtype=np.float32)
    x, y = np.repeat(numbers[:, None], 28 * 28, 1), (np.arange(120) * 7 % 10).astype(np.int32)
    made = Dataset("mnist", x[:100], y[:100], x[100:], y[100:], tuple("0123456789"))
    monkeypatch.setattr("coherence.lab.data.paired_digits.mnist", lambda: made)
    return y


def halves(x):
    """The number of the left and of the right image of each pair."""
    pairs = x.reshape(-1, 28, 56)
    assert (pairs[:, :, :28] == pairs[:, :1, :1]).all()
    assert (pairs[:, :, 28:] == pairs[:, :1, 55:]).all()
    return pairs[:, 0, 0].astype(int), pairs[:, 0, 55].astype(int)


def test_the_label_is_the_number_that_is_written(single):
    pairs = digit_pairs(60, 20)
    assert pairs.classes[0] == "00"
    assert pairs.classes[-1] == "99"
    assert pairs.outputs == 100
    for x, y in ((pairs.x_train, pairs.y_train), (pairs.x_test, pairs.y_test)):
        left, right = halves(x)
        assert (y == 10 * single[left] + single[right]).all()
        assert y.dtype == np.int32
        assert len(set(left)) == len(left)
        assert len(set(right)) == len(right)
    assert halves(pairs.x_train)[0].max() < 100 <= halves(pairs.x_test)[0].min()


def test_ten_classes_are_the_left_digits_of_the_same_images(single):
    many, few = digit_pairs(60, 20), digit_pairs(60, 20, classes=10)
    assert np.array_equal(many.x_train, few.x_train)
    assert np.array_equal(many.x_test, few.x_test)
    assert np.array_equal(few.y_train, many.y_train // 10)
    assert few.outputs == 10


def test_more_pairs_keep_those_that_fewer_have_and_a_seed_draws_others(single):
    few, more, other = digit_pairs(20, 5), digit_pairs(50, 10), digit_pairs(20, 5, seed=1)
    assert np.array_equal(few.x_train, more.x_train[:20])
    assert np.array_equal(few.x_test, more.x_test[:5])
    assert not np.array_equal(few.x_train, other.x_train)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 20}, r"digit_pairs\(classes\): 100, or 10 \(the left digit\), got 20."),
        ({"examples": 101}, r"from 1 to the 100 images there are, got 101."),
        ({"examples": 50, "tests": 0}, r"from 1 to the 20 images there are, got 0."),
    ],
)
def test_impossible_sizes_are_refused(single, arguments, message):
    with pytest.raises(ValueError, match=message):
        digit_pairs(**arguments)
