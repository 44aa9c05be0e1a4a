"""The order of the batches: a function of seed and step, so a position in training is a number."""

import functools

import numpy as np


@functools.lru_cache(maxsize=16)
def _epoch(seed, epoch, examples):
    return (
        np.random.Generator(np.random.Philox(key=[seed, epoch]))
        .permutation(examples)
        .astype(np.int32)
    )


def batches(seed: int, start: int, stop: int, *, examples: int, batch_size: int) -> np.ndarray:
    """Indices of the examples of steps start..stop-1: int32 [stop - start, batch_size].

    Each epoch is a fresh permutation without replacement; what does not fill a batch at its end is
    left out that time. A batch of all examples keeps their order.
    """
    if batch_size == examples:
        return np.tile(np.arange(examples, dtype=np.int32), (stop - start, 1))
    per_epoch = examples // batch_size
    return np.stack(
        [
            _epoch(seed, step // per_epoch, examples)[
                (step % per_epoch) * batch_size : (step % per_epoch + 1) * batch_size
            ]
            for step in range(start, stop)
        ]
    )
