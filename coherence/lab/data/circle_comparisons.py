"""What a network takes for circles is compared with these: all circles there are, and images that are none."""

from __future__ import annotations

import numpy as np

from coherence.lab.data.circles import draw_circle


def every_circle() -> tuple[np.ndarray, np.ndarray]:
    """`(radii [n], images [n, 28, 28, 1])` over the range of `circle_images`: 89 radii, 0.005 apart, by 4 x 4 centres, 0.01 apart.

    In pixels that is 0.1 and 0.2. A circle of the data set is 0.02 from the nearest of them
    (`nearest`), the mean of all images 0.07.
    """
    radii, centres = np.linspace(0.03, 0.47, 89), np.linspace(0.5, 0.53, 4)
    places = [(radius, (x, y)) for radius in radii for x in centres for y in centres]
    return np.array([radius for radius, _ in places]), np.stack(
        [draw_circle(*place) for place in places]
    )


def no_circles(side: int = 28, finer: int = 8) -> np.ndarray:
    """Images [4, 28, 28, 1] of what is no circle: an upright square, a diagonal cross, a filled disc, uniform noise.

    Black on white, in the middle and as large as a circle of radius 0.3, lines as dark as those of
    circles.
    """
    middle, half, line = (14.6, 13.6), 6.5, 0.46  # pixels
    y, x = np.meshgrid(
        *((np.arange(side * finer) + 0.5) / finer - one for one in middle[::-1]), indexing="ij"
    )
    far = np.maximum(abs(x), abs(y))
    cross = (np.minimum(abs(x - y), abs(x + y)) < line * np.sqrt(2)) & (far < half)
    black = np.stack([abs(far - half) < line, cross, np.hypot(x, y) < half])
    drawn = 1 - black.reshape(3, side, finer, side, finer).mean((2, 4))
    return np.concatenate([drawn, np.random.default_rng(0).random((1, side, side))])[
        ..., None
    ].astype(np.float32)


def nearest(images: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""How far each of m images is from the nearest of the known ones, in grey levels, and which that is (an index each).

    .. math:: \min_k \sqrt{\frac1P \sum_p (x_p - y_{kp})^2}
    """
    x, y = (np.asarray(one, float).reshape(len(one), -1) for one in (images, known))
    which = ((y**2).sum(1) - 2 * x @ y.T).argmin(
        1
    )  # but for x's own square, which does not matter here
    return np.sqrt(np.square(x - y[which]).mean(1)), which
