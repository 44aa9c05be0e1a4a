"""What every benchmark shares.

Interleaved pairs in one process, ratios with an interval, memory as the compiler counts it.
"""

import time
from typing import NamedTuple

import jax
import numpy as np
from scipy import stats


class Compiled(NamedTuple):
    """A compiled call and what it cost: `run()` calls it and waits."""

    run: object
    seconds_to_compile: float
    temporaries: int
    outputs: int


class Ratio(NamedTuple):
    """`a` against `b`.

    The median over pairs of a's time / b's time, with a 95 % interval, and each one's median in
    seconds.
    """

    value: float
    low: float
    high: float
    a: float
    b: float
    pairs: int

    def __str__(self):
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def compiled(function, *args):
    """`function(*args)` lowered, compiled and measured.

    Bytes of temporaries and outputs from the compiler.
    """
    lowered = jax.jit(function).lower(*args)
    start = time.perf_counter()
    program = lowered.compile()
    seconds = time.perf_counter() - start
    memory = program.memory_analysis()
    run = lambda: jax.block_until_ready(program(*args))
    return Compiled(run, seconds, memory.temp_size_in_bytes, memory.output_size_in_bytes)


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ratio(a, b, pairs=15, warmup=1):
    """Time `a()` and `b()` in turn, `pairs` times, the order swapped every time.

    A machine that slows down slows both.
    """
    for _ in range(warmup):
        a(), b()
    times = np.empty((pairs, 2))
    for i in range(pairs):
        for j in (0, 1) if i % 2 else (1, 0):
            times[i, j] = seconds((a, b)[j])
    ratios = np.sort(times[:, 0] / times[:, 1])
    low, high = _median_interval(pairs)
    return Ratio(
        float(np.median(ratios)),
        float(ratios[low]),
        float(ratios[high]),
        *np.median(times, 0).tolist(),
        pairs,
    )


def _median_interval(n, confidence=0.95):
    """Ranks of the order statistics that hold the median with the given confidence.

    The whole range where n is too small.
    """
    low = max(0, int(stats.binom.ppf((1 - confidence) / 2, n, 0.5)) - 1)
    return low, n - 1 - low
