"""Contrastive divergence as a loss of one example, and what is exact of small machines."""

import functools
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence.lab.models import RBM
from coherence.lab.tasks import boltzmann
from tests import reference

MACHINE = RBM(6, 4, 3)
X = np.array(list(product([0, 1], repeat=6)), np.float32)


def parameters(model=MACHINE, scale=1.0):
    blank = jnp.zeros(model.visible + model.classes)
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: np.float32(scale * rng.normal(size=leaf.shape)),
        jax.eval_shape(model.init, jax.random.key(0), blank),
    )


def examples(model, m=7):
    rng = np.random.default_rng(1)
    x = (rng.random((m, model.visible)) < 0.4).astype(np.float32)
    labels = (np.arange(m) % model.classes,) if model.classes else ()
    return x, *labels, np.asarray(jax.random.key_data(jax.random.split(jax.random.key(2), m)))


def free_energies(model=MACHINE, params=None):
    """Of all states, [x, label], by numpy."""
    own = (params or parameters(model))["params"]
    logits = X @ own["kernel"] + own["hidden_bias"]
    logits = logits[:, None] + own["label_kernel"]
    scores = (X @ own["bias"])[:, None] + own["label_bias"]
    return -scores - np.logaddexp(0, logits).sum(-1)


@pytest.mark.parametrize("model", [MACHINE, RBM(6, 4)], ids=["labels", "no labels"])
@pytest.mark.parametrize("k", [1, 5])
def test_every_leaf_is_on_a_fast_rule_and_exact(model, k):
    params, batch = parameters(model), examples(model)
    loss = boltzmann.contrastive_divergence(model, k)
    _, gradients = jax.jit(co.per_example_value_and_grad(loss))(params, batch)
    kinds = co.gradients.Factored | co.gradients.Stacked | co.gradients.Recomputed
    nodes = jax.tree.leaves(gradients, is_leaf=lambda x: isinstance(x, kinds))
    assert not any(isinstance(node, co.gradients.Recomputed) for node in nodes)
    ours, slow = co.gradients.materialize(gradients), reference.gradients(loss, params, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), ours, slow)


def test_the_gradient_is_that_of_two_free_energies_with_the_draws_held():
    params, (x, y, keys) = parameters(), examples(MACHINE)
    sweep = jax.jit(boltzmann.sweeps(MACHINE, 2))
    drawn = np.stack([sweep(params, MACHINE.joined(a, b), key) for a, b, key in zip(x, y, keys)])
    moving = boltzmann.contrastive_divergence(MACHINE, 2)
    held = boltzmann.against_chain(MACHINE)

    @functools.partial(jax.jit, static_argnums=0)
    def mean(loss, batch, params):
        return jax.grad(lambda p: jnp.mean(jax.vmap(loss, (None, 0))(p, batch)))(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        mean(moving, (x, y, keys), params),
        mean(held, (x, y, drawn), params),
    )
    v = MACHINE.joined(x, y)
    ask = jax.jit(lambda v: MACHINE.apply(params, v, method="hidden_logits"))
    hidden = lambda v: jax.nn.sigmoid(ask(v))
    by_hand = (drawn[:, :6].T @ hidden(drawn) - v[:, :6].T @ hidden(v)) / len(x)
    ours = mean(moving, (x, y, keys), params)["params"]["kernel"]
    np.testing.assert_allclose(ours, by_hand, rtol=1e-5, atol=1e-6)


def test_log_z_is_the_sum_over_all_states():
    exact = np.logaddexp.reduce(-free_energies().ravel())
    assert boltzmann.log_partition(MACHINE)(parameters()) == pytest.approx(exact, rel=1e-6)


def test_log_z_of_more_units_than_are_held_at_once_is_that_of_the_transposed_machine():
    """Hidden and visible units change places: 14 of one kind, 3 of the other."""
    wide, tall = RBM(3, 14), RBM(14, 3)
    own = parameters(wide)["params"]
    turned = {
        "kernel": own["kernel"].T,
        "bias": own["hidden_bias"],
        "hidden_bias": own["bias"],
    }
    assert boltzmann.log_partition(wide)({"params": own}) == pytest.approx(
        float(boltzmann.log_partition(tall)({"params": turned})), rel=1e-6
    )


