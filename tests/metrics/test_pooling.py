"""Metrics of a sample do not depend on how it was cut: batches, groups, devices, empty ones."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence import metrics
from coherence.metrics import pool
from coherence.metrics.batching import group_array
from coherence.trees import layer, leaf
from tests import eight_devices, reference, zoo

POOLED = [
    co.alpha,
    co.m_coherence,
    co.metrics.alpha_unbiased,
    metrics.gradient_norm,
    metrics.gradient_diversity,
    metrics.batch_size_bound,
    metrics.noise_scale,
    metrics.norm_test,
    metrics.one_step_generalization_ratio,
    metrics.mean_gsnr,
    metrics.evidence,
]


def draw(m=24, p=7, seed=0):
    return np.random.default_rng(seed).normal(size=(m, p)) + 0.4


@pytest.fixture(scope="module")
def put_together():
    """What is pooled of a sample in three parts."""
    loss, params, batch = zoo.dense()
    pooled = jax.jit(
        lambda *args: pool(co.per_example_value_and_grad(loss)(*args)[1], variances=True)
    )
    cuts = [[np.asarray(x)[a:b] for x in batch] for a, b in ((0, 1), (1, 4), (4, None))]
    parts = [pooled(params, tuple(part)) for part in cuts]
    return parts[0] + (parts[1] + parts[2])


@pytest.mark.parametrize("metric", POOLED, ids=lambda metric: metric.__name__)
def test_a_sample_measures_the_same_however_it_is_cut(metric, put_together):
    # with variances the order of sums differs, so up to rounding
    np.testing.assert_allclose(metric(put_together), metric(zoo.gradients(zoo.dense)), rtol=2e-4)


def test_pooling_is_by_count_and_groups_are_pooled_one_by_one():
    g, groups = jnp.asarray(draw()), np.arange(24) % 3
    parts = pool({"w": g}, groups=groups, num_groups=4)
    assert [int(part.m) for part in parts] == [8, 8, 8, 0]
    for k in range(3):
        np.testing.assert_allclose(parts[k].mean["w"], draw()[groups == k].mean(0), rtol=1e-5)
    np.testing.assert_allclose(
        co.alpha(parts), co.alpha({"w": g}, groups=groups, num_groups=4), rtol=1e-6
    )
    np.testing.assert_allclose(
        co.alpha(sum(parts[1:], parts[0])), reference.alpha(draw()), rtol=1e-5
    )


def test_masked_examples_are_not_pooled():
    loss, params, (x, y) = zoo.dense()
    value_and_grad = jax.jit(co.per_example_value_and_grad(loss))
    x, y = np.asarray(x), np.asarray(y)
    _, masked = value_and_grad(params, (x, y), np.arange(len(x)) < len(x) - 2)
    _, fewer = value_and_grad(params, (x[:-2], y[:-2]))
    for a, b in zip(
        jax.tree.leaves(pool(masked, variances=True)),
        jax.tree.leaves(pool(fewer, variances=True)),
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    grouped = pool(masked, groups=np.arange(len(x)) % 2 == 0)
    assert sum(int(part.m) for part in grouped) == len(x) - 2


def scaled(make):
    """Gradients of a loss of the zoo as a function of factors by which examples' losses count."""
    loss, params, batch = make()
    m = len(jax.tree.leaves(batch)[0])
    value_and_grad = co.per_example_value_and_grad(lambda p, e: e[1] * loss(p, e[0]))
    return jax.jit(lambda factors: value_and_grad(params, (batch, factors))[1]), np.ones(m)


GROUPED = {
    "alpha": lambda g, groups: co.alpha(g, groups=groups, num_groups=2),
    "by layer": lambda g, groups: jnp.stack(
        list(co.m_coherence(g, groups=groups, num_groups=2, by="layer").values()), 1
    ),
    "variances": lambda g, groups: jnp.stack(
        [metrics.evidence(x) for x in pool(g, groups=groups, num_groups=2, variances=True)]
    ),
    "stiffness": lambda g, groups: jnp.diagonal(
        metrics.stiffness_by_group(g, groups, num_groups=2).matrix
    ),
    "between": lambda g, groups: jnp.diagonal(
        metrics.alpha_between(g, groups=groups, num_groups=2)
    ),
}


