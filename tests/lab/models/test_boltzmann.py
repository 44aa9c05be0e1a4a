"""Restricted Boltzmann machines against every state of a small one."""

import functools
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.lab.models import RBM

VISIBLE, HIDDEN, CLASSES = 6, 4, 3
MACHINE = RBM(VISIBLE, HIDDEN, CLASSES)
X = np.array(list(product([0, 1], repeat=VISIBLE)), float)
H = np.array(list(product([0, 1], repeat=HIDDEN)), float)
V = np.array([[*x, *label] for x in X for label in np.eye(CLASSES)])


def parameters(model=MACHINE, seed=0, scale=1.0):
    """Far from the start, so that nothing is nearly independent."""
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros(model.visible + model.classes))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: np.float32(scale * rng.normal(size=leaf.shape)), params)


def ask(method, *arguments, model=MACHINE):
    arguments = [jnp.asarray(x, jnp.float32) for x in arguments]
    params = parameters(model)
    return np.asarray(_compiled(model, method)(params, *arguments), np.float64)


@functools.cache
def _compiled(model, method):
    return jax.jit(functools.partial(model.apply, method=method))


def joint():
    """p(v, h) of every state, [v, h], by the definition."""
    own = {name: np.asarray(leaf, float) for name, leaf in parameters()["params"].items()}
    weights = np.concatenate([own["kernel"], own["label_kernel"]])
    bias = np.concatenate([own["bias"], own["label_bias"]])
    energy = np.array(
        [[-bias @ v - own["hidden_bias"] @ h - v @ weights @ h for h in H] for v in V]
    )
    table = np.exp(-energy)
    return table / table.sum(), energy


def test_the_energy_is_that_of_the_definition():
    every = [ask("energy", V, np.broadcast_to(h, (len(V), HIDDEN))) for h in H]
    np.testing.assert_allclose(np.stack(every, 1), joint()[1], rtol=1e-5, atol=1e-5)


def test_the_free_energy_sums_the_hidden_units_out():
    weights = np.exp(-ask("free_energy", V))
    np.testing.assert_allclose(weights / weights.sum(), joint()[0].sum(1), rtol=1e-4)


def test_units_of_a_layer_have_the_enumerated_probabilities_given_the_other():
    p = joint()[0]
    given_v = p @ H / p.sum(1, keepdims=True)
    np.testing.assert_allclose(jax.nn.sigmoid(ask("hidden_logits", V)), given_v, rtol=1e-4)
    given_h = p.T @ V / p.sum(0)[:, None]
    logits = ask("visible_logits", H)
    np.testing.assert_allclose(jax.nn.sigmoid(logits[:, :VISIBLE]), given_h[:, :VISIBLE], rtol=1e-4)
    np.testing.assert_allclose(jax.nn.softmax(logits[:, VISIBLE:]), given_h[:, VISIBLE:], rtol=1e-4)


def test_the_probability_of_a_label_is_the_enumerated_one():
    p = joint()[0].sum(1).reshape(len(X), CLASSES)
    scores = ask("label_logits", X)
    np.testing.assert_allclose(jax.nn.softmax(scores), p / p.sum(1, keepdims=True), rtol=1e-4)
    each = -ask("free_energy", V).reshape(len(X), CLASSES)
    np.testing.assert_allclose(scores, each, rtol=1e-5, atol=1e-5)


def test_sweeps_visit_states_as_often_as_they_are_probable():
    params, chains, sweeps = parameters(), 1000, 60
    start = jnp.asarray(np.repeat(V[1:2], chains, 0), jnp.float32)

    @jax.jit
    def run(keys):
        sweep = jax.vmap(lambda v, key: MACHINE.apply(params, v, key, method="gibbs"))

        def together(v, key):
            v = sweep(v, jax.random.split(key, chains))
            return v, v

        return jax.lax.scan(together, start, keys)[1]

    visited = np.asarray(run(jax.random.split(jax.random.key(3), sweeps)), int)[10:]
    assert (visited[..., VISIBLE:].sum(-1) == 1).all()  # one label at a time
    numbers = visited[..., :VISIBLE] @ 2 ** np.arange(VISIBLE)[::-1]
    numbers = numbers * CLASSES + visited[..., VISIBLE:].argmax(-1)
    seen = np.bincount(numbers.ravel(), minlength=len(V)) / numbers.size
    p = joint()[0].sum(1)
    assert np.abs(seen - p).sum() / 2 < 0.02  # total variation


def test_a_machine_without_labels_models_x_alone():
    model = RBM(VISIBLE, HIDDEN)
    params = parameters(model)
    assert set(params["params"]) == {"kernel", "bias", "hidden_bias"}
    weights = np.exp(-ask("free_energy", X, model=model))
    states = [
        np.exp(-ask("energy", X, np.broadcast_to(h, (len(X), HIDDEN)), model=model)) for h in H
    ]
    np.testing.assert_allclose(weights, np.sum(states, 0), rtol=1e-4)
    assert model.describe() == "RBM 6-4"
    assert MACHINE.describe() == "RBM 6-4, 3 classes"


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match=r"RBM: visible is at least 1, .* got visible=6, hidden=0"):
        RBM(6, 0)
