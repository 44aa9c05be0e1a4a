"""Related metrics in numpy loops over formed gradients, and the identities with alpha."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import coherence as co
from coherence import metrics
from tests import reference, zoo

NETWORKS = [zoo.dense, zoo.sequence, zoo.convolution, zoo.embedding, zoo.low_rank]


def draw(seed=0, m=10, p=6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, p)) * rng.lognormal(size=(m, 1)) + rng.normal(size=p)


def variances(g, ddof=0):
    return np.array(
        [sum((x - column.mean()) ** 2 for x in column) / (len(g) - ddof) for column in g.T]
    )


def naive_osgr(g, n):
    """Liu et al.'s sum over parameters, with population moments estimated without bias."""
    noise = variances(g, 1)
    signal = g.mean(0) ** 2 - noise / len(g)
    weights = (signal + noise / n) / np.sum(signal + noise / n)
    return 1 - sum(w / (s / v + 1 / n) for w, s, v in zip(weights, signal, noise)) / n


def naive_tests(g):
    """Norm, inner-product and orthogonality test, as the papers write them."""
    m, mean = len(g), g.mean(0)
    length = mean @ mean
    whole = sum((x - mean) @ (x - mean) for x in g) / (m - 1) / m / length
    along = sum((x @ mean - length) ** 2 for x in g) / (m - 1) / m / length**2
    residuals = [x - (x @ mean) / length * mean for x in g]
    return np.sqrt([whole, along, sum(r @ r for r in residuals) / (m - 1) / m / length])


@jax.jit
def family(g):
    ratio = metrics.one_step_generalization_ratio
    return {
        "alpha": co.alpha(g),
        "unbiased": co.metrics.alpha_unbiased(g),
        "diversity": metrics.gradient_diversity(g),
        "bound": metrics.batch_size_bound(g),
        "noise": metrics.noise_scale(g),
        "ratio": ratio(g),
        "ratio of 4": ratio(g, 4),
        "ratio of 7": ratio(g, 7),
        "tests": [
            metrics.norm_test(g),
            metrics.inner_product_test(g),
            metrics.orthogonality_test(g),
        ],
        "gsnr": metrics.gsnr(g),
        "mean gsnr": metrics.mean_gsnr(g),
        "contributions": metrics.contributions(g),
        "evidence": metrics.evidence(g),
        "without": metrics.alpha_without(g),
    }


@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
def test_from_factors_as_from_the_formed_gradients(make):
    loss, params, batch = make()
    of = family(zoo.gradients(make))
    g = reference.flat(reference.gradients(loss, params, batch))
    mean, m = g.mean(0), len(g)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = mean**2 / variances(g)
    alive = np.isfinite(ratios) & (np.abs(g).max(0) > 1e-6)
    found = np.concatenate([np.ravel(x) for x in jax.tree.leaves(of["gsnr"])])
    np.testing.assert_allclose(found[alive], ratios[alive], rtol=2e-2, atol=1e-4)
    unbiased = np.sum(mean**2) - variances(g, 1).sum() / m
    np.testing.assert_allclose(of["noise"], variances(g, 1).sum() / unbiased, rtol=2e-3)
    diversity = np.sum(g**2) / np.sum(g.sum(0) ** 2)
    np.testing.assert_allclose(of["diversity"], diversity, rtol=1e-4)
    np.testing.assert_allclose(of["tests"], naive_tests(g), rtol=2e-3, atol=1e-4)
    contributions = g @ mean / (mean @ mean)
    np.testing.assert_allclose(of["contributions"], contributions, rtol=1e-3, atol=1e-4)
    without = [reference.alpha(np.delete(g, i, 0)) for i in range(m)]
    np.testing.assert_allclose(of["without"], without, rtol=2e-3, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([3, 4, 12]))  # each shape is compiled anew
