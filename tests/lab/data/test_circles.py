"""Circles: the tutorial's images, again from the same seed, with the radius that the label says."""

import numpy as np
import pytest

from coherence.lab import data
from coherence.lab.data import every_circle, nearest, no_circles

CIRCLES = data.circles(400, 100)
PARAMETERS = data.circle_parameters(400, 100)


def measured(images, centres):
    """The mean distance of what is black from the centre, in units of the axes."""
    ink = 1 - images[..., 0].astype(np.float64)
    pixel = (np.arange(28) + 0.5) / 28
    x, y = (
        (pixel - 0.125) / 0.775,
        ((1 - pixel) - 0.125) / 0.755,
    )  # images have their first row at the top
    away = np.hypot(
        x[None, None, :] - centres[:, 0, None, None], y[None, :, None] - centres[:, 1, None, None]
    )
    return (ink * away).sum((1, 2)) / ink.sum((1, 2))


def test_the_radius_measured_in_the_image_is_the_label():
    for images, labels, (radii, centres) in (
        (CIRCLES.x_train, CIRCLES.y_train, PARAMETERS[0]),
        (CIRCLES.x_test, CIRCLES.y_test, PARAMETERS[1]),
    ):
        np.testing.assert_allclose(labels, radii, rtol=1e-6)
        np.testing.assert_allclose(
            measured(images, centres), labels, atol=0.015
        )  # a fifth of a pixel is 0.009
        large = labels > 0.1
        np.testing.assert_allclose(measured(images, centres)[large], labels[large], atol=0.005)


def test_images_are_outlines_black_on_white():
    x = CIRCLES.x_train
    assert x.shape == (400, 28, 28, 1)
    assert x.dtype == np.float32
    assert x.min() >= 0
    assert x.max() == 1
    assert (x[:, 0] == 1).all()  # the paper
    assert np.median(x) == 1
    large = CIRCLES.y_train > 0.2
    assert (x[large][:, 13:15, 13:15] == 1).all()  # the inside
    assert (x[large].min((1, 2, 3)) < 0.2).all()  # the line
    assert ((x > 0) & (x < 1)).mean() > 0.05  # anti-aliased


def test_images_are_as_dark_and_as_different_as_the_tutorials():
    """Its networks cost 742 and 749 untrained, 19 where KL has collapsed and one image is shown
    for all: squared grey levels an image.
    """
    x = CIRCLES.x_train.astype(np.float64)
    assert (x**2).sum((1, 2, 3)).mean() == pytest.approx(738, abs=3)
    assert x.var(0).sum() == pytest.approx(16.5, abs=1)


def test_radii_and_centres_are_uniform_in_their_ranges():
    radii, centres = data.circle_parameters(10_000)[0]
    for values, low, high in (
        (radii, 0.03, 0.47),
        (centres[:, 0], 0.5, 0.53),
        (centres[:, 1], 0.5, 0.53),
    ):
        assert low <= values.min() < values.max() <= high
        np.testing.assert_allclose(
            np.quantile(values, [0.1, 0.5, 0.9]),
            low + (high - low) * np.array([0.1, 0.5, 0.9]),
            atol=0.01,
        )
    assert abs(np.corrcoef(np.column_stack([radii, centres]).T) - np.eye(3)).max() < 0.05


def test_a_seed_gives_the_same_circles_and_the_parts_do_not_depend_on_each_others_size():
    few, other = data.circles(5, 3), data.circles(5, 3, seed=1)
    assert data.circles(5, 3) is few  # drawn once
    np.testing.assert_array_equal(data.circles(7, 3).x_test, few.x_test)
    np.testing.assert_array_equal(data.circles(5, 4).x_train, few.x_train)
    assert not np.isin(few.y_test, few.y_train).any()
    assert not np.isin(other.y_train, few.y_train).any()
    with pytest.raises(ValueError, match="read-only"):
        few.x_train[0] = 0


def test_one_circle_is_drawn_as_in_the_set():
    radii, centres = PARAMETERS[0]
    np.testing.assert_array_equal(data.draw_circle(radii[3], centres[3]), CIRCLES.x_train[3])
    differences = [
        np.square(data.draw_circle(radius) - data.draw_circle(0.3)).sum()
        for radius in (0.1, 0.2, 0.3, 0.4)
    ]
    assert differences[2] == 0 < min(differences[:2] + differences[3:])


def test_they_are_a_regression_and_drawn_once():
    few = data.circles(6, 2, seed=4)
    assert (few.name, few.classes, few.outputs) == ("circles", (), 1)
    assert few is data.circles(6, 2, seed=4)


def test_no_circles_are_refused():
    with pytest.raises(
        ValueError,
        match=r"circles\(examples, tests\): at least one circle each, got examples=0, tests=1000",
    ):
        data.circles(0)


def test_every_circle_has_a_near_one_of_nearly_its_radius_among_those_of_the_grid():
    radii, images = every_circle()
    circles = data.circles(1, 50)
    distance, which = nearest(circles.x_test, images)
    assert len(radii) == len(images) == 89 * 16
    assert distance.max() < 0.05
    np.testing.assert_allclose(radii[which], circles.y_test, atol=0.005)


def test_the_nearest_is_found_as_by_a_loop_and_an_image_is_0_from_itself():
    rng = np.random.default_rng(0)
    images, known = rng.random((4, 5, 5, 1)), rng.random((6, 5, 5, 1))
    distance, which = nearest(images, known)
    for image, far, index in zip(images, distance, which):
        each = [np.sqrt(np.mean((image - one) ** 2)) for one in known]
        assert index == np.argmin(each)
        assert far == pytest.approx(min(each))
    assert nearest(known, known)[0] == pytest.approx(np.zeros(6))
    assert nearest(np.ones((1, 3)), np.zeros((1, 3)))[0] == pytest.approx([1])  # grey levels


def test_what_is_no_circle_is_farther_from_all_circles_than_any_circle():
    _, images = every_circle()
    strange = no_circles()
    assert strange.shape == (4, 28, 28, 1)
    assert (strange.min() >= 0) & (strange.max() <= 1)
    assert nearest(strange, images)[0].min() > 0.1
    square, circle = (1 - one[..., 0] for one in (strange[0], data.draw_circle(0.3)))  # ink
    for axis in (0, 1):
        ends = [np.flatnonzero(ink.sum(axis) > 0.3)[[0, -1]] for ink in (square, circle)]
        np.testing.assert_allclose(ends[0], ends[1], atol=1)
    assert square.sum() == pytest.approx(8 * 6.5 * 0.92, rel=0.1)  # a line's length times its width
