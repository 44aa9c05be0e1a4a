"""The bundled digits: every example once, always split the same way."""

import hashlib
import subprocess
import sys

import numpy as np

from coherence.lab import data
from coherence.lab.data import handwritten_digits


def test_every_example_is_either_trained_or_tested_on():
    from sklearn.datasets import load_digits

    digits = data.digits()
    assert (digits.x_train.shape, digits.x_test.shape, digits.outputs) == (
        (1437, 64),
        (360, 64),
        10,
    )
    everything = np.concatenate([digits.x_train, digits.x_test]) * 16
    assert sorted(map(tuple, everything)) == sorted(map(tuple, load_digits().data))


def test_pixels_are_float32_in_the_unit_interval_and_labels_int32():
    digits = data.digits()
    assert (digits.x_train.dtype, digits.y_train.dtype) == (np.float32, np.int32)
    assert (digits.x_train.min(), digits.x_train.max()) == (0, 1)


def test_classes_are_in_proportion_in_the_test_set_and_any_prefix_is_mixed():
    digits = data.digits()
    share = np.bincount(digits.y_test) / (np.bincount(digits.y_test) + np.bincount(digits.y_train))
    assert np.abs(share - 360 / 1797).max() < 1 / 174  # one example of the rarest class
    assert np.bincount(digits.y_train[:200]).min() >= 10


def test_the_split_never_changes():
    digits = data.digits()
    assert (
        hashlib.md5(digits.y_train.tobytes() + digits.y_test.tobytes()).hexdigest()
        == "e2aa1ef74f653fee34d5e77e79ee3724"
    )


def test_digits_are_those_of_scikit_learn_to_the_bit_and_do_not_import_it():
    from sklearn.datasets import load_digits

    whole, made = load_digits(), data.digits()
    train, test = handwritten_digits._split(whole.target)
    for part, index in (("train", train), ("test", test)):
        x = (whole.data[index] / 16).astype(np.float32)
        np.testing.assert_array_equal(getattr(made, f"x_{part}"), x)
        np.testing.assert_array_equal(getattr(made, f"y_{part}"), whole.target[index])
    assert made.y_train.dtype == np.int32
    code = (
        "import sys\nfrom coherence.lab.data import digits\n"
        "digits()\nprint('sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
