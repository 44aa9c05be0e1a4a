"""The kernels select exactly what sorting would."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.gradients import Stacked, per_example_value_and_grad
from coherence.optim import average, median, order_statistics, winsorize
from coherence.optim.order_statistics import (
    Formed,
    Products,
    coordinatewise,
    leaves,
    means,
    rank,
    selection,
    trimmed_mean,
    triton,
    winsorized_mean,
)
from coherence.optim.order_statistics.selection import from_keys, to_keys


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
    inputs = jax.device_put(np.array(list(itertools.product([0, 1], repeat=m)), np.float32).T)
    ranked = np.sort(np.asarray(inputs), 0)
    with jax.disable_jit():
        for wire in range(m):
            np.testing.assert_array_equal(selection.select(inputs, (wire,))[0], ranked[wire])
        np.testing.assert_array_equal(np.stack(selection.select(inputs, range(m))), ranked)


@pytest.mark.parametrize("m", range(3, 14))
def test_zeros_and_ones_are_split_at_both_ranks(m):
    """All 2^m inputs at once: the two bounds, and what lies between them."""
    inputs = jax.device_put(np.array(list(itertools.product([0, 1], repeat=m)), np.float32).T)
    ranked = np.sort(np.asarray(inputs), 0)
    for k in range((m - 1) // 2):
        with jax.disable_jit():
            low, high, between = selection.split(inputs, k)
        np.testing.assert_array_equal(low, ranked[k])
        np.testing.assert_array_equal(high, ranked[m - 1 - k])
        assert len(between) == m - 2 * k - 2
        if between:
            np.testing.assert_array_equal(np.sort(between, 0), ranked[k + 1 : m - 1 - k])


@pytest.mark.parametrize(
    ("m", "k"), [(20, 1), (31, 2), (61, 3), (64, 0), (97, 6), (100, 4), (100, 8), (128, 20)]
)
def test_values_are_split_as_sorting_would(m, k):
    values = np.random.default_rng(m).integers(-99, 99, size=(m, 200)).astype(np.float32)
    values[:3, ::5] = np.inf
    ranked = np.sort(values, 0)
    with jax.disable_jit():
        low, high, between = selection.split(list(jnp.asarray(values)), k)
    np.testing.assert_array_equal(low, ranked[k])
    np.testing.assert_array_equal(high, ranked[m - 1 - k])
    np.testing.assert_array_equal(np.sort(between, 0), ranked[k + 1 : m - 1 - k])


@pytest.mark.parametrize("n", range(1, 18))
def test_every_bitonic_sequence_of_zeros_and_ones_is_sorted(n):
    """Ones, then zeros, then ones: what first falls and then rises."""
    for start, stop in itertools.combinations_with_replacement(range(n + 1), 2):
        values = np.ones(n)
        values[start:stop] = 0
        for i, j in selection.bitonic_network(n):
            values[i], values[j] = min(values[i], values[j]), max(values[i], values[j])
        assert (np.diff(values) >= 0).all()


@pytest.mark.parametrize("k", range(9))
def test_blocks_take_fewer_comparators_than_keeping_the_ends_of_a_stream(k):
    sizes = selection.block_sizes(100, k)
    assert sum(sizes) == 100
    assert min(sizes) >= 2 * (k + 1)
    taken = selection.comparator_count(k, sizes)
    assert taken < 100 * 2 * (k + 1)
    assert taken < selection.comparator_count(k, (100,))


def test_no_more_comparators_are_traced_than_were_counted(monkeypatch):
    pairs, compare = [], selection.in_order
    monkeypatch.setattr(selection, "in_order", lambda x, y: pairs.append(1) or compare(x, y))
    for m, k in [(100, 2), (61, 3), (30, 8)]:
        pairs.clear()
        jax.eval_shape(lambda rows, k=k: selection.split(rows, k)[:2], [jnp.zeros(1)] * m)
        assert len(pairs) == selection.comparator_count(k, selection.block_sizes(m, k))


def test_only_comparators_that_matter_are_kept():
    whole = len(selection.pairwise_network(100))
    assert len(selection.pruned(100, (49, 50))) < 0.73 * whole
    assert (
        len(selection.partition(100, 8, 91)) == len(selection.pruned(100, (8, 91))) < 0.78 * whole
    )


@pytest.mark.parametrize(("m", "k"), [(30, 1), (30, 4)])
def test_what_is_trimmed_leaves_no_rounding_behind(m, k):
    values = np.random.default_rng(0).normal(size=(m, 50)).astype(np.float32)
    values[:k], values[k : 2 * k] = 1e30, -1e30
    expected = np.sort(values.astype(np.float64), 0)[k : m - k].mean(0)
    got = jax.jit(lambda v: trimmed_mean(Formed(v), k))(values)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


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
    find = jax.jit(lambda keys, k: selection.bisect(keys, k))
    for k in range(17):
        found = from_keys(find(to_keys(values), k), dtype)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found.astype(jnp.float32), ranked[k])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_brackets_close_around_every_rank(dtype):
    """Ties, zeros of both signs, infinities, heavy tails, numbers too small to be normal ones."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(140, 60)).astype(np.float32)
    values[:, ::3] *= rng.random((140, 20)) > 0.5
    values[:, 1::7] = np.round(values[:, 1::7])
    values[:2, 5], values[:72, 6], values[:, 10:12] = np.inf, -np.inf, [0.0, -0.0]
    values[:90, 4] = -np.abs(values[:90, 4])
    values[90:, 4] = 0  # as many that are not below zero as make it the end of a bracket
    values[:, 7], values[:, 8] = 1e-30 * values[:, 8] ** 9, np.exp(20 * values[:, 8])
    values[:, 9] = np.float32(3e38) * np.sign(values[:, 9])
    values = jnp.asarray(values, dtype)
    ranked = np.sort(np.asarray(values.astype(jnp.float32)), 0)
    find = jax.jit(lambda values, k: means._bracketed(Formed(values))(k))
    for k in (0, 1, 2, 69, 70, 89, 138, 139):
        found = find(values, k)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found.astype(jnp.float32), ranked[k])