def test_the_gradient_of_the_likelihood_is_positive_minus_negative_phase():
    params, (x, y, _) = parameters(), examples(MACHINE)
    v = MACHINE.joined(x, y)
    everything = np.array([[*x, *label] for x in X for label in np.eye(3)], np.float32)
    p = np.exp(-free_energies().ravel())
    p /= p.sum()
    free = lambda params, v, p: p @ MACHINE.apply(params, v, method="free_energy")
    free_gradient = jax.jit(jax.grad(free))
    positive = free_gradient(params, v, np.full(len(v), np.float32(1 / len(v))))
    negative = free_gradient(params, everything, np.float32(p))
    exact = jax.jit(jax.grad(boltzmann.log_likelihood(MACHINE)))(params, v)
    jax.tree.map(
        lambda e, a, b: np.testing.assert_allclose(e, b - a, rtol=1e-4, atol=1e-5),
        exact,
        positive,
        negative,
    )


def test_annealed_importance_sampling_is_within_a_tenth_of_a_nat_on_16_hidden_units():
    model = RBM(20, 16, 4)
    params = parameters(model, scale=0.7)
    exact = boltzmann.log_partition(model)(params)
    estimate = jax.jit(boltzmann.annealed_log_partition(model, temperatures=300, chains=100))
    estimates = [float(estimate(params, jax.random.key(seed))) for seed in range(3)]
    assert np.abs(np.array(estimates) - exact).max() < 0.1, (exact, estimates)
    none = jax.tree.map(jnp.zeros_like, params)  # without weights nothing is estimated
    assert estimate(none, jax.random.key(0)) == pytest.approx(36 * np.log(2) + np.log(4), rel=1e-5)


def test_the_pseudo_likelihood_flips_every_unit():
    params, (x, y, _) = parameters(), examples(MACHINE, 3)
    F = jax.jit(lambda v: MACHINE.apply(params, v, method="free_energy"))
    ours = jax.jit(boltzmann.log_pseudo_likelihood(MACHINE))
    flipped = lambda v, i: np.where(np.arange(len(v)) == i, 1 - v, v)
    for image, label in zip(x, y):
        v = np.asarray(MACHINE.joined(image, label))
        pixels = sum(-np.logaddexp(0, F(v) - F(flipped(v, i))) for i in range(6))
        labels = np.array([-F(np.asarray(MACHINE.joined(image, k))) for k in range(3)])
        slow = pixels + labels[label] - np.logaddexp.reduce(labels)
        assert ours(params, v) == pytest.approx(slow, rel=1e-4)


def test_draws_of_a_label_are_as_frequent_as_they_are_probable():
    params, m = parameters(), 2000
    joint = np.exp(-free_energies())  # [x, label]
    p = (joint / joint.sum(0)).T
    x = boltzmann.conditional_draws(MACHINE, 30)(
        params, np.repeat([0, 2], m // 2), jax.random.key(0)
    )
    numbers = np.asarray(x, int) @ 2 ** np.arange(6)[::-1]
    for label, drawn in zip((0, 2), np.split(numbers, 2)):
        seen = np.bincount(drawn, minlength=64) / len(drawn)
        variation = np.abs(seen - p).sum(1) / 2
        assert variation[label] < 0.1
        assert variation.argmin() == label
    with pytest.raises(ValueError, match=r"conditional_draws\(labels\): from 0 to 2, got 3"):
        boltzmann.conditional_draws(MACHINE)(params, [0, 3], jax.random.key(0))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: boltzmann.contrastive_divergence(MACHINE, 0), r"\(k\): at least 1 sweep.*got 0"),
        (lambda: boltzmann.conditional_draws(RBM(6, 4)), "no label to hold; give it classes=10"),
        (lambda: boltzmann.log_partition(RBM(6, 21)), r"2\^21 states .* at most 20.*annealed_log"),
        (
            lambda: boltzmann.annealed_log_partition(MACHINE, chains=0),
            "temperatures and chains are at least 1, got temperatures=1000, chains=0",
        ),
    ],
)
def test_impossible_requests_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