@pytest.mark.parametrize("make", [zoo.dense, zoo.embedding, zoo.convolution, zoo.large_custom_vjp])
def test_a_nan_stays_in_its_group(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", co.gradients.RecomputedWarning)
        gradients, ones = scaled(make)
        groups = np.arange(len(ones)) % 2
        by_group = lambda g, groups: {name: read(g, groups) for name, read in GROUPED.items()}
        read = jax.jit(lambda factors, groups: by_group(gradients(factors), groups))
        found = read(np.r_[np.nan, ones[1:]], groups)
        others = read(ones, np.r_[-1, groups[1:]])
    for name, values in found.items():
        assert np.isnan(values[0]).all(), name
        np.testing.assert_allclose(values[1], others[name][1], rtol=1e-4, err_msg=name)


def test_a_nan_stays_in_its_group_where_values_are_known():
    gradients, ones = scaled(zoo.dense)
    groups = np.arange(len(ones)) % 2
    found = co.alpha(gradients(np.r_[np.nan, ones[1:]]), groups=groups, num_groups=2)
    np.testing.assert_allclose(
        found, [np.nan, co.alpha(gradients(ones), groups=groups, num_groups=2)[1]], rtol=1e-5
    )


def test_what_is_too_long_to_square_stays_in_its_group():
    g = draw().astype(np.float32)
    g[3] *= 1e25
    parts = pool(jnp.asarray(g), groups=np.arange(24) == 3, variances=True)
    np.testing.assert_allclose(parts[0].mean, np.delete(g, 3, 0).mean(0), rtol=1e-5)
    assert np.isnan(co.alpha(parts)[1])  # not 0, which finite over infinite would be


@pytest.mark.parametrize("make", [zoo.dense, zoo.embedding, zoo.convolution, zoo.large_custom_vjp])
def test_a_shard_without_examples_is_zeros_and_changes_nothing(make):
    loss, params, batch = make()
    m = len(jax.tree.leaves(batch)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", co.gradients.RecomputedWarning)
        value_and_grad = co.per_example_value_and_grad(loss)
        pooled = jax.jit(lambda *args: pool(value_and_grad(*args)[1], variances=True))
        part, empty = (pooled(params, batch, np.full(m, counts)) for counts in (True, False))
    assert all(np.all(np.asarray(x) == 0) for x in jax.tree.leaves(empty))
    for both in (part + empty, empty + part):
        for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(part)):
            np.testing.assert_array_equal(a, b)
    stacked = jax.tree.map(lambda a, b: np.stack([a, b]), part, empty)
    over = jax.jit(jax.vmap(lambda part: part.over("shard"), axis_name="shard"))(stacked)
    for a, b in zip(jax.tree.leaves(over), jax.tree.leaves(part)):
        np.testing.assert_allclose(a[0], b, rtol=1e-6)
    assert np.isnan(co.alpha(empty))


def test_an_infinite_mean_stays_infinite_beside_nothing():
    part = pool(jnp.full((2, 3), jnp.inf))
    assert np.isinf((part + pool(jnp.ones((2, 3)), groups=jnp.ones(2, bool))[0]).mean).all()


def test_the_mean_of_a_million_examples_in_float32_is_that_of_float64():
    """Means are pooled, not sums: nothing grows, and the error stays that of the last digits."""
    batches = np.random.default_rng(0).normal(1.0, 3.0, (400, 50, 3)).astype(np.float32)

    def add(pooled, g):
        return pooled + pool({"w": g}, variances=True), None

    start = jax.tree.map(jnp.zeros_like, pool({"w": batches[0]}, variances=True))
    pooled, _ = jax.jit(lambda b: jax.lax.scan(add, start, b))(jnp.tile(batches, (50, 1, 1)))
    exact = batches.reshape(-1, 3).astype(np.float64)
    assert int(pooled.m) == 1_000_000
    np.testing.assert_allclose(pooled.mean["w"], exact.mean(0), rtol=5e-6)
    np.testing.assert_allclose(pooled.second_moments["w"], (exact**2).mean(0), rtol=5e-6)
    np.testing.assert_allclose(metrics.m_coherence(pooled), 1e6 * reference_alpha(exact), rtol=5e-6)


def reference_alpha(g):
    return np.sum(g.mean(0) ** 2) / np.mean(np.sum(g**2, 1))


ON_EIGHT_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import PartitionSpec as P
from coherence.metrics import m_coherence, pool, sharpness
mesh = jax.make_mesh((8,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
g = jnp.asarray(np.random.default_rng(0).normal(size=(40, 5)) + 0.3, jnp.float32)
pooled = lambda g: pool({"w": g}, variances=True).over("i")
over = jax.shard_map(pooled, mesh=mesh, in_specs=P("i"), out_specs=P())
for a, b in zip(jax.tree.leaves(jax.jit(over)(g)), jax.tree.leaves(pool({"w": g}, variances=True))):
    np.testing.assert_allclose(a, b, rtol=1e-5)
np.testing.assert_allclose(jax.jit(lambda g: m_coherence(over(g)))(g), m_coherence(g), rtol=1e-5)
hardly = g.at[:, 0].set(1 + 1e-4 * g[:, 0])  # rows are formed on each device, and centred
exact = np.asarray(hardly, float)
for make in (over, jax.jit(over)):
    np.testing.assert_allclose(make(hardly).variances["w"], exact.var(0), rtol=1e-3)
groups = jnp.arange(40) % 2
by_group = lambda g, k: tuple(x.over("i") for x in pool({"w": g}, groups=k, num_groups=2))
two = jax.shard_map(by_group, mesh=mesh, in_specs=P("i"), out_specs=P())
nan = g.at[0].set(jnp.nan)
np.testing.assert_allclose(jax.jit(two)(nan, groups)[1].mean["w"], g[1::2].mean(0), rtol=1e-5)
w, loss = jnp.ones(5), lambda w, e: jnp.tanh(e @ w) ** 2
curved = lambda w, x: sharpness(loss, w, x, jax.random.key(0), tolerance=1e-5).value[None]
once, own = jax.jit(curved), {"in_specs": (P(), P("i")), "out_specs": P("i")}
each = jax.shard_map(curved, mesh=mesh, **own)
alone = jnp.concatenate([once(w, x) for x in g.reshape(8, 5, 5)])  # not summed over devices
np.testing.assert_allclose(jax.jit(each)(w, g), alone, rtol=1e-4)
"""


def test_float64_is_pooled_in_float64():
    g = np.random.default_rng(0).normal(size=(7, 5))
    with jax.enable_x64(True):
        joined = pool({"w": g[:3]}, variances=True) + pool({"w": g[3:]}, variances=True)
        each = lambda row: pool({"w": row[None]}, variances=True).over("rows")
        over = jax.vmap(each, axis_name="rows", out_axes=None)(g)
        for pooled in (joined, over):
            np.testing.assert_allclose(pooled.mean["w"], g.mean(0), rtol=1e-13)
            np.testing.assert_allclose(pooled.variances["w"], g.var(0), rtol=1e-13)


def test_what_devices_hold_pools_to_the_whole():
    eight_devices.run(ON_EIGHT_DEVICES)


EXPLICIT_AXES = """
import jax, jax.numpy as jnp, pytest
import coherence as co
from coherence.probes import Probe
from jax.sharding import NamedSharding, PartitionSpec as P
mesh = jax.make_mesh((8,), ("i",), axis_types=(jax.sharding.AxisType.Explicit,))
x = jax.device_put(jnp.ones((16, 5)), NamedSharding(mesh, P("i")))
loss = lambda w, e: jnp.dot(w, e["x"])
for call in (
    lambda: Probe(loss, {"x": x}),
    lambda: co.measure(loss, jnp.ones(5), {"x": x}, batch_size=4),
    lambda: co.measure(loss, jnp.ones(5), iter([{"x": x}]), batch_size=4),
):
    with pytest.raises(ValueError, match="leaf x is sharded over a mesh with explicit axes"):
        call()
"""


def test_samples_on_a_mesh_with_explicit_axes_are_refused():
    eight_devices.run(EXPLICIT_AXES)


def test_pooling_is_compiled_into_the_step_and_forms_nothing():
    m, p, q = 64, 512, 1024
    make = lambda params, x: pool(
        co.per_example_value_and_grad(lambda w, x: jnp.sum(jnp.tanh(x @ w) ** 2))(params, x)[1]
    )
    memory = jax.jit(make).lower(jnp.zeros((p, q)), jnp.zeros((m, p))).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 0.05 * 4 * m * p * q


@pytest.mark.parametrize(
    "metric",
    [
        metrics.contributions,
        metrics.alpha_without,
        metrics.inner_product_test,
        metrics.orthogonality_test,
        metrics.cosine_stiffness,
        metrics.gradient_confusion,
        metrics.gradient_disparity,
        lambda g: metrics.shares(g, jnp.zeros(24, bool)),
        lambda g: metrics.pulls(g, jnp.zeros(24, bool)),
        lambda g: metrics.null_shares(g, jnp.zeros(24, bool), jax.random.key(0)),
        lambda g: metrics.stiffness_by_group(g, jnp.zeros(24, bool)),
    ],
)
def test_what_is_of_single_examples_is_not_to_be_had_from_what_is_pooled(metric):
    with pytest.raises(
        ValueError,
        match="needs per-example gradients, got what pool made of them: single examples are gone",
    ):
        metric(pool({"w": jnp.asarray(draw())}))


def test_bad_input_is_named():
    g = {"w": jnp.asarray(draw())}
    with pytest.raises(
        ValueError, match="these pooled gradients hold no variances, which this needs: pool"
    ):
        metrics.gsnr(pool(g))
    with pytest.raises(ValueError, match="groups are of examples, which are pooled here already"):
        co.alpha(pool(g), groups=jnp.ones(24, bool))
    with pytest.raises(
        ValueError,
        match="the noise scale is of one set of examples, got 2 pooled groups: ask it of each",
    ):
        metrics.noise_scale(pool(g, groups=jnp.arange(24) > 3))
    with pytest.raises(
        ValueError,
        match="norm_test needs at least 2 examples, got 1: one example has no pair and no variance",
    ):
        metrics.norm_test({"w": jnp.ones((1, 3))})
    with pytest.raises(
        ValueError, match=r"groups must have one entry an example, \[24\], got \[3\]"
    ):
        pool(g, groups=jnp.ones(3, bool))
    with pytest.raises(ValueError, match="groups must be bool or int, got float32"):
        pool(g, groups=jnp.ones(24))
    for words in (np.array(["a", "b"] * 12), ["a", "b"] * 12):
        with pytest.raises(ValueError, match="groups must be bool or int, got <U1. Number them"):
            pool(g, groups=words)
    with pytest.raises(ValueError, match="int groups need num_groups, how many there are"):
        pool(g, groups=jnp.ones(24, int))


@pytest.mark.parametrize(
    "metric",
    [
        co.alpha,
        metrics.evidence,
        metrics.contributions,
        metrics.cosine_stiffness,
        metrics.gradient_disparity,
        metrics.gradient_norm,
    ],
)
@pytest.mark.parametrize("gradient", [jnp.ones(5), {"w": jnp.ones(5), "b": jnp.ones(5)}])
def test_one_plain_gradient_is_not_taken_for_examples(metric, gradient):
    with pytest.raises(ValueError, match=r"plain vectors, \[5\]: one gradient, it seems"):
        metric(gradient)


def test_gradients_of_a_single_number_are_examples():
    loss = lambda w, x: w * x
    _, g = co.per_example_value_and_grad(loss)(jnp.ones(()), jnp.array([1.0, 3.0]))
    assert co.alpha(g) == pytest.approx(0.8)
    assert co.alpha(jnp.array([[1.0], [3.0]])) == pytest.approx(0.8)
    linear = {"w": jnp.array([[1.0, 0.0], [3.0, 0.0]]), "b": jnp.array([0.0, 0.0])}
    assert co.alpha(linear) == pytest.approx(0.8)


def test_names_stand_for_the_functions_of_that_name():
    loss, params, batch = zoo.dense()
    g = zoo.gradients(zoo.dense)
    for name, function in (("layer", layer), ("leaf", leaf)):
        for metric in (
            co.alpha,
            metrics.mean_gsnr,
            metrics.alpha_without,
            co.gradients.squared_norms,
        ):
            by_name, by_function = metric(g, by=name), metric(g, by=function)
            assert by_name.keys() == by_function.keys()
            for key, value in by_name.items():
                np.testing.assert_array_equal(value, by_function[key])
        measured = co.measure(loss, params, batch, batch_size=4, by=name)
        assert measured.by == co.measure(loss, params, batch, batch_size=4, by=function).by
    with pytest.raises(TypeError, match='by is "layer", "leaf" or a function .*, got "?\'layers'):
        co.alpha(g, by="layers")


@pytest.mark.parametrize("other", [-1, 2, 2**32, 2**32 + 1, -(2**32), np.iinfo(np.int64).min])
def test_an_entry_outside_is_in_no_group_however_large(other):
    groups = np.array([0, 0, 1, other])
    np.testing.assert_allclose(co.alpha(jnp.eye(4), groups=groups, num_groups=2), [0.5, 1])
    numbers, _ = group_array(groups, 2, 4)
    assert numbers[:3].tolist() == [0, 0, 1]
    assert numbers[3] not in (0, 1)


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_a_step_that_is_measured_forms_its_mean_gradient_once(masked):
    """In a loop XLA hoists what does not change, after which it no longer sees that two sums by
    different formulas of the same weights are one."""
    loss, params, batch = zoo.dense()

    def step(_, carry):
        params, measured = carry
        mask = batch[0][:, 0] > measured if masked else None
        _, gradients = co.per_example_value_and_grad(loss)(params, batch, mask)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, co.mean(gradients))
        return params, co.alpha(gradients)

    steps = jax.jit(lambda params, n: jax.lax.fori_loop(0, n, step, (params, 0.0)))
    shape = ",".join(map(str, params["w"].shape))
    products = re.findall(rf"= f32\[{shape}\]\S* dot\(", steps.lower(params, 3).compile().as_text())
    assert len(products) == 1