def test_few_passes_close_brackets_whatever_the_values(monkeypatch):
    passes = []
    count = means._counted

    def counted(*args):
        jax.debug.callback(lambda: passes.append(1))
        return count(*args)

    monkeypatch.setattr(means, "_counted", counted)
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(140, 128)).astype(np.float32)
    for values, most in [(normal, 14), (normal * (rng.random(normal.shape) > 0.7), 14)]:
        passes.clear()
        means._bracketed(Formed(jnp.asarray(values)))(70).block_until_ready()
        jax.effects_barrier()
        assert 0 < len(passes) <= most


def test_keys_keep_the_order_and_come_back():
    values = np.array(
        [-np.inf, -3e38, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, 3e38, np.inf], np.float32
    )
    keys = to_keys(jnp.asarray(values))
    assert np.all(np.diff(np.asarray(keys, np.int64)) > 0)
    assert np.asarray(from_keys(keys, jnp.float32)).tobytes() == values.tobytes()


@pytest.mark.parametrize("m", [24, 25])
def test_small_and_large_batches_agree_where_the_method_changes(m, monkeypatch):
    monkeypatch.setattr(means, "_NETWORK_ROWS", 24)  # a network of 128 takes seconds to compile
    values = np.random.default_rng(0).normal(size=(m, 30)).astype(np.float32)
    for k in (5, (m - 1) // 2):
        ranked = np.sort(values, 0)
        expected = np.clip(values.astype(np.float64), ranked[k], ranked[m - 1 - k]).mean(0)
        got = jax.jit(lambda v, k=k: winsorized_mean(Formed(v), k))(values)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("m", [21, 24, 131])  # running extremes, a network, counting passes
@pytest.mark.parametrize("kernel", [winsorized_mean, trimmed_mean])
def test_sums_beyond_the_largest_float_have_means(kernel, m):
    k = 1 if m == 21 else 3
    values = np.full((m, 6), 3e38, np.float32)
    values[:, 1] *= -1
    values[:, 2:] = np.random.default_rng(0).normal(size=(m, 4)) * [1e37, 1e-30, 1, 5e37]
    values[0, 4] = np.inf
    got = jax.jit(lambda v: kernel(Formed(v), k))(values)
    ranked = np.sort(values.astype(np.float64), 0)
    if kernel is winsorized_mean:
        expected = np.clip(ranked, ranked[k], ranked[m - 1 - k]).mean(0)
    else:
        expected = ranked[k : m - k].mean(0)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_sums_of_huge_products_have_means():
    inputs, cotangents = np.full((1, 30, 2), 1e20, np.float32), np.full((1, 30, 3), 1e18, "f")
    for k in (0, 1, 5):
        result = jax.jit(lambda a, d, k=k: winsorized_mean(Products(a, d), k))(inputs, cotangents)
        np.testing.assert_allclose(result, 1e38, rtol=1e-5)


def test_a_mean_of_products_in_half_precision_is_not_weighted_in_it():
    inputs, cotangents = jnp.ones((1, 49, 2), jnp.bfloat16), jnp.ones((1, 49, 3), jnp.bfloat16)
    np.testing.assert_array_equal(winsorized_mean(Products(inputs, cotangents), 0), 1)


def test_a_rule_of_ones_own_gets_plain_arrays():
    """For rows, products of one vector, and sequences; with a mask the function is told."""
    params, batch = deep_network(12)
    seen = []

    def second_largest(values, mask=None):
        seen.append(values.shape)
        counted = values if mask is None else jnp.where(mask[:, None], values, -jnp.inf)
        return jnp.sort(counted, 0)[-2]

    mask = np.arange(12) % 3 != 0
    rows = jax.jit(jax.vmap(jax.grad(deep_loss), (None, 0)))(params, batch)
    for keep in (None, mask):
        engine = jax.jit(lambda p, b, keep=keep: per_example_value_and_grad(deep_loss)(p, b, keep))
        _, gradients = engine(params, batch)
        for joined in (0, leaves._JOINED):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(leaves, "_JOINED", joined)
                ours = jax.jit(coordinatewise(second_largest))(gradients)
            for name, values in rows.items():
                kept = np.asarray(values)[slice(None) if keep is None else keep]
                expected = np.sort(kept, 0)[-2]
                np.testing.assert_allclose(ours[name], expected, rtol=1e-5, atol=1e-6)
    assert {(len(shape), shape[0]) for shape in seen} == {(2, 12)}


@pytest.mark.parametrize(
    ("is_formed", "place", "m", "masked"),
    [
        (False, "inputs", 24, False),
        (False, "cotangents", 140, False),
        (False, "inputs", 30, True),
        (True, "inputs", 140, True),
        (True, "cotangents", 24, False),
    ],
)
def test_a_nan_among_thousands_of_numbers_is_found(is_formed, place, m, masked):
    """XLA's own maximum of more than a thousand numbers passes over nan on CPU."""
    rng = np.random.default_rng(0)
    factors = {"inputs": rng.normal(size=(1, m, 60)), "cotangents": rng.normal(size=(1, m, 50))}
    factors[place][0, 3, 7] = np.nan
    mask = jnp.arange(m) > 0 if masked else None
    factors["inputs"][:, 0] = factors["cotangents"][:, 0] = 0
    a, d = (jnp.asarray(factors[name], jnp.float32) for name in ("inputs", "cotangents"))
    formed = lambda a, d: (a[0, :, :, None] * d[0, :, None]).reshape(m, -1)
    leaf = lambda a, d: Formed(formed(a, d), mask) if is_formed else Products(a, d, mask)
    expected = np.isnan(np.asarray(formed(a, d))).any(0)
    for k in (2, (m - 2) // 2):
        result = jax.jit(lambda a, d, k=k: winsorized_mean(leaf(a, d), k))(a, d)
        np.testing.assert_array_equal(np.isnan(np.asarray(result)).ravel(), expected)


def test_a_rule_that_takes_no_mask_says_so():
    masked = Stacked(jnp.ones((3, 2)), jnp.array([True, True, False]))
    with pytest.raises(TypeError, match=r"have a mask, but the function takes one argument\. Let"):
        coordinatewise(lambda values: values.max(0))(masked)


def test_more_coordinates_than_a_tile():
    values = np.random.default_rng(0).normal(size=(131, 10_001)).astype(np.float32)
    got = jax.jit(lambda v: winsorized_mean(Formed(v), 65))(values)
    np.testing.assert_array_equal(got, np.median(values, 0))


def looking_loss(params, example):
    """A convolution over an image, and a dense layer over a sequence."""
    image, sequence = example
    numbers = ("NHWC", "HWIO", "NHWC")
    seen = jax.lax.conv_general_dilated(
        image[None], params["window"], (1, 1), "SAME", dimension_numbers=numbers
    )
    return jnp.sum(jnp.tanh(seen) ** 2) + jnp.sum(jnp.tanh(sequence @ params["layer"]) ** 2)


def looking_network(m, channels, side=6):
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    params = {"window": draw(3, 3, 4, channels), "layer": draw(11, 2 * channels)}
    return params, (draw(m, side, side, 4), draw(m, 5, 11))


SLOW = pytest.mark.slow  # seven seconds to compile; what the masked case tests, but for the mask


@pytest.mark.parametrize(
    ("m", "masked", "c"),
    [(24, False, 10), pytest.param(140, False, 50, marks=SLOW), (140, True, 10)],
)
def test_convolutions_and_sequences_are_selected_in_tiles(m, masked, c, monkeypatch):
    """Against sorting looped gradients; then one example's are nan, and some infinite."""
    monkeypatch.setattr(leaves, "_JOINED", 0)
    monkeypatch.setattr(leaves, "_FORMED", m * 300)
    monkeypatch.setattr(means, "_IN_CACHE", m * 130)
    params, (images, sequences) = looking_network(m, 8)
    mask = np.arange(m) % 3 != 1 if masked else np.full(m, True)
    one = jax.jit(jax.grad(looking_loss))
    tx = winsorize(c)

    @jax.jit
    def update(batch):
        keep = mask if masked else None
        _, g = per_example_value_and_grad(looking_loss)(params, batch, keep)
        return tx.update(g, tx.init(params))[0]

    for spoiled in (False, True):
        if spoiled:
            images[3, :, :, 1], sequences[5, :, 2] = np.nan, np.inf
        rows = [one(params, (images[i], sequences[i])) for i in np.flatnonzero(mask)]
        for name, found in update((images, sequences)).items():
            values = np.stack([row[name] for row in rows]).astype(np.float64)
            ranked = np.sort(values, 0)
            k = rank(c, len(values))
            expected = np.clip(values, ranked[k], ranked[len(values) - 1 - k]).mean(0)
            expected[np.isnan(values).any(0)] = np.nan
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_convolutions_and_sequences_are_never_formed_whole(monkeypatch):
    monkeypatch.setattr(leaves, "_FORMED", 2**18)
    params, batch = looking_network(256, 256, side=2)
    step = lambda tx: jax.jit(
        lambda p, b: tx.update(per_example_value_and_grad(looking_loss)(p, b)[1], None)[0]
    )
    needed = lambda tx: step(tx).lower(params, batch).compile().memory_analysis().temp_size_in_bytes
    formed = 4 * 256 * sum(x.size for x in params.values())
    assert needed(winsorize(2)) - needed(average()) < formed / 4


def deep_loss(params, x):
    for name in ("first", "second", "third"):
        x = jnp.tanh(x @ params[name] + params[f"{name} bias"])
    return jnp.sum(x**2)


def deep_network(m):
    """Weights of 21 x 12 and twice 6 x 12 or so: blocks of 7 x 12 cover the first two."""
    shapes = {"first": (21, 12), "second": (12, 14), "third": (14, 12)}
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    params = {name: draw(*shape) for name, shape in shapes.items()}
    params |= {f"{name} bias": draw(shape[1]) for name, shape in shapes.items()}
    return params, draw(m, 21)


@pytest.mark.parametrize("m", [12, 140])
def test_leaves_of_unlike_shapes_share_blocks(m, monkeypatch):
    monkeypatch.setattr(leaves, "_JOINED", 0)
    params, batch = deep_network(m)
    _, gradients = jax.jit(per_example_value_and_grad(deep_loss))(params, batch)
    rows = jax.jit(jax.vmap(jax.grad(deep_loss), (None, 0)))(params, batch)
    ours = jax.jit(lambda g: winsorize(10).update(g, None)[0])(gradients)
    for name, values in rows.items():
        ranked = np.sort(values, 0)
        k = rank(10, m)
        expected = np.clip(values, ranked[k], ranked[m - 1 - k]).mean(0)
        np.testing.assert_allclose(ours[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shapes", "groups"),
    [
        ([(784, 256), (256, 256), (256, 256)], [((262, 256), [0, 1, 2])]),
        ([(784, 2048), (2048, 10)], [((784, 2048), [0]), ((2048, 10), [1])]),
        ([(64, 64), (64, 10), (64, 64)], [((64, 64), [0, 2]), ((64, 10), [1])]),
    ],
)
def test_blocks_waste_little(shapes, groups):
    assert leaves._in_groups(dict(enumerate(shapes))) == groups


def test_a_network_is_compiled_once_for_all_leaves_of_a_kind():
    """Not once for each leaf: what is compiled is counted by its comparisons."""
    params, batch = deep_network(30)

    def update(params, batch):
        _, gradients = per_example_value_and_grad(deep_loss)(params, batch)
        return jax.tree.map(jnp.add, params, median().update(gradients, None)[0])

    text = jax.jit(update).lower(params, batch).compile().as_text()
    comparators = len(selection.pruned(30, (14, 15)))
    assert comparators < text.count(" compare(") < 1.5 * comparators


@pytest.mark.parametrize("k", [1, 3])
def test_the_kernel_for_cuda_clips_as_sorting_would(k):
    """Interpreted; shapes that fill no block, and an infinite value among those pulled in."""
    rng = np.random.default_rng(k)
    a, d = (rng.normal(size=(2, 20, n)).astype(np.float32) for n in (11, 70))
    a[0, 3] = np.inf
    values = a[..., None] * d[:, :, None]
    ranked = np.sort(values, 1)
    expected = np.clip(values, ranked[:, [k]], ranked[:, [-1 - k]]).mean(1)
    found = triton.winsorized_mean(jnp.asarray(a), jnp.asarray(d), k=k, interpret=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_on_cuda_small_ranks_take_the_kernel_made_for_it(monkeypatch):
    """Formed values too, as outer products with ones: both kinds are what they are on CPU."""
    rng = np.random.default_rng(0)
    products = Products(*(jnp.asarray(rng.normal(size=(1, 20, n))) for n in (3, 4)))
    formed = Formed(jnp.asarray(rng.normal(size=(20, 9))))
    expected = [winsorized_mean(leaf, 2) for leaf in (products, formed)]
    called = []

    def kernel(a, d, k):
        called.append(k)
        return triton.winsorized_mean(a, d, k=k, interpret=True)

    interpreted = types.SimpleNamespace(winsorized_mean=kernel)
    monkeypatch.setattr(order_statistics, "triton", interpreted)
    monkeypatch.setattr(means, "use_triton", True)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for leaf, value in zip((products, formed), expected):
        np.testing.assert_allclose(winsorized_mean(leaf, 2), value, rtol=1e-5, atol=1e-6)
    assert called == [2, 2]
    trimmed_mean(formed, 2)
    winsorized_mean(formed, 9)
    assert called == [2, 2]


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(6, 5), (300, 150)], ids=["joined", "never formed"])
def test_products_of_half_precision_factors_are_made_in_the_leaf_s(dtype, shape):
    rng = np.random.default_rng(0)
    x, y = ((1e-3 * rng.normal(size=(9, n))).astype(np.float32) for n in shape)
    low = lambda values: values.astype(dtype)
    loss = lambda w, e: jnp.sum((low(e[0]) @ low(w)).astype(jnp.float32) * e[1])
    gradients = jax.jit(per_example_value_and_grad(loss))(jnp.ones(shape), (x, y))[1]
    inputs, cotangents = (np.asarray(low(values), np.float64) for values in (x, y))
    rows = inputs[:, :, None] * cotangents[:, None, :]  # of 1e-6, which float16 hardly has
    result = jax.jit(lambda g: median().update(g, None)[0])(gradients)
    np.testing.assert_allclose(result, np.median(rows, 0), rtol=1e-6)
