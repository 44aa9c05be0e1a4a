"""Sums over many examples in the memory of a few."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from coherence.gradients.placement import divided


def predictor(model) -> Callable:
    """`(params, x) -> prediction` of a model: its `apply`, or the function that it is."""
    predict = getattr(model, "apply", model)
    if not callable(predict):
        raise TypeError(
            "model must have apply(params, x) or be a function of (params, x), got "
            f"{type(model).__name__}."
        )
    return predict


def sum_over_chunks(sums: Callable, arrays: tuple, batch_size: int):
    """`sums(*arrays)` for an additive `sums`, evaluated on `batch_size` examples at a time.

    The last chunk may be shorter.

    A loop, not an unrolled one: the program's size does not depend on the number of examples.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: at least 1 example at a time, got {batch_size}.")
    lengths = {jnp.shape(a)[0] for a in arrays}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "examples, labels and weights need one leading axis of equal, positive length, got "
            f"{[jnp.shape(a) for a in arrays]}."
        )
    arrays = tuple(jnp.asarray(a) for a in arrays)
    (n,) = lengths
    whole, summed = n // batch_size, sums
    sums = lambda *chunk: summed(*divided(chunk))
    if whole <= 1 and n % batch_size == 0:
        return sums(*arrays)
    parts = []
    if whole:
        chunked = [a[: whole * batch_size].reshape(whole, batch_size, *a.shape[1:]) for a in arrays]
        parts.append(
            jax.tree.map(lambda leaf: leaf.sum(0), jax.lax.map(lambda chunk: sums(*chunk), chunked))
        )
    if n % batch_size:
        parts.append(sums(*(a[whole * batch_size :] for a in arrays)))
    return jax.tree.map(lambda *leaves: sum(leaves), *parts)
