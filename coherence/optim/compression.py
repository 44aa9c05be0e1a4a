"""Compressed means of several workers, with error feedback: what a parameter server gets."""

import math
import numbers
from collections.abc import Callable

import jax
import jax.numpy as jnp

from coherence.gradients.factors import accumulator
from coherence.gradients.reductions import nodes

from .aggregation import Aggregator, aggregator
from .median_of_means import means_of_groups


class Compressor:
    """How a worker's gradient is made smaller, leaf by leaf; made by the functions below.

    Attributes:
        compress: what the server reads of one array, in its shape.
        bits: how many bits an array of so many numbers is sent in.

    >>> from coherence.optim import scaled_sign
    >>> scaled_sign().bits(100)
    132
    """

    def __init__(
        self,
        compress: Callable[[jax.Array], jax.Array],
        bits: Callable[[int], int],
        name: str,
    ) -> None:
        self.compress, self.bits, self._name = compress, bits, name

    def __repr__(self) -> str:
        return self._name


def scaled_sign() -> Compressor:
    r"""The sign of each coordinate, times their mean size: one bit each, and one number.

    .. math:: C(p) = \frac{\|p\|_1}{n}\,\mathrm{sign}(p)

    Seide et al., Interspeech 2014; Karimireddy et al. (arXiv:1901.09847).

    >>> scaled_sign().compress(jnp.array([1.0, -3.0]))
    Array([ 2., -2.], dtype=float32)
    """
    compress = lambda p: jnp.mean(jnp.abs(p)) * jnp.sign(p)
    return Compressor(compress, lambda size: size + 32, "scaled_sign()")


def largest(share: float = 0.01) -> Compressor:
    """The coordinates that are largest in size, zero elsewhere: their values and places are sent.

    Aji & Heafield (arXiv:1704.05021). Of equal ones the first.

    Args:
        share: of each leaf's coordinates, in (0, 1]; at least one is kept.

    >>> largest(0.5).compress(jnp.array([1.0, -3.0]))
    Array([ 0., -3.], dtype=float32)
    """
    if not 0 < share <= 1:
        raise ValueError(f"largest(share): in (0, 1], got {share}.")
    number = lambda size: min(size, max(1, round(share * size)))

    def compress(p):
        flat = p.ravel()
        _, places = jax.lax.top_k(jnp.abs(flat), number(flat.size))
        return jnp.zeros_like(flat).at[places].set(flat[places]).reshape(p.shape)

    bits = lambda size: number(size) * (32 + max(1, math.ceil(math.log2(max(1, size)))))
    return Compressor(compress, bits, f"largest(share={share})")


def rounded(bits: int = 8) -> Compressor:
    """Each coordinate rounded to one of so many equal steps up to the largest, and one number.

    To the nearest step, nothing is drawn. Alistarh et al. (arXiv:1610.02132) round at random.

    Args:
        bits: a coordinate, from 2 to 16; 2^bits - 1 steps that are symmetric around zero.

    >>> rounded(2).compress(jnp.array([1.0, -3.0, 2.0]))
    Array([ 0., -3.,  3.], dtype=float32)
    """
    if not isinstance(bits, numbers.Integral) or not 2 <= bits <= 16:
        raise ValueError(f"rounded(bits): a whole number from 2 to 16, got {bits!r}.")
    steps = 2 ** (bits - 1) - 1

    def compress(p):
        step = jnp.max(jnp.abs(p), initial=0) / steps
        return jnp.where(step > 0, jnp.round(p / jnp.where(step > 0, step, 1)) * step, 0)

    return Compressor(compress, lambda size: bits * size + 32, f"rounded(bits={bits})")


def compressed(compressor: Compressor, workers: int = 4, feedback: bool = True) -> Aggregator:
    r"""The mean of what several workers send of their compressed mean gradients.

    .. math:: p_k = \bar g_k + e_k, \qquad \bar g = \sum_k \tfrac{m_k}{m} C(p_k),
              \qquad e_k \leftarrow p_k - C(p_k)

    The workers are consecutive stretches of the batch, as `median_of_means` has them, m_k examples
    each. With error feedback each adds what it did not send to what it sends next, so that over
    steps nothing is lost: the sum of all updates is that of the mean gradients minus what is still
    owed. Without it e_k is 0. The state holds e_k: the parameters' size for each worker. A worker
    without examples, where there are fewer than workers, sends nothing and keeps its own.

    Karimireddy et al., Error Feedback Fixes SignSGD (arXiv:1901.09847), Algorithm 2, with the
    learning rate behind instead of inside.

    Args:
        compressor: `scaled_sign()`, `largest(share)` or `rounded(bits)`.
        workers: how many, at least 1; static.
        feedback: whether they remember what they did not send.

    >>> tx = compressed(largest(0.5), workers=1)
    >>> state = tx.init(jnp.zeros(2))
    >>> for _ in range(2):
    ...     update, state = tx.update(jnp.array([[1.0, 1.5]]), state)
    ...     print(update)
    [0.  1.5]
    [2. 0.]
    """
    if not isinstance(compressor, Compressor):
        raise TypeError(
            "compressed(compressor): scaled_sign(), largest(share) or rounded(bits), got "
            f"{compressor!r}."
        )
    if not isinstance(workers, numbers.Integral) or workers < 1:
        raise ValueError(f"compressed(workers): a whole number, at least 1, got {workers!r}.")
    name = f"compressed({compressor!r}, workers={workers}, feedback={feedback})"

    def init(params):
        if params is None:
            raise ValueError(
                f"{name}.init(params) needs the parameters, got None: "
                "the state holds what each worker owes, in their shapes."
            )
        owed = lambda p: jnp.zeros((workers, *jnp.shape(p)), accumulator(jnp.result_type(p)))
        return jax.tree.map(owed, params) if feedback else ()

    def combine(gradients, state):
        pairs, treedef = nodes(gradients)
        means, counts = means_of_groups(gradients, workers)
        counts = jnp.asarray([*counts, *[0] * (workers - len(means))])
        weights = counts / jnp.maximum(jnp.sum(counts), 1)
        owed = treedef.flatten_up_to(state) if feedback else [0.0] * len(pairs)
        updates, after = [], []
        for (_, node), leaves, error in zip(pairs, zip(*means), owed):
            absent = [jnp.zeros_like(leaves[0])] * (workers - len(means))
            sums = jnp.stack([*leaves, *absent]) + error
            sent = jax.lax.map(compressor.compress, sums)  # one by one: sorting takes memory
            present = (counts > 0).reshape(-1, *[1] * (sums.ndim - 1))
            sent = jnp.where(present, sent, 0)
            updates.append(jnp.tensordot(weights.astype(sent.dtype), sent, 1).astype(node.dtype))
            after.append(sums - sent)
        return treedef.unflatten(updates), treedef.unflatten(after) if feedback else state

    return aggregator(combine, name, init=init)
