"""When to measure."""

import numpy as np


def log_spaced(steps, per_decade=10):
    """0, then about `per_decade` steps a decade, and the last: sorted, without repetition.

    >>> log_spaced(100, per_decade=2)
    (0, 1, 3, 10, 32, 100)
    """
    decades = np.log10(max(steps, 1))
    points = 10 ** np.linspace(0, decades, 1 + round(decades * per_decade))
    return tuple(sorted({0, *(round(p) for p in points), steps}))
