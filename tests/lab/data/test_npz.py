"""A user's own file loads as it is meant, or the error says how to write it."""

import numpy as np
import pytest

from coherence.lab import data

ARRAYS = {
    "x_train": np.full((4, 2, 2, 3), 255, np.uint8),
    "y_train": np.array([0, 1, 2, 0], np.uint8),
    "x_test": np.zeros((1, 2, 2, 3), np.uint8),
    "y_test": np.array([1], np.uint8),
}


@pytest.fixture
def write(tmp_path):
    def write(**changes):
        arrays = {key: value for key, value in {**ARRAYS, **changes}.items() if value is not None}
        np.savez(tmp_path / "mine.npz", **arrays)
        return tmp_path / "mine.npz"

    return write


def test_images_keep_their_shape_and_are_scaled_to_the_unit_interval(write):
    mine = data.npz(write())
    assert (mine.name, mine.x_train.shape, mine.x_train.dtype, mine.x_train.max()) == (
        "mine",
        (4, 2, 2, 3),
        np.float32,
        1,
    )
    assert (mine.y_train.dtype, mine.classes) == (np.int32, ("0", "1", "2"))


def test_other_numbers_are_taken_as_they_are(write):
    mine = data.npz(write(x_train=np.full((4, 2), 300, np.int64), x_test=np.full((1, 2), -0.5)))
    assert (mine.x_train[0, 0], mine.x_test[0, 0], mine.x_test.dtype) == (300, -0.5, np.float32)


def test_the_first_examples_are_enough_if_one_says_so(write):
    path = write()
    few = data.npz(path, examples=3)
    assert (few.y_train.tolist(), len(few.y_test), few.outputs) == ([0, 1, 2], 1, 3)
    assert len(data.npz(str(path), examples=2).y_train) == 2
    with pytest.raises(
        ValueError,
        match=r"mine\.npz: examples is between 1 and the file's 4 training examples, or None for "
        r"all; got 5\.",
    ):
        data.npz(path, examples=5)


def test_classes_may_have_names(write):
    assert data.npz(write(classes=np.array(["cat", "dog", "frog", "horse"]))).outputs == 4


def test_a_relative_path_is_also_looked_up_where_the_data_are(write, monkeypatch, tmp_path):
    write()
    monkeypatch.chdir("/")
    monkeypatch.setenv("COHERENCE_DATA", str(tmp_path))
    assert data.npz("mine.npz").name == "mine"
    with pytest.raises(
        FileNotFoundError,
        match=r"npz\(path\): there is no file other\.npz nor .*other\.npz\. Give the path",
    ):
        data.npz("other.npz")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"y_test": None},
            r"mine\.npz: no array y_test; it holds x_test, x_train, y_train\. Needed: x_train, "
            r"y_train, x_test, y_test",
        ),
        (
            {"y_train": np.array([0, 1])},
            "mine: x_train has 4 examples and y_train 2; each example needs one label",
        ),
        (
            {"y_train": np.array([0.0, 1.0, 2.0, 0.0])},
            r"y_train must be integer labels of shape \[n\], got float64 .*labels\.astype\(int\)",
        ),
        (
            {"y_train": np.eye(4, dtype=int)},
            r"y_train must be integer labels .* of shape \(4, 4\)\. .*one_hot\.argmax\(1\)",
        ),
        (
            {"y_train": np.array([[0], [1], [2], [0]])},
            r"of shape \(4, 1\)\. Write labels\.astype\(int\), in one row: labels\.ravel\(\)\.",
        ),
        (
            {"y_test": np.array(["cat"])},
            r"y_test must be integer labels .* Write classes, labels = numpy\.unique\(names",
        ),
        (
            {"y_train": np.array([0, 1, 2**32 + 1, 0])},
            r"y_train has the label 4294967297, as if there were more than 1,000,000 classes\. "
            "Number them from 0",
        ),
        ({"y_test": np.array([2**31])}, "y_test has the label 2147483648, as if"),
        ({"y_train": np.array([0, 1, 2**63, 0], np.uint64)}, "the label 9223372036854775808"),
        (
            {"x_test": np.zeros((1, 2, 2, 3), np.float32)},
            r"x_train is uint8 and x_test float32\. Only uint8 is divided by 255, so they would "
            "differ in scale",
        ),
        ({"x_train": np.zeros((4, 2, 2, 3), np.int16)}, "x_train is int16 and x_test uint8"),
        ({"y_train": np.array([0, -1, 2, 0])}, "y_train has the label -1; labels count from 0"),
        ({"classes": np.array(["cat", "dog"])}, "the largest label is 2, but classes names only 2"),
        (
            {"x_train": np.zeros((4, 5), np.uint8)},
            r"an example has shape \(5,\) in x_train and \(2, 2, 3\) in x_test; both need the same",
        ),
        (
            {"x_train": np.zeros(4)},
            r"x_train must be real numbers of shape \[n, ...\], got float64 of shape \(4,\)",
        ),
        (
            {"x_train": np.zeros((4, 1)), "x_test": np.full((1, 1), np.nan)},
            "x_test holds NaN or infinity",
        ),
        (
            {"x_test": np.zeros((0, 2, 2, 3), np.uint8), "y_test": np.zeros(0, int)},
            "mine: x_test is empty",
        ),
        ({"x_train": np.array([object()] * 4)}, r"cannot be read as \.npz"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(write, changes, said):
    file = write(**changes)
    with pytest.raises(ValueError, match=said):
        data.npz(file)


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-60], lambda content: b"", lambda content: b"not an archive"],
)
def test_a_truncated_or_foreign_file_is_named(write, damage):
    file = write()
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(
        ValueError,
        match=r"mine\.npz cannot be read as \.npz .*truncated, corrupt, or not written by "
        r"numpy\.savez",
    ):
        data.npz(file)
