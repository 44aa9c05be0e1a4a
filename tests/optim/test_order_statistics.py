"""The kernels select exactly what sorting would."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.optim.order_statistics import (
    Formed,
    bisection,
    clipped_mean,
    networks,
    rank,
    streaming,
)
from coherence.optim.order_statistics.keys import from_keys, to_keys


@pytest.mark.parametrize(
    ("c", "m", "k"),
    [
        (0, 100, 0),
        (1, 100, 1),
        (2, 100, 2),
        (8, 100, 8),
        (50, 100, 49),
        (50, 101, 50),
        (50, 2, 0),
        (50, 1, 0),
    ],
)
def test_ranks_round_to_the_nearest(c, m, k):
    assert rank(c, m) == k


@pytest.mark.parametrize("c", range(51))
def test_ranks_of_integer_percents_are_exact(c):
    assert [rank(c, m) for m in range(1, 300)] == [
        (2 * c * (m - 1) + 99) // 200 for m in range(1, 300)
    ]


def test_halves_go_down_and_decimals_are_meant_as_written():
    assert rank(12.5, 5) == 0  # 12.5 % of 4 is a half
    assert rank(0.7, 501) == 3  # 3.5, though the float 0.7 is below 7/10
    assert rank(1.1, 1001) == 11


@pytest.mark.parametrize("m", range(1, 12))
def test_a_network_that_sorts_zeros_and_ones_sorts_everything(m):
    """Knuth's 0-1 principle: all 2^m inputs at once; every pruning must find its own wire."""
    inputs = jnp.asarray(list(itertools.product([0.0, 1.0], repeat=m))).T
    ranked = np.sort(np.asarray(inputs), 0)
    for wire in range(m):
        np.testing.assert_array_equal(networks.select(inputs, (wire,))[0], ranked[wire])
    with jax.disable_jit():
        np.testing.assert_array_equal(np.stack(networks.select(inputs, range(m))), ranked)


def test_a_pruned_network_is_smaller():
    assert len(networks.pruned(100, (49, 50))) < 0.85 * len(networks.odd_even_mergesort(100))


@pytest.mark.parametrize("m", [1, 2, 5, 8])
def test_streaming_keeps_the_few_smallest_and_largest(m):
    values = jnp.asarray(np.random.default_rng(0).integers(-5, 5, size=(m, 200)))
    ranked = np.sort(np.asarray(values), 0)
    for k in range((m - 1) // 2 + 1):
        low, high = streaming.select(list(values), k)
        np.testing.assert_array_equal(low, ranked[k])
        np.testing.assert_array_equal(high, ranked[m - 1 - k])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_bisection_finds_every_rank(dtype):
    values = (
        jnp.asarray(np.random.default_rng(0).normal(size=(17, 50)), dtype)
        .at[:3]
        .set(-jnp.inf)
        .at[3:5]
        .set(0.0)
    )
    ranked = np.sort(np.asarray(values.astype(jnp.float32)), 0)
    find = jax.jit(lambda keys, k: bisection.select(keys, k))
    for k in range(17):
        found = from_keys(find(to_keys(values), k), dtype)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found.astype(jnp.float32), ranked[k])


def test_keys_keep_the_order_and_come_back():
    values = np.array(
        [-np.inf, -3e38, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, 3e38, np.inf], np.float32
    )
    keys = to_keys(jnp.asarray(values))
    assert np.all(np.diff(np.asarray(keys, np.int64)) > 0)
    assert np.asarray(from_keys(keys, jnp.float32)).tobytes() == values.tobytes()


@pytest.mark.parametrize("m", [128, 129])
def test_small_and_large_batches_agree_where_the_method_changes(m):
    values = np.random.default_rng(0).normal(size=(m, 30)).astype(np.float32)
    for k in (5, (m - 1) // 2):
        ranked = np.sort(values, 0)
        expected = np.clip(values.astype(np.float64), ranked[k], ranked[m - 1 - k]).mean(0)
        got = jax.jit(lambda v, k=k: clipped_mean(Formed(v), k))(values)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_more_coordinates_than_a_tile():
    values = np.random.default_rng(0).normal(size=(131, 10_001)).astype(np.float32)
    got = jax.jit(lambda v: clipped_mean(Formed(v), 65))(values)
    np.testing.assert_array_equal(got, np.median(values, 0))
