"""The two toy sets are the paper's."""

import numpy as np

from coherence.lab import data


def test_the_learnable_set_shares_its_last_feature_with_the_label():
    toy = data.learnable()
    np.testing.assert_array_equal(toy.x_train[:, 5], toy.y_train)
    np.testing.assert_array_equal(toy.x_test, [[0, 0, 0, 0, -1, -1]])
    np.testing.assert_array_equal(toy.y_test, [-1])


def test_the_memorizable_set_lacks_only_the_shared_feature():
    learnable, memorizable = data.learnable(), data.memorizable()
    for part in ("x_train", "x_test"):
        np.testing.assert_array_equal(
            getattr(memorizable, part)[:, :5], getattr(learnable, part)[:, :5]
        )
        assert not getattr(memorizable, part)[:, 5].any()
    np.testing.assert_array_equal(memorizable.y_train, [1, -1, -1, 1])


def test_private_features_are_private_and_equal_to_the_label():
    for toy in (data.learnable(), data.memorizable()):
        np.testing.assert_array_equal(
            np.concatenate([toy.x_train, toy.x_test])[:, :5], np.diag([1, -1, -1, 1, -1])
        )
        assert (toy.x_train.dtype, toy.y_train.dtype, toy.outputs) == (np.float32, np.float32, 1)


def test_least_squares_from_zero_is_right_about_the_test_example_only_where_something_is_shared():
    for toy, weights, prediction in (
        (data.learnable(), [0.2, 0.2, 0.2, 0.2, 0, 0.8], -0.8),
        (data.memorizable(), [1, 1, 1, 1, 0, 0], 0),
    ):
        found = np.linalg.lstsq(toy.x_train, toy.y_train, rcond=None)[
            0
        ]  # the least-norm fit is where gradient descent from zero ends
        np.testing.assert_allclose(found, weights, atol=1e-6)
        np.testing.assert_allclose(toy.x_test @ found, [prediction], atol=1e-6)
