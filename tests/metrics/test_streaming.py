"""`measure`: the whole data set at once, however it is cut, with intervals that cover."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import coherence as co
from coherence.metrics import UntrustworthyInterval, measure
from coherence.metrics.batching import Few, batches
from coherence.metrics.streaming import Norms
from tests import reference, zoo

tails_do_not_matter = pytest.mark.filterwarnings("ignore::coherence.metrics.UntrustworthyInterval")


def dot(w, x):
    """Its per-example gradients are the examples."""
    return jnp.dot(w, x)


def draw(m=400, p=8, seed=0, sigma=0.2):
    rng = np.random.default_rng(seed)
    return ((rng.normal(size=(m, p)) + 0.4) * rng.lognormal(sigma=sigma, size=(m, 1))).astype(
        np.float32
    )


def in_parts(x, *sizes):
    stops = np.cumsum(sizes)
    return [x[stop - size : stop] for size, stop in zip(sizes, stops)]


@pytest.mark.parametrize("batch_size", [1, 7, 100, 400, 1000])
def test_the_batch_size_changes_nothing(batch_size):
    x = draw()
    measured = measure(dot, jnp.ones(8), x, batch_size=batch_size)
    assert measured.value == pytest.approx(reference_alpha(x), rel=1e-5)
    assert measured.m == 400
    whole = measure(dot, jnp.ones(8), x, batch_size=400)
    assert (measured.low, measured.high) == pytest.approx((whole.low, whole.high), rel=1e-4)


def reference_alpha(x):
    x = np.asarray(x, np.float64)
    return np.sum(x.mean(0) ** 2) / np.mean(np.sum(x**2, 1))


@pytest.mark.parametrize("kind", ["numpy", "jax", "generator", "list of batches"])
def test_data_of_any_kind_measures_the_same(kind):
    x = draw()
    data = {
        "numpy": x,
        "jax": jnp.asarray(x),
        "generator": (b for b in in_parts(x, 100, 3, 297)),
        "list of batches": iter(in_parts(x, 400)),
    }
    measured = measure(dot, jnp.ones(8), data[kind], batch_size=64)
    whole = measure(dot, jnp.ones(8), x, batch_size=400)
    assert (measured.value, measured.low, measured.high) == pytest.approx(
        (whole.value, whole.low, whole.high), rel=1e-4
    )


@tails_do_not_matter
def test_layers_and_groups_are_those_of_alpha_itself():
    loss, params, (x, y) = zoo.dense()
    groups = np.arange(len(x)) % 3
    _, g = co.per_example_value_and_grad(loss)(params, (x, y))
    measured = measure(loss, params, (x, y), batch_size=4, by="layer", groups=groups, num_groups=4)
    parts = [(x[:5], y[:5]), (x[5:], y[5:])]
    every = lambda batch: np.zeros(len(batch[0]), int)
    streamed = measure(
        loss, params, iter(parts), batch_size=4, by="layer", groups=every, num_groups=2
    )
    expected = co.alpha(g, by="layer", groups=groups, num_groups=4)
    assert measured.by == tuple(expected)
    assert measured.groups == 4
    np.testing.assert_array_equal(measured.m, [np.sum(groups == k) for k in range(4)])
    for name, values in expected.items():
        np.testing.assert_allclose(measured.value[name], values, rtol=1e-4)
        np.testing.assert_allclose(
            measured.m_coherence.value[name],
            co.m_coherence(g, by="layer", groups=groups, num_groups=4)[name],
            rtol=1e-4,
        )
        np.testing.assert_allclose(
            streamed.value[name][0], co.alpha(g, by="layer")[name], rtol=1e-4
        )
        assert np.isnan(measured.value[name][3])
        assert np.isnan(streamed.value[name][1])


@tails_do_not_matter
def test_the_interval_is_the_jackknifes():
    x = draw(60).astype(np.float64)
    measured = measure(dot, jnp.ones(8), x.astype(np.float32), batch_size=16)
    without = np.array([reference.alpha(np.delete(x, i, 0)) for i in range(60)])
    away = without - without.mean()
    freedom = min(59, 2 * 60 / (np.mean(away**4) / np.mean(away**2) ** 2 - 1))
    half = stats.t.ppf(0.975, freedom) * np.sqrt(59 / 60 * np.sum(away**2))
    assert measured.high - measured.value == pytest.approx(half, rel=1e-3)
    assert measured.value - measured.low == pytest.approx(half, rel=1e-3)
    unbiased = measured.alpha_unbiased
    assert unbiased.value == pytest.approx(reference.alpha_unbiased(x), rel=1e-4)
    assert unbiased.high - unbiased.value == pytest.approx(half * 60 / 59, rel=1e-3)


@tails_do_not_matter
def test_an_interval_holds_only_what_alpha_can_be():
    few = measure(dot, jnp.ones(8), draw(4), batch_size=4)
    assert (few.low, few.high) == (0, pytest.approx(0.744, abs=1e-3))
    agreeing = measure(
        dot, jnp.ones(2), jnp.array([[1.0, 0], [1, 0], [1, 0.2], [1, 0]]), batch_size=4
    )
    assert agreeing.low < agreeing.value < agreeing.high == 1
    nan = measure(dot, jnp.ones(8), jnp.asarray(draw(4)).at[0].set(jnp.nan), batch_size=4)
    assert np.isnan([nan.low, nan.high]).all()


def test_a_few_of_many_examples_give_the_interval_of_all(monkeypatch):
    from coherence.metrics import streaming

    x = draw(6000, sigma=0.5)
    widths = []
    for few in (6000, 1000):
        monkeypatch.setattr(streaming, "LOOKED_AT_TWICE", few)
        measured = measure(dot, jnp.ones(8), x, batch_size=500)
        widths.append(measured.high - measured.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.05)
    assert widths[1] != widths[0]


@tails_do_not_matter
def test_intervals_cover_what_a_sample_of_this_size_has_on_average():
    """Of 200 draws; `benchmarks/coverage.py` counts it for 1,000 and heavier tails."""
    sigma, m, a, p = 0.3, 300, 0.7, 8
    rng, hits = np.random.default_rng(0), 0
    alpha = a**2 / (a**2 + 1) * np.exp(-(sigma**2))
    for _ in range(200):
        x = rng.normal(size=(m, p)) / np.sqrt(p)
        x[:, 0] += a
        measured = measure(
            dot,
            jnp.ones(p),
            (x * rng.lognormal(sigma=sigma, size=(m, 1))).astype(np.float32),
            batch_size=m,
        )
        hits += measured.low <= alpha + (1 - alpha) / m <= measured.high
    assert 0.9 <= hits / 200 <= 0.99


def test_heavy_tails_are_said():
    x = draw(1000, sigma=1.3)
    with pytest.warns(
        UntrustworthyInterval,
        match=r"norms have heavy tails \(kurtosis [\d.]+ of 1,000 norms; 3 is normal\)",
    ):
        measured = measure(dot, jnp.ones(8), x, batch_size=100)
    norms = np.linalg.norm(x.astype(np.float64), axis=1)
    assert measured.kurtosis == pytest.approx(
        np.mean((norms - norms.mean()) ** 4) / norms.var() ** 2, rel=1e-4
    )
    with pytest.warns(UntrustworthyInterval, match="group 1: kurtosis"):
        measure(
            dot,
            jnp.ones(8),
            np.concatenate([draw(900), x]),
            batch_size=100,
            groups=np.arange(1900) >= 900,
        )


def test_the_few_hold_the_longest_and_a_fair_sample_of_the_rest():
    lengths = np.random.default_rng(0).permutation(1000).astype(float)
    counts = np.zeros(1000)
    for seed in range(100):
        few = Few(40, seed)
        for part in in_parts(lengths, 300, 1, 650, 49):
            few.add(
                {"x": np.concatenate([part, [-1.0]])},
                np.concatenate([part, [1e9]]),
                np.arange(len(part) + 1) < len(part),
            )
        examples, weights = few.examples_and_weights()
        assert set(range(980, 1000)) <= set(examples["x"].astype(int))
        assert weights.sum() == pytest.approx(1000)
        counts[examples["x"].astype(int)] += 1
    assert counts[:980].sum() == pytest.approx(100 * 20 * 0.98, rel=0.05)
    assert counts[:980].max() < 12  # each other one about 2 of 100 times


@tails_do_not_matter
def test_a_convolution_is_measured_by_calls_not_loops_and_nothing_is_compiled_twice():
    loss, params, (x, y) = zoo.convolution()
    traced = []

    def counted(params, example):
        traced.append(1)
        return loss(params, example)

    measure(counted, params, (x, y), batch_size=3)
    before = len(traced)
    measure(counted, params, (x, y), batch_size=3)
    assert len(traced) == before


@tails_do_not_matter
@pytest.mark.parametrize("m", [1, 2])
def test_one_or_two_examples_say_nothing_about_others(m):
    x = draw(40)
    small = np.arange(40) < m
    measured = measure(dot, jnp.ones(8), x, batch_size=8, groups=small)
    assert (measured.low[1], measured.high[1]) == (0, 1)
    assert 0 < measured.low[0] < measured.value[0] < measured.high[0]
    alone = measure(dot, jnp.ones(8), x[:m], batch_size=8, by="leaf")
    assert (alone.low["all"], alone.high["all"]) == (0, 1)
    assert alone.value["all"] == pytest.approx(reference.alpha(x[:m]), rel=1e-5)
    assert str(alone).endswith(f"[0, 1], m = {m}")


def noisy(w, example):
    x, key = example
    return jnp.sum(x * jax.random.bernoulli(key, 0.9, x.shape) * w)


@tails_do_not_matter
def test_typed_random_keys_go_with_their_examples():
    x, keys = draw(40), jax.random.split(jax.random.key(0), 40)
    measured = measure(noisy, jnp.ones(8), (x, keys), batch_size=7)
    _, g = co.per_example_value_and_grad(noisy)(jnp.ones(8), (x, keys))
    assert measured.value == pytest.approx(float(co.alpha(g)), rel=1e-4)
    parts = ((x[i : i + 9], keys[i : i + 9]) for i in range(0, 40, 9))
    streamed = measure(
        noisy, jnp.ones(8), parts, batch_size=7, groups=lambda batch: batch[0][:, 0] > 0
    )
    grouped = measure(noisy, jnp.ones(8), (x, keys), batch_size=7, groups=x[:, 0] > 0)
    np.testing.assert_allclose(streamed.value, grouped.value, rtol=1e-5)
    np.testing.assert_allclose(streamed.high, grouped.high, rtol=1e-3)


@tails_do_not_matter
def test_empty_batches_of_a_generator_are_passed_over():
    x = draw(10)
    whole = measure(dot, jnp.ones(8), x, batch_size=4)
    for cuts in ([3, 3, 7], [0, 5], [10], [0]):
        parts = measure(dot, jnp.ones(8), iter(np.split(x, cuts)), batch_size=4)
        assert (parts.m, parts.value) == (10, pytest.approx(whole.value, rel=1e-6))
    with pytest.raises(ValueError, match="data holds no examples: the iterable gave no batch"):
        measure(dot, jnp.ones(8), iter([x[:0], x[:0]]), batch_size=4)


@tails_do_not_matter
def test_examples_outside_of_every_group_are_left_out():
    x = draw(40)
    groups = np.where(np.arange(40) < 10, 0, -1)
    measured = measure(dot, jnp.ones(8), x, batch_size=8, groups=groups, num_groups=1)
    np.testing.assert_allclose(measured.value, [reference_alpha(x[:10])], rtol=1e-5)


def test_bad_input_is_named():
    one = jnp.ones(8)
    with pytest.raises(ValueError, match="batch_size must be at least 1 example, got 0"):
        measure(dot, one, draw(), batch_size=0)
    with pytest.raises(ValueError, match="data holds no examples: the iterable gave no batch"):
        measure(dot, one, iter([]), batch_size=3)
    with pytest.raises(ValueError, match="groups must be a function from a batch to the groups"):
        measure(dot, one, iter([draw()]), batch_size=3, groups=np.ones(400, bool))
    with pytest.raises(
        ValueError,
        match=r"leaves disagree about the number of examples .*: \[3, 4\]. A list of batches",
    ):
        measure(dot, one, [np.ones((3, 8)), np.ones((4, 8))], batch_size=3)
    with pytest.raises(
        ValueError, match=r"groups must have one entry an example, \[400\], got \[3\]"
    ):
        measure(dot, one, draw(), batch_size=3, groups=np.ones(3, bool))
    with pytest.raises(ValueError, match="groups must be bool or int, got float64"):
        measure(dot, one, draw(), batch_size=3, groups=np.ones(400))
    with pytest.raises(ValueError, match="int groups need num_groups, how many there are"):
        measure(dot, one, draw(), batch_size=3, groups=np.ones(400, int))
    with pytest.raises(ValueError, match="data holds 0 examples"):
        measure(dot, one, np.ones((0, 8)), batch_size=3)
    with pytest.raises(ValueError, match="data holds a scalar: every leaf needs a leading axis"):
        measure(dot, one, (draw(), 3.0), batch_size=3)
    with pytest.raises(ValueError, match="data holds no arrays: it is a pytree whose leaves"):
        measure(dot, one, {}, batch_size=3)


def test_batches_keep_their_shape_and_every_example_once():
    x = np.arange(23)
    many, cut = batches({"x": x}, 4, np.arange(23) % 2 == 0)
    parts = list(cut)
    assert many == 2
    assert {part.examples["x"].shape for part in parts} == {(4,)}
    seen = [
        (part.group, v)
        for part in parts
        for v in (
            part.examples["x"] if part.mask is None else part.examples["x"][part.mask]
        ).tolist()
    ]
    assert sorted(seen) == sorted((int(v % 2 == 0), v) for v in range(23))
    assert jax.tree.leaves(next(batches(jnp.arange(9), 5)[1]).examples)[0].shape == (5,)


@tails_do_not_matter
def test_one_example_has_no_unbiased_alpha():
    measured = measure(dot, jnp.ones(8), draw(5), batch_size=2, groups=np.arange(5) == 0)
    assert measured.value[1] == pytest.approx(1)
    unbiased = measured.alpha_unbiased
    assert np.isnan([unbiased.low[1], unbiased.value[1], unbiased.high[1]]).all()
    assert np.isfinite(measured.alpha_unbiased.value[0])


@tails_do_not_matter
def test_a_measurement_prints_a_line_for_each_layer_and_group():
    x = draw(40)
    assert str(measure(dot, jnp.ones(8), x, batch_size=20)).startswith("alpha 0.")
    lines = str(
        measure(dot, jnp.ones(8), x, batch_size=20, by="leaf", groups=np.arange(40) < 10)
    ).splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["all, group 0", "all, group 1"]
    assert lines[1].endswith("m = 10")


@pytest.mark.parametrize("spread", [1e-1, 1e-4, 1e-5])
def test_the_kurtosis_of_nearly_equal_norms_is_theirs(spread):
    drawn = np.random.default_rng(0).normal(size=2000)
    norms = Norms()
    for part in np.split(drawn, 4):
        norms.add((1 + spread * part) ** 2)
    assert norms.kurtosis == pytest.approx(stats.kurtosis(drawn, fisher=False), rel=1e-6)
