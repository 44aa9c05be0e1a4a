"""What images of circles are compared with."""

import numpy as np
import pytest

from coherence.lab import data
from coherence.lab.data.circle_comparisons import every_circle, nearest, no_circles


def test_every_circle_has_a_near_one_of_nearly_its_radius_among_those_of_the_grid():
    radii, images = every_circle()
    circles = data.circle_images(1, 50)
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