def test_the_identities_of_the_family_hold(seed, m):
    g = draw(seed, m)
    with jax.enable_x64(True):
        of = jax.device_get(family(g))
    alpha, unbiased = of["alpha"], of["unbiased"]
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7)
    close(of["diversity"], 1 / (m * alpha))
    close(of["bound"], 1 / alpha)
    close(of["noise"], 1 / unbiased - 1)
    whole, along, across = np.square(of["tests"])
    close(of["ratio"], m * unbiased / (1 + (m - 1) * unbiased))
    close(of["ratio of 4"], 4 * unbiased / (1 + 3 * unbiased))
    close(of["ratio"], 1 - whole)
    close(of["ratio of 7"], naive_osgr(g, 7))
    close(along + across, whole)
    r, squares = of["gsnr"], np.mean(g**2, 0)
    close(np.sum(squares / squares.sum() * r / (1 + r)), alpha)
    close(np.mean(of["contributions"]), 1)
    close(of["evidence"], 1 - (m - 1) * of["mean gsnr"])


def test_gsnr_of_landmarks():
    g = {
        "one_alone": jnp.eye(5)[:, :1],
        "equal": jnp.full((5, 1), 0.3),
        "dead": jnp.zeros((5, 1)),
        "cancels": jnp.array([[1.0, -1, 1, -1, 0]]).T,
    }
    r = metrics.gsnr(g)
    np.testing.assert_allclose(r["one_alone"], 1 / 4, rtol=1e-6)
    assert np.isinf(r["equal"])
    assert np.isnan(r["dead"])
    assert r["cancels"] == 0
    assert np.isinf(metrics.mean_gsnr(g))
    assert np.isneginf(metrics.evidence(g))
    some = {name: g[name] for name in ("one_alone", "dead", "cancels")}
    np.testing.assert_allclose(metrics.mean_gsnr(some), (1 / 4 + 0) / 2, rtol=1e-6)
    by_leaf = metrics.mean_gsnr(g, by="leaf")
    assert np.isnan(by_leaf["dead"])
    assert np.isinf(by_leaf["equal"])
    np.testing.assert_allclose(by_leaf["one_alone"], 1 / 4, rtol=1e-6)


def test_two_batch_sizes_give_the_noise_scale_of_single_examples_on_average():
    g = draw(3, 12)
    small = np.array([x @ x for x in g])
    mean = g.mean(0)
    pooled = metrics.noise_moments_of_batches(small.mean(), mean @ mean, 1, 12)
    np.testing.assert_allclose(pooled.scale, metrics.noise_scale(jnp.asarray(g)), rtol=1e-4)
    with pytest.raises(ValueError, match="needs 1 <= small_size < large_size, got 8 and 8"):
        metrics.noise_moments_of_batches(1.0, 1.0, 8, 8)


def test_alpha_between_groups_is_the_cross_term():
    g, groups = draw(1, 12), np.arange(12) % 3
    between = metrics.alpha_between(jnp.asarray(g), groups=groups, num_groups=4)
    for a in range(3):
        for b in range(3):
            x, y = g[groups == a], g[groups == b]
            cross = sum(u @ v for u in x for v in y) / len(x) / len(y)
            expected = cross / np.sqrt(np.mean(np.sum(x**2, 1)) * np.mean(np.sum(y**2, 1)))
            np.testing.assert_allclose(between[a, b], expected, rtol=1e-4, atol=1e-6)
    assert np.isnan(between[3]).all()
    assert np.isnan(between[:, 3]).all()
    np.testing.assert_allclose(
        np.diag(between)[:3], co.alpha(jnp.asarray(g), groups=groups, num_groups=4)[:3], rtol=1e-5
    )
    with pytest.raises(
        ValueError, match="alpha_between compares groups of examples: pass groups=, or a tuple"
    ):
        metrics.alpha_between(jnp.asarray(g))


def test_leave_one_out_alpha_by_layer_and_of_some_of_the_sample():
    g = {"a": jnp.asarray(draw(1, 9)), "b": jnp.asarray(draw(2, 9, 3))}
    named = metrics.alpha_without(g, by="leaf")
    for name, values in g.items():
        expected = [
            reference.alpha(np.delete(np.asarray(values, np.float64), i, 0)) for i in range(9)
        ]
        np.testing.assert_allclose(named[name], expected, rtol=1e-4)
    some = jax.tree.map(lambda x: np.asarray(x)[2:5], g)
    np.testing.assert_allclose(
        metrics.alpha_without(some, pooled=metrics.pool(g)),
        np.asarray(metrics.alpha_without(g))[2:5],
        rtol=1e-6,
    )


