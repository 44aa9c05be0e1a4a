"""Votes are counted exactly, also from factors, and thresholds mean what is written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.gradients import Factored, Stacked, per_example_value_and_grad
from coherence.optim import average, sign_agreement, sign_of_sum, sum_of_signs


def votes(ups, downs, silent=0):
    """A coordinate that so many examples want up, down, or do not care about."""
    return jnp.array([[2.0]] * ups + [[-1.0]] * downs + [[0.0]] * silent)


def agreed(threshold, g):
    return sign_agreement(threshold).update(g, None)[0].item()


def test_the_mean_is_kept_from_the_threshold_on():
    assert agreed(0.5, votes(3, 1)) == 1.25
    assert agreed(0.51, votes(3, 1)) == 0
    assert (
        agreed(0.5, votes(1, 3)) == -0.25
    )  # down is as good as up, and the mean may be of the other sign


def test_at_zero_it_is_the_mean_and_at_one_nobody_is_against_or_silent():
    g = jnp.asarray(np.random.default_rng(0).normal(size=(9, 50)), jnp.float32)
    np.testing.assert_array_equal(
        sign_agreement(0).update(g, None)[0], average().update(g, None)[0]
    )
    assert (agreed(1, votes(5, 0)), agreed(1, votes(4, 0, silent=1)), agreed(1, votes(4, 1))) == (
        2,
        0,
        0,
    )


def test_thresholds_are_the_decimals_they_are_written_as():
    hundredths = range(0, 101, 2)  # a coordinate each

    @jax.jit
    def updates(ups):
        """Of as many votes for each coordinate, out of 100."""
        g = jnp.where(jnp.arange(100)[:, None] < ups, 2.0, -1.0)
        coordinates = zip(hundredths, g.T[:, :, None])
        return jnp.stack([sign_agreement(n / 100).update(g, None)[0] for n, g in coordinates])

    leads = 50 + np.array(hundredths) // 2  # in binary 0.14 * 100 is above 14
    assert np.all(updates(leads) != 0)
    assert not np.any(updates(leads - 1)[2:])


def test_of_masked_votes_the_rest_is_the_whole():
    for keep in (np.arange(7) < 3, np.arange(7) < 5):
        g = Stacked(votes(3, 2, 2) * keep[:, None], jnp.asarray(keep))
        assert (agreed(0.6, g) != 0) == (keep.sum() == 3)


def test_votes_from_factors_are_whole_numbers():
    rng = np.random.default_rng(0)
    params = jnp.asarray(rng.normal(size=(30, 40)), jnp.float32)
    batch = jnp.maximum(jnp.asarray(rng.normal(size=(97, 30)), jnp.float32), 0)
    loss = lambda w, x: jnp.sum(jax.nn.relu(x @ w) ** 2)
    _, g = per_example_value_and_grad(loss)(params, batch)
    assert isinstance(g, Factored)
    expected = np.sign(jax.vmap(jax.grad(loss), (None, 0))(params, batch)).sum(0)
    np.testing.assert_array_equal(sum_of_signs().update(g, None)[0], expected)


@pytest.mark.parametrize("m", [3, 20, 21, 64, 129])
@pytest.mark.parametrize("kind", ["integers", "opposites", "a mask"])
def test_a_sum_that_cancels_has_no_sign(m, kind):
    rng = np.random.default_rng(m)
    if kind == "integers":
        g = rng.integers(-3, 4, (m, 300)).astype(np.float32)
    else:  # pairs of opposites of any size, in any order, but for a few columns
        half = (rng.normal(size=(m // 2, 300)) * 10 ** rng.uniform(-3, 3, (m // 2, 300))).astype(
            "f"
        )
        g = np.concatenate([half, -half, np.zeros((m % 2, 300), "f")])
        g[-1, ::7] += np.float32(1)
        g = rng.permuted(g, axis=0)
    expected = np.sign(g.astype(np.float64).sum(0))
    assert set(np.unique(expected)) >= {0, 1}
    if kind == "a mask":
        keep = np.arange(2 * m) % 2 == 0
        g = Stacked(jnp.zeros((2 * m, 300)).at[::2].set(g), jnp.asarray(keep))
    tx = sign_of_sum()
    np.testing.assert_array_equal(tx.update(g, tx.init(None))[0], expected)


def test_cancelling_factors_have_no_sign():
    x = np.random.default_rng(0).normal(size=(10, 70)).astype(np.float32)
    both = jnp.asarray(np.random.default_rng(1).permutation(np.concatenate([x, -x])))
    loss = lambda w, x: jnp.sum((x @ w) * jnp.linspace(0.1, 1, 60))
    _, g = per_example_value_and_grad(loss)(jnp.ones((70, 60)), both)
    assert isinstance(g, Factored)
    np.testing.assert_array_equal(sign_of_sum().update(g, sign_of_sum().init(None))[0], 0)


def test_the_sign_of_huge_and_infinite_sums_is_known():
    g = jnp.array([[3e38, -3e38, 3e38, jnp.inf, 1e-30], [3e38, -3e38, -3e38, 1.0, 1e-30]])
    tx = sign_of_sum()
    np.testing.assert_array_equal(tx.update(g, tx.init(None))[0], [1, -1, 0, 1, 1])


def test_the_sign_of_a_batch_gradient_is_taken_too():
    params = jnp.zeros(3)
    tx = sign_of_sum()
    np.testing.assert_array_equal(
        tx.update(jnp.array([2.0, -3.0, 0.0]), tx.init(params), params)[0], [1, -1, 0]
    )


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), "0.5", None])
def test_thresholds_are_shares(threshold):
    said = (
        rf"sign_agreement\(threshold\): .* share of the examples, in \[0, 1\], got {threshold!r}\."
    )
    with pytest.raises(ValueError, match=said):
        sign_agreement(threshold)
