"""Which layers and coordinates of the mean gradient are kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.optim import average, coherence_mask, coordinate_mask, top_k
from coherence.trees import leaf

SHARED, PRIVATE = jnp.ones((4, 3)), jnp.eye(4)  # m-coherence 4 and 1


def kept(tx, g, params=None):
    """The paths of what is not zero."""
    update, _ = tx.update(g, tx.init(params), params)
    return {leaf(path) for path, x in jax.tree.leaves_with_path(update) if np.any(x)}


def test_layers_are_kept_whole_above_the_threshold():
    g = {"first": {"w": SHARED, "b": 0.1 * PRIVATE}, "second": {"w": PRIVATE}}  # first: 3.9 by far
    assert kept(coherence_mask(0.9), g) == {"first/w", "first/b", "second/w"}
    assert kept(coherence_mask(1.0), g) == {"first/w", "first/b"}  # above it, not at it
    assert kept(coherence_mask(1.0, by=leaf), g) == {"first/w"}
    assert kept(coherence_mask(4.0), g) == set()
    assert kept(coherence_mask(1.0, by=lambda path: "all"), g) == {"first/w", "first/b", "second/w"}


def test_what_is_kept_is_the_mean_and_a_nan_is_not_hidden():
    g = {
        "a": {"w": SHARED},
        "b": {"w": SHARED.at[0, 1].set(jnp.nan)},
        "c": {"w": jnp.zeros((4, 2))},
    }
    update = coherence_mask(1.0).update(g, None)[0]
    np.testing.assert_array_equal(update["a"]["w"], 1)
    np.testing.assert_array_equal(np.isnan(update["b"]["w"]), [False, True, False])
    np.testing.assert_array_equal(update["c"]["w"], 0)


def test_a_coordinate_counts_the_examples_that_share_it():
    g = jnp.array(
        [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, -1.0], [1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    )
    for threshold in (0, 0.5, 1.5, 2.5, 3.5):
        update = coordinate_mask(threshold).update(g, None)[0]
        np.testing.assert_array_equal(update != 0, np.array([4, 3, 2, 0]) > threshold)


def test_a_coordinate_at_the_threshold_is_dropped():
    g = jnp.array([[1.0, 1.0], [1.0, 0.0]])  # coherences of 2 and 1, without rounding
    for threshold, expected in ((2, [False, False]), (1, [True, False]), (0.9, [True, True])):
        np.testing.assert_array_equal(coordinate_mask(threshold).update(g, None)[0] != 0, expected)


def test_exactly_k_are_kept_and_of_equals_the_first():
    g = {"a": jnp.ones((2, 2, 3)), "b": 2 * jnp.ones((2, 2)), "c": jnp.ones((2, 2))}
    for share, k in ((0.1, 1), (0.2, 2), (0.21, 3), (0.5, 5), (0.7, 7), (0.71, 8), (1.0, 10)):
        update = top_k(share).update(g, top_k(share).init(None))[0]
        flat = np.concatenate([update["b"], update["a"].ravel(), update["c"]]) != 0
        np.testing.assert_array_equal(flat, np.arange(10) < k)


@pytest.mark.parametrize("by_coherence", [False, True])
def test_all_of_them_are_the_mean_and_a_nan_stays(by_coherence):
    g = jnp.asarray(np.random.default_rng(0).normal(size=(5, 20)), jnp.float32)
    tx = top_k(1.0, by_coherence=by_coherence)
    np.testing.assert_array_equal(tx.update(g, tx.init(None))[0], average().update(g, None)[0])
    tx = top_k(0.05, by_coherence=by_coherence)
    assert np.isnan(tx.update(g.at[3, 7].set(jnp.nan), tx.init(None))[0]).tolist() == [
        i == 7 for i in range(20)
    ]


@pytest.mark.parametrize("by_coherence", [False, True])
def test_scores_are_compared_in_their_own_precision(by_coherence):
    with jax.enable_x64(True):
        a, b = np.float64(1) + 1e-12, 1.0  # equal in float32, and then the first of them
        g = {"a": jnp.array([[b], [b]]), "b": jnp.array([[a], [a]])}
        if by_coherence:  # 2 a^2 / (a^2 + b^2), just below 2
            g = {"a": jnp.array([[1.0], [1 - 1e-5]]), "b": jnp.array([[1.0], [1 - 0.9e-5]])}
        assert kept(top_k(0.5, by_coherence=by_coherence), g) == {"b"}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_leaves_of_unlike_dtypes_compete(dtype):
    g = {"a": jnp.full((2, 2), 2, dtype), "b": jnp.array([[1.0, 3.0]] * 2)}
    assert kept(top_k(0.25), g) == {"b"}
    assert kept(top_k(0.75), g) == {"a", "b"}


@pytest.mark.parametrize("by_coherence", [False, True])
def test_a_nan_with_a_sign_stays_too(by_coherence):
    g = jnp.ones((3, 20)).at[1, 7].set(jnp.inf).at[2, 7].set(-jnp.inf)  # inf - inf is -nan on x86
    tx = top_k(0.05, by_coherence=by_coherence)
    assert np.flatnonzero(np.isnan(tx.update(g, tx.init(None))[0])).tolist() == [7]


def test_coherence_ranks_what_is_shared_above_what_is_large():
    g = jnp.array([[1.0, 30.0], [1.0, 0.0], [1.0, 0.0]])
    for by_coherence, place in ((True, 0), (False, 1)):
        tx = top_k(0.5, by_coherence=by_coherence)
        assert np.flatnonzero(tx.update(g, tx.init(None))[0]).tolist() == [place]


def test_a_batch_gradient_has_magnitudes_but_no_coherence():
    params = jnp.zeros(2)
    tx = top_k(0.5)
    np.testing.assert_array_equal(
        tx.update(jnp.array([-3.0, 1.0]), tx.init(params), params)[0], [-3, 0]
    )
    with pytest.raises(
        ValueError,
        match=r"top_k\(share=0\.5, by_coherence=True\) needs per-example gradients, got a batch",
    ):
        top_k(0.5, by_coherence=True).update(params, None, params)


@pytest.mark.parametrize("share", [0, -0.5, 1.5, float("nan"), "0.5"])
def test_shares_are_above_zero(share):
    with pytest.raises(
        ValueError,
        match=rf"top_k\(share\): share is of the coordinates, in \(0, 1\], got {share!r}\.",
    ):
        top_k(share)


@pytest.mark.parametrize("method", [coherence_mask, coordinate_mask])
@pytest.mark.parametrize("threshold", [-1, float("nan")])
def test_thresholds_are_coherences(method, threshold):
    said = rf"{method.__name__}\(threshold\): .* an m-coherence .*, at least 0, got {threshold}\."
    with pytest.raises(ValueError, match=said):
        method(threshold)
