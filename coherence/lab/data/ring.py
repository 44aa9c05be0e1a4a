"""Points around a ring of normal distributions: generators that collapse leave some out."""

from __future__ import annotations

import numpy as np

from coherence.lab.data.dataset import Dataset


def gaussian_ring(
    examples: int = 2000,
    tests: int = 1000,
    modes: int = 8,
    radius: float = 2.0,
    deviation: float = 0.05,
    seed: int = 0,
) -> Dataset:
    """Points [2] of a mixture of normal distributions, evenly around a circle; y is the mode.

    The usual picture of mode collapse (Metz et al., Unrolled GANs, arXiv:1611.02163, Section 3.1,
    there with other sizes). Training and test part come from a random stream each.

    Args:
        examples, tests: points to train on and to test on.
        modes: how many normal distributions.
        radius: of the ring that their means lie on.
        deviation: of each of them, in either direction.
        seed: of the points.

    >>> data = gaussian_ring(examples=16, tests=8)
    >>> data.x_train.shape, len(data.classes)
    ((16, 2), 8)
    """
    if examples < 1 or tests < 1 or modes < 1 or not deviation > 0:
        raise ValueError(
            "gaussian_ring: at least 1 example, test and mode, and a deviation above 0; got "
            f"examples={examples}, tests={tests}, modes={modes}, deviation={deviation}."
        )
    (x_train, y_train), (x_test, y_test) = (
        _drawn(np.random.default_rng([seed, part]), size, modes, radius, deviation)
        for part, size in enumerate((examples, tests))
    )
    names = tuple(str(mode) for mode in range(modes))
    return Dataset("gaussian_ring", x_train, y_train, x_test, y_test, names)


def ring_means(modes: int = 8, radius: float = 2.0) -> np.ndarray:
    """The means of the modes, [modes, 2], anticlockwise from the right.

    >>> ring_means(modes=4, radius=1.0).round(6).tolist()
    [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [-0.0, -1.0]]
    """
    angles = 2 * np.pi * np.arange(modes) / modes
    return radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def _drawn(rng, size, modes, radius, deviation):
    y = rng.integers(modes, size=size)
    x = ring_means(modes, radius)[y] + deviation * rng.normal(size=(size, 2))
    return x.astype(np.float32), y.astype(np.int32)
