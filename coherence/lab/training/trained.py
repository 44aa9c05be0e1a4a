"""Networks as finished runs left them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from coherence.lab.settings import Autoencoders


def autoencoders(settings: Autoencoders, runs: Iterable) -> Iterator[tuple[Callable, Callable]]:
    """`(encode, decode)` of each run: images [m, ...] to z [m, latents] and back, numpy arrays.

    Where z is drawn it is its mean.

    Programs are compiled once for all runs, anew for each m.
    """
    import jax

    from .checkpoints import from_arrays

    model = settings.build()
    like = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, *settings.shape), np.float32))
    encoder = jax.jit(lambda params, x: jax.tree.leaves(model.apply(params, x, method="encode"))[0])
    decoder = jax.jit(lambda params, z: model.apply(params, z, method="decode"))
    for run in runs:
        params = from_arrays(like, run.load("params"))
        yield _of(encoder, params), _of(decoder, params)


def _of(function, params):
    return lambda x: np.asarray(function(params, np.asarray(x, np.float32)))
