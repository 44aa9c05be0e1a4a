"""The alpha family: its definition in numpy loops, landmarks, and the paper's six properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import coherence as co
from tests import reference, zoo

IDENTICAL = np.ones((12, 5))
ORTHOGONAL = np.diag(np.arange(1.0, 13))
THREE_COPIES_OF_FOUR = np.repeat(np.eye(4), 3, 0)
CANCELLING = np.concatenate([np.eye(6), -np.eye(6)])


def draw(seed, m=10, p=7, shift=0.3):
    return np.random.default_rng(seed).normal(size=(m, p)) + shift


@pytest.mark.parametrize(
    ("g", "helped"), [(IDENTICAL, 12), (ORTHOGONAL, 1), (THREE_COPIES_OF_FOUR, 3), (CANCELLING, 0)]
)
def test_m_coherence_counts_the_examples_one_gradient_helps(g, helped):
    np.testing.assert_allclose(co.m_coherence(jnp.asarray(g)), helped, atol=1e-5)
    np.testing.assert_allclose(co.alpha(jnp.asarray(g)), helped / 12, atol=1e-6)
    np.testing.assert_allclose(
        co.metrics.alpha_unbiased(jnp.asarray(g)), (helped - 1) / 11, atol=1e-6
    )


@pytest.mark.parametrize("seed", range(3))
def test_alpha_is_the_ratio_the_paper_defines(seed):
    g = draw(seed)
    np.testing.assert_allclose(co.alpha(jnp.asarray(g)), reference.alpha(g), rtol=1e-5)
    np.testing.assert_allclose(
        co.metrics.alpha_unbiased(jnp.asarray(g)), reference.alpha_unbiased(g), rtol=1e-4, atol=1e-6
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([-3.0, 1e-3, 50.0]))
def test_property_1_alpha_is_bounded_and_has_no_scale(seed, k):
    g = draw(seed, shift=np.random.default_rng(seed).normal())
    a = float(co.alpha(jnp.asarray(g)))
    assert 0 <= a <= 1 + 1e-6
    np.testing.assert_allclose(co.alpha(jnp.asarray(k * g)), a, rtol=1e-5)


@pytest.mark.parametrize("k", [2, 5])
def test_property_2_batches_of_k_amplify_alpha(k):
    """Draws of k with replacement from a finite set, exactly: through the first two moments."""
    g = draw(0)
    a, mean, square = reference.alpha(g), g.mean(0), (g**2).sum(1).mean()
    batch_square = square / k + (1 - 1 / k) * mean @ mean
    np.testing.assert_allclose(mean @ mean / batch_square, k * a / (1 + (k - 1) * a))
    rng = np.random.default_rng(1)
    batches = g[rng.integers(0, len(g), (40_000, k))].mean(1)
    np.testing.assert_allclose(co.alpha(jnp.asarray(batches)), k * a / (1 + (k - 1) * a), rtol=0.03)


def test_property_3_zero_gradients_dilute_alpha():
    g = draw(0)
    np.testing.assert_allclose(
        co.alpha(jnp.asarray(np.concatenate([g, np.zeros((30, 7))]))),
        0.25 * reference.alpha(g),
        rtol=1e-5,
    )


@pytest.mark.parametrize("seed", range(5))
def test_property_4_orthogonal_groups_are_no_more_coherent_than_their_average(seed):
    u, v = draw(seed, 6), draw(seed + 50, 4)
    mixed = np.block([[u, np.zeros((6, 7))], [np.zeros((4, 7)), v]])
    assert (
        co.alpha(jnp.asarray(mixed)) <= 0.6 * reference.alpha(u) + 0.4 * reference.alpha(v) + 1e-6
    )


@pytest.mark.parametrize("seed", range(5))
def test_property_5_coherent_gradients_are_close_together(seed):
    g = draw(seed, shift=1.0)
    distance = np.mean([np.linalg.norm(a - b) for a in g for b in g])
    assert distance <= np.sqrt(2 * (1 - float(co.alpha(jnp.asarray(g)))) * (g**2).sum(1).mean()) * (
        1 + 1e-5
    )


def test_property_6_layers_recombine_to_the_whole():
    loss, params, batch = zoo.siamese()
    _, gradients = co.per_example_value_and_grad(loss)(params, batch)
    by_leaf = co.alpha(gradients, by="leaf")
    truth = reference.gradients(loss, params, batch)
    share = {name: (truth[name] ** 2).sum() for name in truth}
    whole = sum(share[name] * by_leaf[name] for name in truth) / sum(share.values())
    np.testing.assert_allclose(co.alpha(gradients), whole, rtol=1e-5)


def test_groups_are_measured_as_if_alone():
    loss, params, batch = zoo.dense()
    _, gradients = co.per_example_value_and_grad(loss)(params, batch)
    corrupt = np.array([False, True, False, True, True, False])
    g = reference.flat(reference.gradients(loss, params, batch))
    expected = [reference.alpha(g[~corrupt]), reference.alpha(g[corrupt])]
    np.testing.assert_allclose(co.alpha(gradients, groups=corrupt), expected, rtol=1e-5)
    np.testing.assert_allclose(
        co.m_coherence(gradients, groups=corrupt), 3 * np.array(expected), rtol=1e-5
    )
    both = co.alpha(gradients, by="leaf", groups=corrupt)
    np.testing.assert_allclose(both["w"][1], reference.alpha(g[corrupt][:, 3:]), rtol=1e-5)


def test_an_empty_group_is_nan_and_an_example_may_be_in_no_group():
    g = draw(0, 4)
    by_label = co.alpha(jnp.asarray(g), groups=jnp.array([0, 0, 2, -1]), num_groups=3)
    np.testing.assert_allclose(by_label, [reference.alpha(g[:2]), np.nan, 1.0], rtol=1e-5)


def test_moments_of_steps_pool_before_they_divide():
    steps = [draw(seed) * 10**seed for seed in range(3)]
    found = [co.metrics.moments(jnp.asarray(g)) for g in steps]
    pooled = sum(one.squared_norm_of_mean for one in found) / sum(
        one.mean_squared_norm for one in found
    )
    by_hand = sum(g.mean(0) @ g.mean(0) for g in steps) / sum((g**2).sum(1).mean() for g in steps)
    np.testing.assert_allclose(pooled, by_hand, rtol=1e-5)


def test_layers_are_named_after_where_their_parameters_live():
    names = lambda tree: list(co.alpha(jax.tree.map(lambda x: jnp.ones((2, x)), tree), by="layer"))
    assert names({"params": {"dense": {"kernel": 3, "bias": 1}, "out": {"w": 1}}}) == [
        "dense",
        "out",
    ]
    assert names({"w": 2}) == ["w"]
    assert names(3) == ["all"]
    assert list(co.alpha({"params": {"a": {"b": jnp.ones((2, 1))}}}, by="leaf")) == ["params/a/b"]


def test_bad_groups_are_refused():
    g = jnp.ones((4, 2))
    with pytest.raises(
        ValueError, match=r"groups must have one entry an example, \[4\], got \[3\]"
    ):
        co.alpha(g, groups=jnp.zeros(3, bool))
    with pytest.raises(ValueError, match="int groups need num_groups, how many there are"):
        co.alpha(g, groups=jnp.zeros(4, int))
    with pytest.raises(ValueError, match="groups must be bool or int, got float32"):
        co.alpha(g, groups=jnp.zeros(4), num_groups=2)
    with pytest.raises(ValueError, match="alpha_unbiased needs at least 2 examples, got 1"):
        co.metrics.alpha_unbiased(g[:1])
