"""Background forces reach the closed forms of the six-feature sets."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coherence.optim import average, chain, l1_decay, l2_decay, soft_threshold

Y = jnp.array([1.0, -1.0, -1.0, 1.0])
PRIVATE = jnp.concatenate([jnp.diag(Y), jnp.zeros((4, 1))], 1)
LEARNABLE = jnp.concatenate([PRIVATE, Y[:, None]], 1)  # feature 6 is the label
MEMORIZABLE = jnp.concatenate([PRIVATE, jnp.zeros((4, 1))], 1)


def train(tx, x, steps=800):
    """From zero, on the per-example gradients of (x . w - y)^2 / 2."""
    params = jnp.zeros(6)

    def step(carry, _):
        w, state = carry
        updates, state = tx.update((x @ w - Y)[:, None] * x, state, w)
        return (optax.apply_updates(w, updates), state), None

    return jax.jit(lambda: jax.lax.scan(step, (params, tx.init(params)), length=steps)[0][0])()


@pytest.mark.parametrize(("rate", "shared", "private"), [(0.3, 0.7, 0.0), (0.9, 0.1, 0.0)])
def test_l1_leaves_only_what_is_shared(rate, shared, private):
    w = train(chain(average(), optax.sgd(0.1), soft_threshold(0.1 * rate)), LEARNABLE)
    np.testing.assert_allclose(w, [private] * 5 + [shared], atol=1e-5)
    assert np.all(np.asarray(w[:5]) == 0)  # exactly


@pytest.mark.parametrize(("rate", "private"), [(0.1, 0.6), (0.2, 0.2), (0.3, 0.0), (0.9, 0.0)])
def test_l1_memorizes_nothing_from_a_quarter_on(rate, private):
    w = train(chain(average(), optax.sgd(0.1), soft_threshold(0.1 * rate)), MEMORIZABLE)
    np.testing.assert_allclose(w, [private] * 4 + [0.0, 0.0], atol=1e-5)


def test_l1_decay_is_the_same_force_but_jitters():
    w = train(chain(average(), l1_decay(0.3), optax.sgd(0.01)), LEARNABLE, steps=3000)
    np.testing.assert_allclose(w, [0, 0, 0, 0, 0, 0.7], atol=0.01)


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_l2_shrinks_private_and_shared_alike(rate):
    tx = chain(average(), l2_decay(rate), optax.sgd(0.1))
    w = train(tx, LEARNABLE)
    np.testing.assert_allclose(
        w, [1 / (5 + 4 * rate)] * 4 + [0.0, 4 / (5 + 4 * rate)], rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        train(tx, MEMORIZABLE), [1 / (1 + 4 * rate)] * 4 + [0.0, 0.0], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_thresholded_weights_are_exactly_zero_whatever_the_rounding(dtype):
    rng = np.random.default_rng(0)
    w = jnp.asarray(rng.normal(size=1000), dtype)
    u = jnp.asarray(rng.normal(size=1000) / 3, dtype)
    tx = soft_threshold(0.5)
    new = optax.apply_updates(w, tx.update(u, tx.init(w), w)[0])
    there = np.asarray(w + u, np.float64)
    np.testing.assert_array_equal(np.asarray(new == 0), np.abs(there) <= 0.5)
    expected = np.sign(there) * np.maximum(np.abs(there) - 0.5, 0)
    np.testing.assert_allclose(
        np.asarray(new, np.float64), expected, atol=0.02 if dtype == jnp.bfloat16 else 1e-6
    )
    assert new.dtype == dtype


def test_a_nan_is_not_thresholded_away():
    tx = soft_threshold(0.5)
    assert jnp.isnan(tx.update(jnp.array(jnp.nan), tx.init(0.0), jnp.zeros(()))[0])


def test_a_scheduled_threshold_follows_its_steps():
    tx = soft_threshold(lambda count: 0.1 * count)
    w, state, seen = jnp.ones(1), tx.init(jnp.ones(1)), []
    for _ in range(3):
        updates, state = tx.update(jnp.zeros(1), state, w)
        w = optax.apply_updates(w, updates)
        seen.append(w.item())
    np.testing.assert_allclose(seen, [1.0, 0.9, 0.7], rtol=1e-6)


@pytest.mark.parametrize("force", [l1_decay, l2_decay])
def test_a_scheduled_pull_follows_its_steps(force):
    tx = chain(average(), force(lambda count: 0.1 * count), optax.sgd(1.0))
    w, state, pulls = jnp.ones(1), tx.init(jnp.ones(1)), []
    for _ in range(4):
        updates, state = tx.update(jnp.zeros((2, 1)), state, w)
        pulls.append(updates.item())
    np.testing.assert_allclose(pulls, [0, -0.1, -0.2, -0.3], rtol=1e-6)
    with pytest.raises(ValueError, match="weight decay behind the learning rate"):
        chain(average(), optax.sgd(1.0), force(lambda count: 0.1 * count))


@pytest.mark.parametrize("force", [l1_decay, l2_decay, soft_threshold])
def test_a_rate_may_be_injected_while_tracing(force):
    tx = optax.inject_hyperparams(force)(rate=0.5)
    step = jax.jit(lambda state: tx.update(jnp.zeros(1), state, jnp.ones(1))[0])
    np.testing.assert_allclose(np.abs(step(tx.init(jnp.ones(1)))), [0.5])


@pytest.mark.parametrize("force", [l1_decay, l2_decay, soft_threshold])
def test_masked_leaves_feel_no_pull(force):
    params = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
    tx = force(0.25, mask={"kernel": True, "bias": False})
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(np.abs(updates["kernel"]), [0.25, 0.25])
    np.testing.assert_array_equal(updates["bias"], [0.0, 0.0])


@pytest.mark.parametrize(
    ("force", "name"),
    [(l1_decay, "l1_decay"), (l2_decay, "l2_decay"), (soft_threshold, "soft_threshold")],
)
def test_negative_rates_are_refused(force, name):
    for rate in (-1, np.float32(-1), np.int64(-1), jnp.float32(-1)):
        with pytest.raises(
            ValueError, match=rf"{name}\(rate\): rate is a pull toward zero, at least 0, got -1"
        ):
            force(rate)
    for rate in ("much", None, True, np.ones(2)):
        with pytest.raises(
            TypeError, match=rf"{name}\(rate\): a number, at least 0, or a schedule, got "
        ):
            force(rate)


@pytest.mark.parametrize(
    ("tx", "name"), [(l1_decay(0.1), "l1_decay"), (soft_threshold(0.1), "soft_threshold")]
)
def test_forces_need_the_parameters(tx, name):
    with pytest.raises(
        ValueError,
        match=rf"{name} acts on the parameters: pass them, update\(gradients, state, params\)\.",
    ):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
