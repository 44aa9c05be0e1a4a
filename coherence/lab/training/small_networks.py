"""Small dense networks trained side by side in one program, each on examples of its own.

For experiments that ask hundreds of networks what single examples do; a network by itself, with
records and checkpoints, is a run (`coherence.lab.training.Classification`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray


def logits(params: Any, x: Any) -> jax.Array:
    """Outputs [classes] of one network for ONE example [inputs]: ReLU between dense layers."""
    *hidden, last = params
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ last["kernel"] + last["bias"]


def loss(params: Any, example: tuple[Any, Any]) -> jax.Array:
    """The cross-entropy of ONE example `(x, y)`."""
    x, y = example
    outputs = logits(params, x)
    return jax.nn.logsumexp(outputs) - outputs[y]


def initial(nets: int, sizes: Sequence[int], rng: np.random.Generator) -> Any:
    """Parameters of `nets` networks, a leading axis: normal kernels of variance 2 / inputs.

    sizes: inputs, the widths of hidden layers, classes.
    """
    return [
        {
            "kernel": np.float32(rng.normal(size=(nets, m, n)) * np.sqrt(2 / m)),
            "bias": np.zeros((nets, n), np.float32),
        }
        for m, n in itertools.pairwise(sizes)
    ]


@partial(jax.jit, static_argnames=("rate", "momentum", "along"))
def train(
    params: Any,
    x: ArrayLike,
    y: ArrayLike,
    order: ArrayLike,
    *,
    rate: float,
    momentum: float = 0.9,
    along: bool = False,
) -> Any:
    """The networks after SGD with momentum on the batches of `order`.

    Args:
        params: from `initial`.
        x, y: the data, [m, inputs] and int [m], shared by all networks.
        order: int [nets, stretches, steps, batch], the examples that each step sees.
        along: return what is there after each stretch.

    Returns:
        Parameters with a leading axis [nets], with `along` [nets, stretches].
    """
    mean = lambda p, batch: jnp.mean(jax.vmap(loss, (None, 0))(p, batch))
    inputs, labels = jnp.asarray(x), jnp.asarray(y)

    def step(carry, index):
        params, velocity = carry
        gradient = jax.grad(mean)(params, (inputs[index], labels[index]))
        velocity = jax.tree.map(lambda v, g: momentum * v - rate * g, velocity, gradient)
        return (jax.tree.map(jnp.add, params, velocity), velocity), None

    def stretch(carry, indices):
        carry, _ = jax.lax.scan(step, carry, indices)
        return carry, carry[0] if along else None

    def single(params, order):
        start = params, jax.tree.map(jnp.zeros_like, params)
        (params, _), course = jax.lax.scan(stretch, start, order)
        return course if along else params

    return jax.vmap(single)(params, jnp.asarray(order))


def on_subsets(
    inside: NDArray,
    x: ArrayLike,
    y: ArrayLike,
    hidden: Sequence[int],
    classes: int,
    shape: tuple[int, int, int],
    rng: np.random.Generator,
    *,
    rate: float,
    momentum: float = 0.9,
    along: bool = False,
    abreast: int = 50,
) -> Iterator[Any]:
    """A network for each row of `inside`, trained `abreast` at a time: their parameters in turn.

    Args:
        inside: bool [nets, m], the examples that each network sees.
        hidden: widths.
        shape: stretches, steps, batch; each network sees its examples in one random order after
            another, as often as the steps need.
        rng: draws orders and initial parameters.
        others: as for `train`.
    """
    sizes = np.shape(x)[1], *hidden, classes
    for start in range(0, len(inside), abreast):
        rows = inside[start : start + abreast]
        order = [shuffled(np.flatnonzero(row), math.prod(shape), rng) for row in rows]
        params = initial(len(rows), sizes, rng)
        batches = np.array(order).reshape(len(rows), *shape)
        yield train(params, x, y, batches, rate=rate, momentum=momentum, along=along)


def shuffled(numbers: NDArray, count: int, rng: np.random.Generator) -> NDArray:
    """`count` of the numbers, one random order after another."""
    rounds = -(-count // len(numbers))
    return np.concatenate([rng.permutation(numbers) for _ in range(rounds)])[:count]


def all_logits(params: Any, x: ArrayLike) -> NDArray:
    """Outputs of all networks: [nets, m, classes], float64."""
    return np.asarray(_all_logits(params, jnp.asarray(x)), np.float64)


_all_logits = jax.jit(jax.vmap(jax.vmap(logits, (None, 0)), (0, None)))
