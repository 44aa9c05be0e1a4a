"""No length exceeds its bound, one example changes the sum by no more, and a loop agrees."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coherence import per_example_value_and_grad
from coherence.checks import check_aggregator
from coherence.gradients import Stacked
from coherence.optim import average, clipped_mean, clipped_value_and_grad
from coherence.trees import layer, leaf


def random(*shape, seed=0):
    return jax.device_put(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def clip(g, *args, **kwargs):
    tx = clipped_mean(*args, **kwargs)
    return tx.update(g, tx.init(None))[0]


def loss(params, example):
    """Two layers, one of them scanned over, at three positions; `sorted` has no rule."""
    x, y = example
    step = lambda h, w: (jnp.tanh(h @ w), None)
    hidden, _ = jax.lax.scan(step, x, params["deep"]["w"])
    ranked = jnp.sort(params["rank"]["sorted"])
    return (
        jnp.sum((hidden @ params["out"]["w"] + params["out"]["b"] - y) ** 2) + x[0, 0] * ranked[0]
    )


def network(m=7):
    shapes = {
        "deep": {"w": (2, 4, 4)},
        "out": {"w": (4, 3), "b": (3,)},
        "rank": {"sorted": (5,)},
    }
    is_shape = lambda x: isinstance(x, tuple)
    params = jax.tree.map(lambda shape: random(*shape, seed=len(shape)), shapes, is_leaf=is_shape)
    return params, (random(m, 3, 4, seed=1), random(m, 3, 3, seed=2))


GROUPS = {
    "all": (None, lambda path: "all"),
    "layer": ("layer", layer),
    "leaf": ("leaf", leaf),
    "mine": (lambda path: "first" if path[0].key == "deep" else "rest",) * 2,
}
RULES = {
    "clip": lambda length, bound: min(1, bound / length),
    "automatic": lambda length, bound: bound / (length + 0.01),
    "normalize": lambda length, bound: bound / length,
}


def looped(params, batch, bounds, names, rule):
    """Example by example with `jax.grad`, in float64: the sum."""
    total = jax.tree.map(lambda p: np.zeros(p.shape), params)
    gradient = jax.jit(jax.grad(loss))
    for example in zip(*batch):
        rows = {}
        for path, g in jax.tree.leaves_with_path(gradient(params, example)):
            g = np.asarray(g, np.float64)
            # A scanned leaf holds a layer a slice.
            split = names in (layer, leaf) and path[0].key == "deep"
            parts = list(g) if split else [g]
            for i, part in enumerate(parts):
                name = names(path) + (f"/{i}" if split else "")
                rows.setdefault(name, []).append((path, i if split else ..., part))
        for name, parts in rows.items():
            length = math.sqrt(sum((part**2).sum() for *_, part in parts))
            bound = bounds[name] if isinstance(bounds, dict) else bounds
            for path, place, part in parts:
                total[path[0].key][path[1].key][place] += rule(length, bound) * part
    return total


CASES = [("all", "clip"), ("layer", "normalize"), ("leaf", "automatic"), ("mine", "clip")]


@pytest.mark.filterwarnings("ignore::coherence.gradients.RecomputedWarning")
def test_a_loop_over_the_examples_agrees_whole_and_in_microbatches(monkeypatch):
    monkeypatch.setattr("coherence.gradients.tracked.ROWS", 0)  # recomputed, however small
    params, batch = network()
    bounds = {"all": 0.7, "layer": 0.7, "leaf": 0.7, "mine": {"first": 0.7, "rest": 1.5}}
    few = clipped_value_and_grad(loss, 0.7, microbatch_size=3)

    @jax.jit  # one program: what takes time is to make programs
    def clipped(params, batch):
        losses, g = per_example_value_and_grad(loss)(params, batch)
        whole = [
            clip(g, bounds[groups], GROUPS[groups][0], scaling=scaling) for groups, scaling in CASES
        ]
        return losses, whole, few(params, batch)

    losses, whole, (losses_of_few, of_few) = clipped(params, batch)
    np.testing.assert_allclose(losses_of_few, losses, rtol=1e-6)
    for (groups, scaling), got in zip([*CASES, CASES[0]], [*whole, of_few]):
        expected = looped(params, batch, bounds[groups], GROUPS[groups][1], RULES[scaling])
        for x, total in zip(jax.tree.leaves(got), jax.tree.leaves(expected)):
            np.testing.assert_allclose(x, total / 7, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("longest", [0.1, 2.0])
def test_optax_sums_what_is_averaged_here(longest):
    g = {"w": random(9, 3, 4), "b": random(9, seed=1)}
    sums, _ = optax.per_example_global_norm_clip(jax.tree.leaves(g), longest)
    for ours, theirs in zip(jax.tree.leaves(clip(g, longest)), sums):
        np.testing.assert_allclose(ours, theirs / 9, rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("microbatch_size", [None, 3])
def test_jax_privacy_agrees_its_padding_included(microbatch_size):
    jax_privacy = pytest.importorskip("jax_privacy")
    params, batch = network(6)
    padding = np.array([False, True, False, False, True, False])
    theirs = jax_privacy.clipped_grad(
        loss, l2_clip_norm=0.7, keep_batch_dim=False, microbatch_size=microbatch_size
    )(params, batch, is_padding_example=jnp.asarray(padding))
    ours = clipped_value_and_grad(loss, 0.7, batch_size=6, microbatch_size=microbatch_size)
    _, mean = ours(params, batch, jnp.asarray(~padding))
    for x, total in zip(jax.tree.leaves(mean), jax.tree.leaves(theirs)):
        np.testing.assert_allclose(6 * x, total, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("groups", "scaling"), [("all", "clip"), ("leaf", "automatic"), ("leaf", "normalize")]
)
def test_one_example_more_changes_the_sum_by_no_more_than_the_sensitivity(scaling, groups):
    """Neighbouring batches: each without one of its examples, which may be huge, or nothing."""
    g = {"a": random(9, 3), "b": random(9, 2, 2, seed=1)}
    g = jax.tree.map(lambda x: x.at[0].multiply(1e4).at[1].set(0), g)

    def without(keep):
        rows = lambda x: Stacked(jnp.where(keep.reshape(9, *[1] * (x.ndim - 1)), x, 0), keep)
        total = clip(jax.tree.map(rows, g), 0.5, GROUPS[groups][0], scaling=scaling, batch_size=1)
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(total)])

    sums = jax.jit(jax.vmap(without))(
        jnp.concatenate([jnp.ones((1, 9), bool), ~jnp.eye(9, dtype=bool)])
    )
    changes = np.linalg.norm(sums[1:] - sums[0], axis=1)
    sensitivity = 0.5 * math.sqrt(1 if groups == "all" else 2)
    assert max(changes) <= sensitivity * (1 + 1e-5)
    assert changes[0] >= 0.99 * sensitivity  # the bound is met
    assert changes[1] == 0


def test_noise_has_the_stated_size_and_never_repeats():
    g = {"a": random(4, 3000), "b": random(4, 3000, seed=1)}
    tx, quiet = (
        clipped_mean(2.0, "leaf", 1.5, batch_size=8),
        clipped_mean(2.0, "leaf", batch_size=8),
    )
    state, drawn = tx.init(None), []
    for _ in range(2):
        noisy, state = tx.update(g, state)
        drawn += jax.tree.leaves(optax.tree.sub(noisy, quiet.update(g, None)[0]))
    deviation = 1.5 * 2.0 * math.sqrt(2) / 8
    np.testing.assert_allclose([x.std() for x in drawn], deviation, rtol=0.06)
    products = np.corrcoef(np.stack(drawn)) - np.eye(4)
    assert abs(products).max() < 0.08  # 4 standard deviations of an estimate from 3000
    again = tx.update(g, tx.init(None))[0]
    other = clipped_mean(2.0, "leaf", 1.5, batch_size=8, seed=1)
    np.testing.assert_array_equal(again["a"], tx.update(g, tx.init(None))[0]["a"])
    assert (again["a"] != other.update(g, other.init(None))[0]["a"]).all()


def test_noise_of_microbatches_is_that_of_the_whole():
    params, batch = network(4)
    key = jax.random.key(3)
    function = lambda size: clipped_value_and_grad(
        loss, 0.5, noise=1.0, batch_size=4, microbatch_size=size
    )
    both = jax.jit(lambda *args: [function(size)(*args)[1] for size in (2, None)])
    few, whole = both(params, batch, None, key)
    for x, y in zip(jax.tree.leaves(few), jax.tree.leaves(whole)):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.slow  # a row of the catalogue with noise in it, whose size and key are tested above
def test_a_noisy_mean_is_an_aggregator_like_others():
    # Its steps differ by the noise alone, which is next to nothing here.
    check = check_aggregator(clipped_mean(1.0, noise=1e-9, batch_size=20))
    assert check.ok, check


def test_without_a_limit_it_is_the_mean():
    g = random(9, 5)
    np.testing.assert_allclose(clip(g, np.inf), average().update(g, None)[0], rtol=1e-6)


@pytest.mark.parametrize("scaling", RULES)
def test_zero_gradients_stay_zero_and_count(scaling):
    g = jnp.array([[0.0, 0.0], [6.0, 8.0]])
    np.testing.assert_allclose(clip(g, 5.0, scaling=scaling), [1.5, 2.0], rtol=2e-3)
    np.testing.assert_array_equal(clip(jnp.zeros((3, 2)), 5.0, scaling=scaling), 0)


@pytest.mark.parametrize("microbatch_size", [None, 4])
def test_masked_examples_neither_move_the_mean_nor_count(microbatch_size):
    x, keep = random(9, 5), np.arange(9) % 3 != 1
    step = clipped_value_and_grad(lambda w, e: w @ e, 2.0, microbatch_size=microbatch_size)
    losses, got = step(jnp.ones(5), x.at[1].set(jnp.nan), jnp.asarray(keep))
    np.testing.assert_allclose(got, clip(x[keep], 2.0), rtol=1e-6)
    np.testing.assert_allclose(losses, np.where(keep, x.sum(1), 0), rtol=1e-5)


def test_a_length_that_overflows_is_scaled_to_nothing():
    np.testing.assert_array_equal(clip(jnp.array([[3.0, 4.0], [1e30, 0.0]]), 5.0), [1.5, 2.0])


def test_a_nan_is_not_hidden():
    assert np.isnan(clip(jnp.array([[1.0, jnp.nan], [1.0, 1.0]]), 1.0)).all()


def test_in_float64_a_loop_agrees_to_the_tenth_digit():
    with jax.enable_x64(True):
        x, w = (np.random.default_rng(i).normal(size=s) for i, s in enumerate([(5, 4, 3), (3, 2)]))
        of = lambda w, e: jnp.sum(jnp.tanh(e @ w))
        clipped = jax.jit(lambda w, x: clip(per_example_value_and_grad(of)(w, x)[1], 1.3))(w, x)
        rows = np.asarray(
            jax.vmap(jax.grad(lambda w, e: jnp.sum(jnp.tanh(e @ w))), (None, 0))(w, x)
        )
        lengths = np.linalg.norm(rows.reshape(5, -1), axis=1)
        expected = (np.minimum(1, 1.3 / lengths)[:, None, None] * rows).mean(0)
        np.testing.assert_allclose(clipped, expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (dict(max_norm=0), r"clipped_mean\(max_norm\): a length, above 0, got 0\."),
        (dict(max_norm=-1.0), r"clipped_mean\(max_norm\): a length, above 0, got -1\.0\."),
        (dict(max_norm=math.nan), r"clipped_mean\(max_norm\): a length, above 0, got nan\."),
        (dict(max_norm={"a": 1.0}), r"bounds by name, \['a'\], need groups of leaves to belong to"),
        (dict(per="layers"), r'\(per\): None, "layer", "leaf" or a function .* got \'layers\'\.'),
        (
            dict(noise=0),
            r"\(noise\): a number above 0, in units of the sensitivity, or None, got 0",
        ),
        (dict(max_norm=math.inf, noise=1.0), r"of unbounded gradients no noise hides one\."),
        (dict(scaling="cut"), r'\(scaling\): "clip", "automatic" or "normalize", got \'cut\'\.'),
        (dict(batch_size=0), r"\(batch_size\): a whole number, at least 1, or None, got 0\."),
    ],
)
def test_arguments_are_checked(arguments, said):
    with pytest.raises(ValueError, match=said):
        clipped_mean(**arguments)


def test_what_cannot_be_private_is_refused():
    x, keep = random(4, 3), jnp.arange(4) < 3
    noisy = clipped_value_and_grad(lambda w, e: w @ e, noise=1.0, microbatch_size=2)
    with pytest.raises(ValueError, match=r"draws its noise from a key: call the function as"):
        noisy(jnp.ones(3), x)
    with pytest.raises(ValueError, match=r"have a mask, .* Give batch_size, the expected number\."):
        noisy(jnp.ones(3), x, keep, jax.random.key(0))
    with pytest.raises(ValueError, match=r"bounds of \['c'\], but the groups are \['a', 'b'\]\."):
        clip({"a": x, "b": x}, {"c": 1.0}, "leaf")
    with pytest.raises(ValueError, match=r"\(microbatch_size\): at least 1 example, .* got 0\."):
        clipped_value_and_grad(lambda w, e: w @ e, microbatch_size=0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_sum_is_rounded_once_after_it_was_divided(dtype):
    """Rounded before, it overflows, or one example more moves it by more than the sensitivity."""
    tx = clipped_mean(100.0)
    assert tx.update(jnp.full((1000, 1), 100, dtype), tx.init(None))[0] == 100
    exact = jnp.asarray(1003 / 1024, dtype)
    by_microbatches = clipped_value_and_grad(jnp.dot, 1.0, batch_size=1024, microbatch_size=7)
    assert by_microbatches(jnp.zeros(1, dtype), jnp.ones((1003, 1), dtype))[1] == exact
    tx = clipped_mean(1.0, batch_size=1024)
    assert tx.update(jnp.ones((1003, 1), dtype), tx.init(None))[0] == exact


@pytest.mark.parametrize("size", [None, 2, 1])
def test_a_microbatch_that_is_masked_whole_may_hold_anything(size):
    x = jnp.array([[1.0, 1], [1, 1], [np.nan, 1], [np.inf, np.nan]])
    mean = clipped_value_and_grad(jnp.dot, 10.0, microbatch_size=size)
    _, gradient = mean(jnp.zeros(2), x, jnp.array([True, True, False, False]))
    np.testing.assert_array_equal(gradient, [1, 1])


def test_a_batch_of_numpys_arrays_is_cut_inside_jit():
    x, keep = np.array([[3.0], [4.0], [5.0]], np.float32), np.array([True, True, False])
    clipped = clipped_value_and_grad(lambda w, x: jnp.sum(w * x), 1.0, microbatch_size=2)
    read = lambda w: [clipped(w, x, mask)[1] for mask in (None, keep)]
    assert jax.jit(read)(jnp.ones(1)) == [1, 1]


def test_a_parameter_may_be_a_plain_number():
    loss = lambda p, x: p["w"] * x
    _, gradient = clipped_value_and_grad(loss, 1.0, microbatch_size=2)({"w": 1.0}, jnp.ones(3))
    assert gradient == {"w": 1.0}
