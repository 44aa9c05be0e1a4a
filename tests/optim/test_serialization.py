"""States of optimizers and stopping rules go through the usual libraries' files and come back."""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coherence import optim
from coherence.optim import stopping

PARAMS = {"a": jnp.ones((2, 3)), "b": {"w": jnp.ones(3, jnp.bfloat16), "c": jnp.float32(2)}}


@functools.cache
def states():
    """`(as they begin, as they are after a step)` of every kind of state."""
    batch = jax.tree.map(lambda p: jnp.stack([i * p for i in range(6)]), PARAMS)
    fading = optax.linear_schedule(1.0, 0.0, 5)
    optimizers = {
        "stateless": optim.winsorize(10),
        "drawn": optim.median_of_means(3, seed=1),
        "mean": optim.rolling_mean(3),
        "median": optim.rolling_median(3),
        "chain": optim.chain(
            optim.median_of_means(2, seed=0),
            optim.l1_decay(fading),
            optax.adam(0.1),
            optim.soft_threshold(fading, mask={"a": True, "b": False}),
        ),
    }
    rules = {
        "patience": (stopping.patience(2), 1.0),
        "any": (stopping.any_of(stopping.patience(2), stopping.max_steps(9)), (1.0, 3)),
    }
    start = {name: tx.init(PARAMS) for name, tx in optimizers.items()}
    after = {name: tx.update(batch, start[name], PARAMS)[1] for name, tx in optimizers.items()}
    start |= {name: rule.init(PARAMS) for name, (rule, _) in rules.items()}
    after |= {name: rule.update(start[name], seen, PARAMS) for name, (rule, seen) in rules.items()}
    return start, after


def through_flax(start, state, folder):
    flax = pytest.importorskip("flax.serialization")
    return flax.from_bytes(start, flax.to_bytes(state))


def through_equinox(start, state, folder):
    equinox, file = pytest.importorskip("equinox"), io.BytesIO()
    equinox.tree_serialise_leaves(file, state)
    file.seek(0)
    return equinox.tree_deserialise_leaves(file, start)


def through_orbax(start, state, folder):
    orbax = pytest.importorskip("orbax.checkpoint")
    with orbax.StandardCheckpointer() as files:
        files.save(folder / "state", state)
        files.wait_until_finished()
        return files.restore(folder / "state", start)


@pytest.mark.parametrize("through", [through_flax, through_equinox, through_orbax])
def test_a_saved_state_comes_back_to_the_bit(through, tmp_path):
    start, state = states()
    back = through(start, state, tmp_path)
    assert jax.tree.structure(back) == jax.tree.structure(state) == jax.tree.structure(start)
    for x, y in zip(jax.tree.leaves(back), jax.tree.leaves(state)):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
    changed = [(x != y).any() for x, y in zip(*map(jax.tree.leaves, (start, state)))]
    assert sum(changed) > 10  # or nothing was tested
