"""Probes: what they read is what the metrics say of the whole sample, in one pass, and they change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import coherence as co
from coherence import metrics
from coherence.probes import AtLoss, Every, Log, Probe, Quantity, batch_readings, cost
from tests import zoo

M = 40


def problem(seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(M, 6)).astype(np.float32), rng.integers(3, size=M)
    params = {"a": {"w": rng.normal(size=(6, 5)).astype(np.float32)}, "b": {"w": rng.normal(size=(5, 3)).astype(np.float32)}}
    return jax.tree.map(jnp.asarray, params), (x, y)


def loss(params, example):
    x, y = example
    return optax.losses.softmax_cross_entropy_with_integer_labels(jnp.tanh(x @ params["a"]["w"]) @ params["b"]["w"], y)


@pytest.mark.parametrize("options", [{}, {"batch_size": 7, "few": 16}, {"batch_size": 7, "few": M}, {"few": 16}], ids=str)
def test_however_the_sample_is_cut_a_probe_reads_the_metrics_of_all_of_it(options):
    params, (x, y) = problem()
    probe = Probe(loss, (x, y), quantities="full", groups=y, num_groups=3, **options)
    found = {name.removeprefix("train/"): np.asarray(value) for name, value in probe(params).items() if not isinstance(value, dict)}
    losses, g = co.per_example_value_and_grad(loss)(params, (x, y))
    chosen = probe.shown()["index"]
    few = jax.tree.map(lambda a: a[chosen], co.materialize(g))
    pooled = metrics.pool(g, second_moments=True)
    expected = {
        "loss": losses.mean(),
        "m_coherence": co.m_coherence(g),
        "m_coherence_by_group": co.m_coherence(g, groups=y, num_groups=3),
        "alpha_unbiased": co.alpha_unbiased(g),
        "gradient_norm": metrics.gradient_norm(g),
        "shares": metrics.shares(g, y, num_groups=3),
        "noise_trace": metrics.noise_moments(g).trace,
        "norm_test": metrics.norm_test(g),
        "mean_gsnr": metrics.mean_gsnr(g),
        "evidence": metrics.evidence(g),
        "alpha_between": metrics.alpha_between(g, groups=y, num_groups=3),
        "contributions": metrics.contributions(few, pooled=pooled),
        "orthogonality_test": metrics.orthogonality_test(few, pooled=pooled),
        "squared_norms": co.squared_norms(few),
        "cosine_stiffness": metrics.cosine_stiffness(few),
        "stiffness_by_group_matrix": metrics.stiffness_by_group(few, y[chosen], num_groups=3).matrix,
        "confusion_bound": metrics.gradient_confusion(few).bound,
        "disparity": metrics.gradient_disparity(few),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-3, atol=1e-5, err_msg=name)
    assert len(chosen) == min(options.get("few", M), M)
    by_layer = probe(params)["train/m_coherence_by_layer"]
    np.testing.assert_allclose([by_layer[k] for k in ("a", "b")], [co.m_coherence(g, by=co.layer)[k] for k in ("a", "b")], rtol=1e-4)


def test_a_batch_is_read_inside_the_step_without_another_pass():
    params, batch = problem()

    @jax.jit
    def step(params):
        losses, g = co.per_example_value_and_grad(loss)(params, batch)
        return batch_readings(losses, g), co.mean(g)

    found, _ = step(params)
    probe = Probe(loss, batch)(params)
    assert set(found) == {name.removeprefix("train/") for name in probe}
    for name, value in found.items():
        np.testing.assert_allclose(jax.tree.leaves(value), jax.tree.leaves(probe[f"train/{name}"]), rtol=1e-4)
    products = jax.jit(step).lower(params).compile().as_text().count(" dot(")
    plain = jax.jit(jax.grad(lambda p: jnp.mean(jax.vmap(loss, (None, 0))(p, batch)))).lower(params).compile().as_text().count(" dot(")
    assert products <= plain + 12  # vdots of norms; no product of the size of a layer's comes twice


def test_masked_examples_do_not_count_in_a_batch():
    params, (x, y) = problem()
    mask = np.arange(M) < 30
    value_and_grad = co.per_example_value_and_grad(loss)
    masked = batch_readings(*value_and_grad(params, (x, y), jnp.asarray(mask)))
    fewer = batch_readings(*value_and_grad(params, (x[:30], y[:30])))
    for a, b in zip(jax.tree.leaves(masked), jax.tree.leaves(fewer)):
        np.testing.assert_allclose(a, b, rtol=1e-4)


def test_a_quantity_of_ones_own_is_a_name_and_a_function():
    params, batch = problem()
    mine = (
        Quantity("diversity", metrics.gradient_diversity),
        Quantity("longest", lambda few: jnp.max(co.squared_norms(few)), reads="few"),
        Quantity("between", metrics.alpha_between, reads="groups"),
        Quantity("signal", lambda pooled: jnp.max(pooled.second_moments["a"]["w"]), second_moments=True),
    )
    found = Probe(loss, batch, name="mine", quantities=mine)(params)
    _, g = co.per_example_value_and_grad(loss)(params, batch)
    assert set(found) == {"mine/diversity", "mine/longest", "mine/signal"}  # there are no groups to be between
    assert found["mine/diversity"] == pytest.approx(1 / float(co.m_coherence(g)), rel=1e-4)
    assert found["mine/signal"] == pytest.approx(float(jnp.max(jnp.mean(co.materialize(g)["a"]["w"] ** 2, 0))), rel=1e-4)


def test_a_second_reading_compiles_nothing_and_other_seeds_samples_share_the_program():
    params, batch = problem()
    traced = []

    def counted(params, example):
        traced.append(1)
        return loss(params, example)

    one = Probe(counted, batch, batch_size=7, few=16, quantities="full")
    one(params)
    before = len(traced)
    other = Probe(counted, problem(1)[1], batch_size=7, few=16, quantities="full")
    first, second = one(params), one(params, other.sample)
    assert len(traced) == before
    assert first != second
    assert second == other(params)


def test_an_empty_group_is_nan_and_the_rest_is_read():
    params, (x, y) = problem()
    for options in ({}, {"batch_size": 7, "few": 16}):
        found = Probe(loss, (x, y), groups=np.zeros(M, bool), **options)(params)
        assert found["train/m_coherence_by_group"][0] == pytest.approx(found["train/m_coherence"], rel=1e-4)
        assert np.isnan(found["train/m_coherence_by_group"][1])


def test_diverged_parameters_are_read_as_nan():
    params, batch = problem()
    found = Probe(loss, batch, quantities="full")(jax.tree.map(lambda x: x * jnp.nan, params))
    assert np.isnan(found["train/m_coherence"])
    assert np.isnan(found["train/loss"])


def test_what_it_costs_is_known_from_shapes():
    params, batch = problem()
    shapes = jax.eval_shape(lambda: params)
    light, full = (cost(Probe(loss, batch, quantities=q, groups=batch[1], num_groups=3), shapes) for q in ("light", "full"))
    assert 0.5 < light.gradients < 2.5
    assert full.gradients > light.gradients
    assert full.bytes > light.bytes > 0
    assert "gradients of its sample and" in str(full)
    cut = cost(Probe(loss, batch, batch_size=8, few=8, quantities="full"), shapes)
    assert 0.5 < cut.gradients < 8
    _, g = co.per_example_value_and_grad(loss)(params, batch)
    assert light.bytes < 4 * co.materialize(g)["a"]["w"].size * 4


def test_pictures_are_kept_as_bytes_with_their_labels_and_places():
    rng = np.random.default_rng(0)
    x, y = rng.random((M, 8, 8)).astype(np.float32), rng.integers(10, size=M)
    shown = Probe(lambda p, e: jnp.sum(p * e[0]), (x, y), few=5, groups=y > 4).shown()
    assert shown["inputs"].dtype == np.uint8
    np.testing.assert_allclose(shown["inputs"] / 255, x[shown["index"]], atol=1 / 255)
    np.testing.assert_array_equal(shown["labels"], y[shown["index"]])
    np.testing.assert_array_equal(shown["group"], (y > 4)[shown["index"]])


def test_every_preset_runs_on_a_sequence_and_a_convolution():
    for make in (zoo.sequence, zoo.convolution):
        loss, params, batch = make()
        assert np.isfinite(Probe(loss, batch, quantities="full")(params)["train/m_coherence"])


def test_a_loop_of_ones_own_asks_when():
    params, batch = problem()
    due = lambda probe, **kw: [step for step in range(0, 31) if probe.due(step, **kw)]
    assert due(Probe(loss, batch, when=Every(10)), total=30) == [0, 10, 20, 30]
    assert due(Probe(loss, batch, when=Every(7)), total=30) == [0, 7, 14, 21, 28, 30]
    assert due(Probe(loss, batch, when=Log(2)), total=30) == list(Log(2).steps(30))
    assert due(Probe(loss, batch, when=Every(10))) == [0, 10, 20, 30]
    falling = Probe(loss, batch, when=AtLoss((0.5,), window=2))
    assert [step for step in range(31) if falling.due(step, 30, loss=0.9**step)] == [0, 9, 30]
    del params


def test_bad_input_is_named():
    _, (x, y) = problem()
    with pytest.raises(ValueError, match="there is no preset 'ful': there is light, standard, full"):
        Probe(loss, (x, y), quantities="ful")
    with pytest.raises(ValueError, match=r"quantities are a preset's name or a sequence of Quantity, got <function"):
        Probe(loss, (x, y), quantities=[co.alpha])
    with pytest.raises(ValueError, match="quantity mine: reads is one of pooled, groups, few, view, got 'all'"):
        Quantity("mine", co.alpha, reads="all")
    with pytest.raises(ValueError, match=r"groups must have one entry an example, \[40\], got \[3\]"):
        Probe(loss, (x, y), groups=np.ones(3, bool))
    with pytest.raises(ValueError, match="groups must be between 0 and num_groups - 1 = 1, got 0 to 2"):
        Probe(loss, (x, y), groups=y, num_groups=2)
    with pytest.raises(ValueError, match="int groups need num_groups"):
        Probe(loss, (x, y), groups=y)
    with pytest.raises(ValueError, match="leaves disagree about the number of examples"):
        Probe(loss, (x, y[:3]))
