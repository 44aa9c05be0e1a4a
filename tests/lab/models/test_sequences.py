"""Networks over sequences: one or many, no look into the future, order matters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.lab.models import LSTM, RNN, Transformer

SMALL = Transformer(vocabulary=11, length=6, width=8, depth=2, heads=2)


def test_a_text_alone_and_in_a_batch_has_the_same_logits():
    text = jnp.arange(12).reshape(2, 6) % 11
    params = SMALL.init(jax.random.key(0), text)
    together = SMALL.apply(params, text)
    assert together.shape == (2, 6, 11)
    np.testing.assert_allclose(together[1], SMALL.apply(params, text[1]), rtol=1e-4, atol=1e-5)


def test_no_position_sees_what_follows_it():
    text = jnp.arange(6)
    params = SMALL.init(jax.random.key(0), text)
    changed = SMALL.apply(params, text.at[4].set(9)) - SMALL.apply(params, text)
    assert abs(changed[:4]).max() == 0
    assert abs(changed[4:]).max(1).min() > 1e-3


def test_a_tied_embedding_has_no_second_table():
    tables = lambda model: [
        p.shape
        for p in jax.tree.leaves(model.init(jax.random.key(0), jnp.arange(6)))
        if 11 in p.shape and p.ndim == 2
    ]
    assert tables(SMALL) == [(11, 8)]
    assert sorted(tables(SMALL.clone(tied=False))) == [(8, 11), (11, 8)]


@pytest.mark.parametrize("model", [LSTM(width=5), RNN(width=5)])
def test_a_recurrent_network_reads_in_order(model):
    x = jax.random.normal(jax.random.key(1), (2, 7, 3))
    params = jax.jit(model.init)(jax.random.key(0), x)
    assert abs(model.apply(params, x) - model.apply(params, x[:, ::-1])).max() > 1e-3


def test_plain_recurrent_units_are_a_loop_of_tanh():
    model, x = (
        RNN(width=5, depth=2),
        np.asarray(jax.random.normal(jax.random.key(1), (7, 3)), np.float64),
    )
    params = model.init(jax.random.key(0), x)
    for layer in range(2):
        cell = jax.tree.map(np.float64, params["params"][f"rnn_{layer}"])
        h, states = np.zeros(5), []
        for row in x:
            h = np.tanh(row @ cell["i"]["kernel"] + cell["i"]["bias"] + h @ cell["h"]["kernel"])
            states.append(h)
        x = np.stack(states)
    output = params["params"]["output"]
    np.testing.assert_allclose(
        model.apply(params, jax.random.normal(jax.random.key(1), (7, 3))),
        h @ output["kernel"] + output["bias"],
        rtol=1e-4,
        atol=1e-5,
    )
