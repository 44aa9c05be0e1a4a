"""Stiffness: the definitions in loops over pairs, landmarks, and what it shares with alpha."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence.metrics.stiffness import cosine_stiffness, sign_stiffness, stiffness_by_group
from tests import reference, zoo

SIMPLEX = np.eye(5) - 1 / 5  # five directions that all conflict
LABELS = np.array([0, 2, 0, 1, -1, 2, 2, 0, 2, 5])


def draw(seed, m=10, p=7, shift=0.3):
    """Gradients of very different lengths; the fourth is zero."""
    rng = np.random.default_rng(seed)
    g = (rng.normal(size=(m, p)) + shift) * np.exp(2 * rng.normal(size=(m, 1)))
    g[3] = 0
    return g


@pytest.mark.parametrize("seed", range(3))
def test_stiffness_is_the_mean_over_pairs_of_different_examples(seed):
    g = draw(seed)
    np.testing.assert_allclose(
        sign_stiffness(jnp.asarray(g)), reference.stiffness(g, reference.sign), rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(
        cosine_stiffness(jnp.asarray(g)),
        reference.stiffness(g, reference.cosine),
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("g", "sign", "cosine"), [(np.ones((6, 2)), 1, 1), (np.eye(6), 0, 0), (SIMPLEX, -1, -1 / 4)]
)
def test_landmarks(g, sign, cosine):
    np.testing.assert_allclose(sign_stiffness(jnp.asarray(g)), sign, atol=1e-6)
    np.testing.assert_allclose(cosine_stiffness(jnp.asarray(g)), cosine, atol=1e-6)


def test_the_length_of_a_gradient_does_not_count():
    g, lengths = draw(0), np.exp(np.random.default_rng(1).normal(size=(10, 1)))
    np.testing.assert_allclose(
        cosine_stiffness(jnp.asarray(g * lengths)), cosine_stiffness(jnp.asarray(g)), rtol=1e-5
    )
    np.testing.assert_allclose(
        sign_stiffness(jnp.asarray(g * lengths)), sign_stiffness(jnp.asarray(g))
    )


def test_with_equal_lengths_cosine_stiffness_is_alpha_without_its_floor():
    g = np.delete(draw(2), 3, 0)
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    np.testing.assert_allclose(
        1 / 9 + (1 - 1 / 9) * cosine_stiffness(jnp.asarray(g)), co.alpha(jnp.asarray(g)), rtol=1e-5
    )
    np.testing.assert_allclose(
        cosine_stiffness(jnp.asarray(g)), co.metrics.alpha_unbiased(jnp.asarray(g)), rtol=1e-5
    )


@pytest.mark.parametrize("kind", ["cosine", "sign"])
def test_the_class_stiffness_matrix_is_the_one_of_the_definition(kind):
    g = draw(0)
    found = stiffness_by_group(jnp.asarray(g), LABELS, num_groups=4, kind=kind)
    expected = reference.class_stiffness(g, LABELS, 4, getattr(reference, kind))
    assert np.isnan(expected[0][1]).all()  # its only example has no direction
    assert np.isnan(expected[0][3]).all()  # empty
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_every_group_weighs_the_same_however_large():
    g = jnp.concatenate([jnp.ones((6, 1)), jnp.array([[1.0], [-1.0]])])
    found = stiffness_by_group(g, jnp.arange(8) >= 6)
    np.testing.assert_allclose(found.matrix, [[1, 0], [0, -1]], atol=1e-6)
    np.testing.assert_allclose([found.within, found.between], [0, 0], atol=1e-6)


def test_train_test_stiffness_is_a_block_of_the_concatenated_batch():
    train, test = draw(0), draw(1, m=4)[:3]
    found = stiffness_by_group(
        jnp.asarray(np.concatenate([train, test])), np.arange(13) >= 10, kind="sign"
    )
    across = np.mean([reference.sign(a, b) for a in np.delete(train, 3, 0) for b in test])
    np.testing.assert_allclose(found.matrix[0, 1], across, rtol=1e-5)
    np.testing.assert_allclose(found.between, across, rtol=1e-5)


def test_factors_and_masks_give_what_rows_of_the_kept_examples_give():
    loss, params, batch = zoo.dense()
    keep = np.array([True, False, True, True, False, True])
    g = reference.flat(reference.gradients(loss, params, batch))[keep]
    groups = np.array([0, 0, 1, 0, 1, 1])

    @jax.jit
    def measured(params, batch, keep):
        _, gradients = co.per_example_value_and_grad(loss)(params, batch, keep)
        return (
            sign_stiffness(gradients),
            cosine_stiffness(gradients),
            stiffness_by_group(gradients, groups, num_groups=2),
        )

    sign, cosine, by_group = measured(params, batch, keep)
    np.testing.assert_allclose(sign, reference.stiffness(g, reference.sign), rtol=1e-5)
    np.testing.assert_allclose(cosine, reference.stiffness(g, reference.cosine), rtol=1e-4)
    for one, other in zip(
        by_group, reference.class_stiffness(g, groups[keep], 2, reference.cosine)
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4)


def test_where_no_pair_has_directions_there_is_no_stiffness():
    one_direction = jnp.zeros((3, 2)).at[1].set(1)
    assert np.isnan(sign_stiffness(one_direction))
    assert np.isnan(cosine_stiffness(one_direction))
    assert np.isnan(stiffness_by_group(one_direction, jnp.arange(3) > 0).between)


def test_a_diverged_run_shows():
    g = jnp.ones((3, 2)).at[1, 0].set(jnp.nan)
    assert np.isnan(sign_stiffness(g))
    assert np.isnan(cosine_stiffness(g))
    found = stiffness_by_group(g, jnp.array([0, 0, 1]), num_groups=2)
    assert np.isnan(found.within)
    assert np.isnan(found.between)


def test_impossible_requests_are_refused():
    g = jnp.ones((4, 2))
    with pytest.raises(
        ValueError, match='stiffness_by_group\\(kind\\): "cosine" or "sign", got \'angle\''
    ):
        stiffness_by_group(g, jnp.zeros(4, bool), kind="angle")
    with pytest.raises(ValueError, match="sign_stiffness needs at least 2 examples, got 1"):
        sign_stiffness(g[:1])
    with pytest.raises(ValueError, match="cosine_stiffness needs at least 2 examples, got 1"):
        cosine_stiffness(g[:1])
    with pytest.raises(ValueError, match="stiffness_by_group needs at least 2 examples, got 1"):
        stiffness_by_group(g[:1], jnp.zeros(1, bool))
    with pytest.raises(ValueError, match="int groups need num_groups, how many there are"):
        stiffness_by_group(g, jnp.zeros(4, int))
