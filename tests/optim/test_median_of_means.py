"""The median of means: groups by position, by drawn permutations, by consecutive batches."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coherence.checks import check_aggregator, properties
from coherence.gradients import Factored, Stacked, per_example_value_and_grad
from coherence.optim import average, chain, median, median_of_means
from tests.optim.twins import middle_of_groups


def random(*shape, seed=0):
    return jax.device_put(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def update_of(tx, g):
    """One update of a method without a memory."""
    return jax.jit(lambda g: tx.update(g, tx.init(None))[0])(g)


def updates(tx, gradients, params):
    """The updates of successive steps."""
    state, step = tx.init(params), jax.jit(tx.update)
    for g in gradients:
        update, state = step(g, state, params)
        yield np.asarray(update)


def test_one_group_is_the_mean_and_as_many_as_examples_the_median():
    g = random(7, 9)
    np.testing.assert_allclose(update_of(median_of_means(1), g), update_of(average(), g), rtol=1e-6)
    for groups in (7, 100):
        np.testing.assert_array_equal(update_of(median_of_means(groups), g), update_of(median(), g))


@pytest.mark.parametrize("seed", [None, 0])
def test_masked_examples_leave_no_gap(seed):
    g, tx = np.asarray(random(20, 9)), median_of_means(3, seed=seed)
    state, update = tx.init(None), jax.jit(lambda g, state: tx.update(g, state)[0])
    rng = np.random.default_rng(0)
    for kept in (20, 11, 4, 2):
        keep = np.isin(np.arange(20), rng.choice(20, kept, replace=False))
        masked = Stacked(g * keep[:, None], keep)
        np.testing.assert_allclose(
            update(masked, state), update(g[keep], state), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("infinite", [0, 3, 11])  # the first and the last that count, and a middle
def test_an_infinity_spoils_its_own_group_also_with_a_mask(seed, infinite):
    g = np.asarray(random(12, 4)).copy()
    keep = np.arange(12) % 5 != 2
    g[infinite, 1] = np.inf
    tx = median_of_means(3, seed=seed)
    update = jax.jit(lambda g: tx.update(g, tx.init(None))[0])
    masked = Stacked(g * keep[:, None], keep)
    np.testing.assert_allclose(update(masked), update(g[keep]), rtol=1e-5, atol=1e-6)


def test_an_infinite_layer_behind_a_mask_is_one_of_three_groups():
    """In factors: the infinite input of one example, not zero times infinity in the others."""
    x = np.asarray(random(9, 70)).copy()
    x[1, 3] = np.inf
    keep = jnp.arange(9) != 4
    params = random(70, 60, seed=1)
    linear = lambda w, x: jnp.sum((x @ w) * jnp.arange(1.0, 61.0))
    _, masked = jax.jit(per_example_value_and_grad(linear))(params, x, keep)
    assert isinstance(masked, Factored)
    result = jax.jit(lambda g: median_of_means(3).update(g, None)[0])(masked)
    expected = middle_of_groups(x[np.asarray(keep)], 3)[:, None] * np.arange(1.0, 61.0)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_of_no_examples_at_all_it_is_nan():
    nobody = Stacked(jnp.zeros((5, 2)), jnp.zeros(5, bool))
    assert np.isnan(update_of(median_of_means(3), nobody)).all()
    assert np.isnan(update_of(average(), nobody)).all()


def test_drawn_groups_are_all_partitions_sooner_or_later():
    g = jnp.array([[0.0], [1.0], [10.0], [100.0]])  # in groups of 2, 1 and 1
    possible = {
        round(middle_of_groups(np.asarray(g)[list(order)], 3).item(), 2)
        for order in itertools.permutations(range(4))
    }
    seen = {round(u.item(), 2) for u in updates(median_of_means(3, seed=0), [g] * 60, jnp.zeros(1))}
    assert len(possible) > 3
    assert seen == possible


def test_draws_follow_from_the_seed():
    g = random(30, 4)
    run = lambda seed: np.stack(list(updates(median_of_means(3, seed=seed), [g] * 2, jnp.zeros(4))))
    np.testing.assert_array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))


def test_drawn_groups_fit_in_where_other_aggregators_do():
    kept = (properties.odd, properties.unanimous, properties.separable, properties.breakdown(0.05))
    check = check_aggregator(median_of_means(3, seed=0), properties=kept)
    assert check.ok, check


def test_replicas_draw_from_their_own_keys():
    g, tx = random(12, 4), median_of_means(3, seed=0)
    data = lambda seed: jax.random.key_data(jax.random.key(seed))
    states = jax.vmap(lambda seed: tx.init(None)._replace(key=data(seed)))(jnp.arange(3))
    update = jax.jit(lambda state: tx.update(g, state)[0])
    both = jax.jit(jax.vmap(update))(states)
    for i in range(3):
        state = median_of_means(3, seed=i).init(None)
        np.testing.assert_allclose(both[i], update(state), rtol=1e-6)
    assert not np.array_equal(both[0], both[1])


@pytest.mark.parametrize("per_example", [True, False])
def test_three_consecutive_batches_are_three_groups_of_a_batch_three_times_as_large(per_example):
    g, params = random(6, 8, 5), jnp.zeros(5)
    batches = list(g) if per_example else list(g.mean(1))
    got = list(updates(median_of_means(3, consecutive=True), batches, params))
    for i in (0, 1, 3, 4):
        np.testing.assert_array_equal(got[i], 0)
    for i in (2, 5):
        np.testing.assert_allclose(
            got[i],
            update_of(median_of_means(3), np.asarray(g)[i - 2 : i + 1].reshape(24, 5)),
            rtol=1e-5,
            atol=1e-7,
        )


@pytest.mark.parametrize("how", [{}, {"seed": 0}, {"consecutive": True}])
def test_scanned_steps_are_steps(how):
    tx = chain(median_of_means(3, **how), optax.sgd(0.1))
    g, start = random(7, 9, 4), jnp.zeros(4)

    def step(carry, g):
        params, state = carry
        change, state = tx.update(g - params, state, params)
        return (optax.apply_updates(params, change), state), None

    scanned = jax.jit(lambda: jax.lax.scan(step, (start, tx.init(start)), g)[0][0])()
    carry = start, tx.init(start)
    once = jax.jit(lambda carry, g: step(carry, g)[0])
    for one in np.asarray(g):
        carry = once(carry, one)
    np.testing.assert_allclose(scanned, carry[0], rtol=1e-5)


@pytest.mark.parametrize("groups", [0, -3, 2.5, "3", None])
def test_groups_are_a_whole_number(groups):
    with pytest.raises(
        ValueError,
        match=rf"median_of_means\(groups\): groups is a whole number, at least 1, got {groups!r}\.",
    ):
        median_of_means(groups)


def test_consecutive_batches_have_no_order_to_draw():
    with pytest.raises(
        ValueError,
        match=r"median_of_means: consecutive batches have no order to draw, got seed=0. Leave",
    ):
        median_of_means(3, seed=0, consecutive=True)


def test_consecutive_batches_need_the_parameters_to_begin_with():
    with pytest.raises(
        ValueError,
        match=r"median_of_means\(groups=3, .*=True\)\.init\(params\) needs the parameters, got",
    ):
        median_of_means(3, consecutive=True).init(None)


def test_three_means_of_a_wide_layer_are_compared_without_a_loop_over_parts():
    """By parts it took three and a half times as long as a step of SGD."""

    def step(w, x):
        loss = lambda w, x: jnp.sum(jnp.square(x @ w))
        _, g = per_example_value_and_grad(loss)(w, x)
        return median_of_means(3).update(g, median_of_means(3).init(w))[0]

    w, x = jnp.zeros((1000, 600)), jnp.zeros((12, 1000))
    assert "while(" not in jax.jit(step).lower(w, x).compile().as_text()