def test_shares_are_the_papers_f_and_its_null_worlds_are_about_the_share_of_examples():
    g, corrupt = draw(4, 40), np.arange(40) < 10
    total, of = g.sum(0), lambda keep: g[keep].sum(0)
    expected = [total @ of(~corrupt) / (total @ total), total @ of(corrupt) / (total @ total)]
    np.testing.assert_allclose(metrics.shares(jnp.asarray(g), corrupt), expected, rtol=1e-4)
    worlds = metrics.null_shares(jnp.asarray(g), corrupt, jax.random.key(0), permutations=400)
    worlds = np.asarray(worlds)
    np.testing.assert_allclose(worlds.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(worlds.mean(0), [0.75, 0.25], atol=4 * np.std(worlds[:, 0]) / 20)
    assert np.std(worlds[:, 0]) > 0.005
    pulls = metrics.pulls(jnp.asarray(g), corrupt)
    np.testing.assert_allclose(pulls[1], np.mean(g[corrupt] @ g.mean(0)), rtol=1e-4)
    np.testing.assert_allclose(pulls[0], np.mean(g[~corrupt] @ g.mean(0)), rtol=1e-4)


def test_masked_examples_are_in_no_world_and_no_group():
    loss, params, (x, y) = zoo.dense()
    m = len(x)
    mask, groups = np.arange(m) % 4 != 1, np.arange(m) % 3
    kept = np.flatnonzero(mask)
    value_and_grad = jax.jit(co.per_example_value_and_grad(loss))
    _, masked = value_and_grad(params, (x, y), mask)
    _, fewer = value_and_grad(params, (np.asarray(x)[kept], np.asarray(y)[kept]))
    for metric in (
        metrics.norm_test,
        metrics.inner_product_test,
        metrics.orthogonality_test,
        metrics.noise_scale,
    ):
        np.testing.assert_allclose(metric(masked), metric(fewer), rtol=1e-3)
    for metric in (metrics.shares, metrics.pulls):
        np.testing.assert_allclose(
            metric(masked, groups, num_groups=3),
            metric(fewer, groups[kept], num_groups=3),
            rtol=1e-4,
        )
    np.testing.assert_allclose(
        np.asarray(metrics.contributions(masked))[kept],
        metrics.contributions(fewer),
        rtol=1e-3,
        atol=1e-4,
    )
    without = np.asarray(metrics.alpha_without(masked))
    np.testing.assert_allclose(without[kept], metrics.alpha_without(fewer), rtol=1e-3)
    assert np.isnan(np.delete(without, kept)).all()
    # only labels of kept examples are permuted, all of them, and only among these
    plain = np.asarray(metrics.contributions(fewer))
    labels = np.full(m, 2)
    labels[kept[:2]], labels[kept[2:]] = 1, 0
    worlds = metrics.null_shares(masked, labels, jax.random.key(1), num_groups=3, permutations=200)
    worlds = np.asarray(worlds)
    possible = (plain[:, None] + plain)[np.triu_indices(len(kept), 1)] / plain.sum()
    nearest = np.abs(worlds[:, 1:2] - possible).argmin(1)
    np.testing.assert_allclose(worlds[:, 1], possible[nearest], atol=1e-5)
    np.testing.assert_allclose(worlds[:, 2], 0, atol=1e-6)
    assert len(set(nearest.tolist())) == len(possible)
    # one group is everything that is kept: every world gives it the whole step
    alone = np.where(mask, 0, 1)
    worlds = metrics.null_shares(masked, alone, jax.random.key(0), num_groups=2, permutations=5)
    np.testing.assert_allclose(worlds, [[1, 0]] * 5, atol=1e-5)
