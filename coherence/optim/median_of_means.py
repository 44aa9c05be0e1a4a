"""The median of the means of a few groups of examples (M3)."""

import itertools
import numbers
from typing import NamedTuple

import jax
import jax.numpy as jnp

from coherence.gradients.reductions import count, leaf_weighted_sums, mask, nodes, size, take

from .aggregation import Aggregator, aggregator, averaged
from .rolling import median_of, of_last


def median_of_means(
    groups: int = 3, *, seed: int | None = None, consecutive: bool = False
) -> Aggregator:
    r"""Coordinate-wise median of the means of a few groups of examples (M3 for 3 groups).

    .. math:: \bar g^{(j)} = \mathrm{median}_k\, \frac1{|G_k|}\sum_{i \in G_k} g_i^{(j)}

    Between the mean (1 group) and the median (m groups), at the price of the mean: an example can
    spoil its own group only, so fewer than half as many examples as there are groups cannot move a
    coordinate far. The mean of the two middle groups for an even number.

    The groups are consecutive stretches of the batch, `numpy.array_split`'s, whose sizes differ by
    one at most. Batches drawn at random need no more; where the order means something (sorted by
    class), `seed` draws a fresh permutation each step. Masked examples do not count and leave no
    gap: the groups are those of the rest. Of fewer examples than groups each is a group of its own:
    this is then their median. A nan in any example makes its coordinate nan.

    `consecutive` is M3 as released: a group is a whole batch. It gathers the mean gradients of
    `groups` calls, takes a batch gradient too, and updates at every `groups`-th call; zero in
    between, so that the weights stay (behind it plain `optax.sgd`; momentum, decay and schedules go
    on in between). The released code refers to a name it does not define there, and keeps its
    weight decay inside the buffer: here `l2_decay` comes behind, and acts `groups` times as often.

    Zielinski, Krishnan & Chatterjee, Weak and Strong Gradient Directions (arXiv:2003.07422);
    Chatterjee & Zielinski, On the Generalization Mystery (arXiv:2203.10036), Section 7.

    Args:
        groups: how many, at least 1; static.
        seed: draw the groups by random permutations from this seed; the state holds the key, a new
            one after each step. `None` takes them in the order of the batch.
        consecutive: whether the groups are consecutive batches.

    >>> tx = median_of_means(3)
    >>> tx.update(jnp.array([[0.0], [2.0], [3.0], [5.0], [100.0]]), tx.init(None))[0]
    Array([4.], dtype=float32)
    """
    if not isinstance(groups, numbers.Integral) or groups < 1:
        raise ValueError(
            f"median_of_means(groups): groups is a whole number, at least 1, got {groups!r}."
        )
    if seed is not None and not isinstance(seed, numbers.Integral):
        raise ValueError(
            f"median_of_means(seed): seed is a whole number or None, got {seed!r}. "
            "For a key of your own, put it into the state: state._replace(key=...)."
        )
    name = f"median_of_means(groups={groups}, seed={seed}, consecutive={consecutive})"
    if consecutive:
        if seed is not None:
            raise ValueError(
                "median_of_means: consecutive batches have no order to draw, "
                f"got seed={seed!r}. Leave one of the two out."
            )
        return averaged(of_last(median_of, groups, name, every=groups), name)
    if seed is None:
        return aggregator(lambda gradients: _median_of_means(gradients, groups, None), name)

    def combine(gradients, state):
        now, later = jax.random.split(jax.random.wrap_key_data(state.key))
        return _median_of_means(gradients, groups, _permutation(now, gradients)), _state(later)

    return aggregator(combine, name, init=lambda params: _state(jax.random.key(seed)))


class Permutation(NamedTuple):
    """What the next permutation is drawn from: a key's data, which every library can save."""

    key: jax.Array


def _state(key):
    return Permutation(jax.random.key_data(key))


def means_of_groups(gradients, groups, order=None):
    """The means of consecutive groups of examples, and how many are in each.

    Returns:
        means: of each group a list of its leaves' means, in at least float32; there are as many
            groups as examples where these are fewer, and zeros for a group that the mask empties.
        counts: a list of numbers, or with a mask an array [groups].
    """
    keep, m = mask(gradients), size(gradients)
    if keep is None:
        stretches = _stretches(m, min(groups, m))
        means = [_mean(gradients, s if order is None else order[s]) for s in stretches]
        return means, [s.stop - s.start for s in stretches]
    n = count(gradients)
    group = _groups_of_present(keep if order is None else keep[order], n, groups)
    if order is not None:
        group = jnp.zeros_like(group).at[order].set(group)
    members = [keep & (group == k) for k in range(groups)]
    means = [_masked_mean(gradients, some) for some in members]
    return means, jnp.stack([jnp.sum(some) for some in members])


def _median_of_means(gradients, groups, order):
    pairs, treedef = nodes(gradients)
    means, counts = means_of_groups(gradients, groups, order)
    present = None if isinstance(counts, list) else counts > 0
    medians = [median_of(*rows, present=present) for rows in zip(*means)]
    return treedef.unflatten([x.astype(node.dtype) for x, (_, node) in zip(medians, pairs)])


def _mean(gradients, index):
    """The mean of a few examples leaf by leaf, in at least float32."""
    members = take(gradients, index)
    m = size(members)
    return [mean for _, mean in leaf_weighted_sums(members, jnp.full(m, 1 / m))]


def _masked_mean(gradients, members):
    """The mean of the members (bool [m]) leaf by leaf, zero of none; in at least float32.

    The others' places are taken by copies of the first member, which share its weight: a weight of
    zero would make nan of their infinities.
    """
    m, number = len(members), jnp.sum(members)
    first = jnp.argmax(members)
    index = jnp.where(members, jnp.arange(m), first)
    weights = jnp.where(index == first, 1 / jnp.sum(index == first), 1) / jnp.maximum(number, 1)
    sums = leaf_weighted_sums(take(gradients, index), weights)
    return [jnp.where(number > 0, mean, 0) for _, mean in sums]


def _permutation(key, gradients):
    """An order [m] of the examples; those that the mask drops come last, and change no other."""
    keep = mask(gradients)
    place = jnp.arange(size(gradients)) if keep is None else jnp.cumsum(keep) - 1
    drawn = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i)))(place)
    return jnp.argsort(drawn if keep is None else jnp.where(keep, drawn, 2))


def _stretches(m, groups):
    """`numpy.array_split` as slices: the first m % groups are longer by one."""
    size, longer = divmod(m, groups)
    starts = [k * size + min(k, longer) for k in range(groups + 1)]
    return [slice(*pair) for pair in itertools.pairwise(starts)]


def _groups_of_present(keep, n, groups):
    """The group of each example [m], splitting the n kept ones as `_stretches` does."""
    place, size, longer = jnp.cumsum(keep) - 1, n // groups, n % groups
    in_longer = longer * (size + 1)
    rest = longer + (place - in_longer) // jnp.maximum(size, 1)
    return jnp.where(place < in_longer, place // (size + 1), rest)
