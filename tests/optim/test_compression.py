"""Compressed gradients of workers: nothing is lost with feedback, and what is sent is as said."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coherence.lab.settings import Aggregators, parse
from coherence.optim import average, chain, compressed, largest, rounded, scaled_sign

COMPRESSORS = (scaled_sign(), largest(0.3), rounded(3))


def batches(steps=6, m=7):
    return np.random.default_rng(0).normal(size=(steps, m, 5)).astype(np.float32)


@pytest.mark.parametrize("compressor", COMPRESSORS, ids=repr)
def test_with_feedback_updates_add_up_to_the_means_but_for_what_is_owed(compressor):
    tx = compressed(compressor, workers=3)
    params = {"w": jnp.zeros(5)}
    state, total = tx.init(params), 0.0
    for g in batches():
        update, state = tx.update({"w": jnp.asarray(g)}, state, params)
        total = total + update["w"]
    owed = np.tensordot([3 / 7, 2 / 7, 2 / 7], state["w"], 1)
    np.testing.assert_allclose(total + owed, batches().mean(1).sum(0), rtol=1e-4, atol=1e-5)
    assert np.abs(owed).max() > 0.01


@pytest.mark.parametrize("compressor", COMPRESSORS, ids=repr)
def test_without_feedback_every_step_is_the_first(compressor):
    tx = compressed(compressor, workers=2, feedback=False)
    state, g = tx.init(jnp.zeros(5)), jnp.asarray(batches()[0])
    first, state = tx.update(g, state)
    np.testing.assert_array_equal(first, tx.update(g, state)[0])
    assert jax.tree.leaves(state) == []


def test_all_coordinates_of_however_many_workers_are_the_mean():
    g = jnp.asarray(batches()[0])
    for workers in (3, 9):
        tx = compressed(largest(1.0), workers)
        np.testing.assert_allclose(tx.update(g, tx.init(jnp.zeros(5)))[0], g.mean(0), rtol=1e-5)


def test_more_bits_are_nearer():
    p = jnp.asarray(batches()[0, 0])
    errors = [float(jnp.abs(rounded(bits).compress(p) - p).max()) for bits in (2, 4, 8, 16)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-4
    assert not rounded(8).compress(jnp.zeros(3)).any()


def test_bits_are_counted():
    assert scaled_sign().bits(1000) == 1032
    assert rounded(8).bits(1000) == 8032
    assert largest(0.01).bits(1000) == 10 * (32 + 10)
    assert largest(0.01).bits(1) == 33


def test_ties_keep_exactly_as_many():
    assert np.count_nonzero(largest(0.4).compress(jnp.ones(10))) == 4


def test_signs_with_feedback_come_nearer_to_a_minimum_than_without():
    """Karimireddy et al.'s point: without, one loud coordinate drowns the others' signs."""
    target = jnp.array([1.0, -0.5, 0.25, 100.0])
    ends = {}
    for feedback in (False, True):
        tx = chain(compressed(scaled_sign(), 1, feedback), optax.sgd(0.05))

        def step(carry, _, tx=tx):
            w, state = carry
            update, state = tx.update((w - target)[None], state)
            return (w + update, state), None

        (w, _), _ = jax.lax.scan(step, (jnp.zeros(4), tx.init(jnp.zeros(4))), None, 400)
        ends[feedback] = float(jnp.linalg.norm(w - target))
    assert ends[True] < ends[False] / 2


def test_compressors_are_settings_within_settings():
    setting = parse("compressed(largest(share=0.1), workers=2)", Aggregators)
    assert repr(setting.build()) == "compressed(largest(share=0.1), workers=2, feedback=True)"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: largest(0.0), r"largest\(share\): in \(0, 1\], got 0.0"),
        (lambda: rounded(1), r"rounded\(bits\): a whole number from 2 to 16, got 1"),
        (lambda: compressed(rounded(), 0), r"compressed\(workers\): .* at least 1, got 0"),
        (
            lambda: compressed(rounded()).init(None),
            r"compressed\(rounded\(bits=8\), .*\)\.init\(params\) needs the parameters, got None",
        ),
    ],
)
def test_impossible_numbers_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_only_compressors_compress():
    with pytest.raises(TypeError, match=r"scaled_sign\(\), largest\(share\) or rounded\(bits\)"):
        compressed(average())
