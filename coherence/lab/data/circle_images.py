"""Images of circles: three degrees of freedom, of which only the radius matters much."""

from __future__ import annotations

import functools

import numpy as np

from coherence.lab.data.dataset import Dataset

SIDE = 28
_RADIUS, _CENTRE = (0.03, 0.47), (0.5, 0.53)
_PAPER = 72  # pixels: one inch, as a notebook draws figures
_LEFT, _BOTTOM, _WIDTH, _HEIGHT = (
    0.125,
    0.125,
    0.775,
    0.755,
)  # where a notebook's figure has its axes, as fractions of the paper


@functools.lru_cache(maxsize=8)
def circles(examples: int = 1000, tests: int = 1000, seed: int = 0) -> Dataset:
    """Outlines of circles, black on white, `[28, 28, 1]`, float32 in [0, 1]; targets are radii.

    The radius is uniform in [0.03, 0.47], both coordinates of the centre in [0.5, 0.53]. Most of an
    image's energy is its white background: predicting 0 everywhere costs about 738 squared grey
    levels an image, the mean image 17.

    Radius and centre are in units of the axes of the figure that each circle was drawn in, which
    are 0.775 of the image wide and 0.755 high. These margins and the black lines are what the
    tutorial's code draws in a notebook: its figures are transparent there, and what would be grey
    in the anti-aliased line becomes black where transparency is dropped; the resizing then smooths.
    The losses it prints agree with that (an untrained network's: 742) and not with opaque paper
    (765).

    The training part comes from one random stream, the test part from another, so that either may
    grow without changing the other; a set is drawn once in a process. Centres: `circle_parameters`,
    with the same arguments.

    Args:
        examples: training images.
        tests: test images.
        seed: of radii and centres.

    D. V. Godoy, Understanding AutoEncoders with an Example: A Step-by-Step Tutorial, and its
    notebook.
    """
    parts = circle_parameters(examples, tests, seed)
    (x_train, y_train), (x_test, y_test) = (
        (_drawn(radii, centres), radii.astype(np.float32)) for radii, centres in parts
    )
    return Dataset("circles", x_train, y_train, x_test, y_test)


def circle_parameters(
    examples: int = 1000, tests: int = 1000, seed: int = 0
) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """`((radii [n], centres [n, 2]), (radii, centres))` of both parts of `circles`.

    >>> (radii, centres), _ = circle_parameters(examples=3, tests=2)
    >>> radii.shape, centres.shape
    ((3,), (3, 2))
    """
    if examples < 1 or tests < 1:
        raise ValueError(
            "circles(examples, tests): at least one circle each, "
            f"got examples={examples}, tests={tests}."
        )
    streams = [np.random.default_rng([seed, part]) for part in (0, 1)]
    return tuple(
        (rng.uniform(*_RADIUS, n), rng.uniform(*_CENTRE, (n, 2)))
        for rng, n in zip(streams, (examples, tests))
    )


def draw_circle(radius: float, centre: tuple[float, float] = (0.515, 0.515)) -> np.ndarray:
    """The image `[28, 28, 1]` of one circle; the default centre is the mean one.

    >>> draw_circle(0.3).shape
    (28, 28, 1)
    """
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.path import Path
    from matplotlib.transforms import Affine2D
    from PIL import Image

    renderer = RendererAgg(
        _PAPER, _PAPER, dpi=72
    )  # transparent white; a line is one point wide, which is one pixel here
    in_axes = Affine2D().scale(radius).translate(*centre)
    on_paper = in_axes.scale(_WIDTH, _HEIGHT).translate(_LEFT, _BOTTOM).scale(_PAPER)
    renderer.draw_path(renderer.new_gc(), Path.unit_circle(), on_paper)
    grey = Image.fromarray(np.asarray(renderer.buffer_rgba())).convert("L").resize((SIDE, SIDE))
    return np.asarray(grey, np.float32)[..., None] / 255


def every_circle() -> tuple[np.ndarray, np.ndarray]:
    """`(radii [n], images [n, 28, 28, 1])` of a grid over the range of `circles`.

    It has 89 radii, 0.005 apart, by 4 x 4 centres, 0.01 apart.
    In pixels that is 0.1 and 0.2. A circle of the data set is 0.02 from the nearest of them
    (`nearest`), the mean of all images 0.07.

    >>> radii, images = every_circle()
    >>> len(radii) == 89 * 4 * 4, images.shape[1:]
    (True, (28, 28, 1))
    """
    radii, centres = np.linspace(0.03, 0.47, 89), np.linspace(0.5, 0.53, 4)
    places = [(radius, (x, y)) for radius in radii for x in centres for y in centres]
    return np.array([radius for radius, _ in places]), np.stack(
        [draw_circle(*place) for place in places]
    )


def no_circles(side: int = 28, finer: int = 8) -> np.ndarray:
    """Images [4, 28, 28, 1] of no circle: a square, a diagonal cross, a filled disc, uniform noise.

    Black on white, in the middle and as large as a circle of radius 0.3, lines as dark as those of
    circles.

    >>> no_circles().shape
    (4, 28, 28, 1)
    """
    middle, half, line = (14.6, 13.6), 6.5, 0.46  # pixels
    y, x = np.meshgrid(
        *((np.arange(side * finer) + 0.5) / finer - centre for centre in middle[::-1]),
        indexing="ij",
    )
    far = np.maximum(abs(x), abs(y))
    cross = (np.minimum(abs(x - y), abs(x + y)) < line * np.sqrt(2)) & (far < half)
    black = np.stack([abs(far - half) < line, cross, np.hypot(x, y) < half])
    drawn = 1 - black.reshape(3, side, finer, side, finer).mean((2, 4))
    return np.concatenate([drawn, np.random.default_rng(0).random((1, side, side))])[
        ..., None
    ].astype(np.float32)


def nearest(images: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""The distance of each of m images to the nearest known one, in grey levels, and its index.

    .. math:: \min_k \sqrt{\frac1P \sum_p (x_p - y_{kp})^2}

    >>> known = np.stack([np.zeros((2, 2, 1)), np.ones((2, 2, 1))])
    >>> distance, index = nearest(known[1:], known)
    >>> distance.tolist(), index.tolist()
    ([0.0], [1])
    """
    x, y = (np.asarray(part, float).reshape(len(part), -1) for part in (images, known))
    which = ((y**2).sum(1) - 2 * x @ y.T).argmin(
        1
    )  # but for x's own square, which does not matter here
    return np.sqrt(np.square(x - y[which]).mean(1)), which


def _drawn(radii, centres):
    images = np.stack([draw_circle(*circle) for circle in zip(radii, centres)])
    images.setflags(write=False)  # shared by all who ask for this set
    return images
