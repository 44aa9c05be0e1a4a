"""Noise and its removal, by hand and by Bayes' rule; the loss of one example and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence.lab.models import DenoisingMLP, UNet
from coherence.lab.tasks import ddim, noise_prediction_error, noised, sampler
from coherence.lab.tasks.noise_schedules import NoiseSchedule, cosine_schedule, linear_schedule
from tests import reference

THREE = NoiseSchedule((0.1, 0.2, 0.5))
MODELS = {
    "MLP": DenoisingMLP(8, 2, (3,), classes=4, embedding=6),
    "U-Net": UNet(4, 2, (4, 4, 1), classes=4, embedding=6),
}
Y = jnp.array([0, 3, 3, 1])
KEYS = jax.random.split(jax.random.key(1), 4)


def made(name):
    model = MODELS[name]
    x = jax.random.normal(jax.random.key(0), (4, *model.shape))
    return model, jax.jit(model.init)(jax.random.key(2), x, Y, Y), x


def test_what_is_left_of_the_data_by_hand():
    np.testing.assert_allclose(THREE.abar, [0.9, 0.72, 0.36])
    assert linear_schedule().abar[-1] == pytest.approx(0.002, rel=0.1)
    cosine = cosine_schedule(100)
    assert cosine.abar[49] == pytest.approx(0.5, abs=0.02)
    assert (np.diff(cosine.abar) < 0).all()
    assert cosine.abar[-1] < 1e-3
    x, noise = np.array([3.0, -1.0]), np.array([1.0, 2.0])
    np.testing.assert_allclose(noised(x, noise, 0.36), [0.6 * 3 + 0.8, -0.6 + 1.6], rtol=1e-6)


@pytest.mark.parametrize("t", [1, 2])
def test_the_posterior_mean_is_bayes_rule(t):
    """The mean of x_{t-1}: both normal distributions' means, weighted by their precisions."""
    x, x_t, beta, before = 1.5, -0.7, THREE.betas[t], THREE.abar[t - 1]
    step, prior = (1 - beta) / beta, 1 / (1 - before)  # precisions about x_{t-1}
    mean = (step * x_t / np.sqrt(1 - beta) + prior * np.sqrt(before) * x) / (step + prior)
    assert THREE.posterior_mean(x, x_t, t) == pytest.approx(mean, rel=1e-12)
    assert THREE.posterior_mean(x, x_t, 0) == pytest.approx(x)


def test_steps_are_spaced_evenly_from_the_most_noise():
    schedule = linear_schedule(200)
    assert schedule.spaced(4).tolist() == [199, 149, 99, 49]
    assert schedule.spaced(1).tolist() == [199]
    assert schedule.spaced(200).tolist() == list(range(199, -1, -1))
    assert linear_schedule(10).spaced(4).tolist() == [9, 7, 4, 2]


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_with_the_true_noise_ddim_returns_the_example(steps):
    schedule = linear_schedule(50)
    x, noise = jax.random.normal(jax.random.key(3), (2, 4, 3))
    start = noised(x, noise, schedule.abar[-1])
    abar = jnp.asarray(schedule.abar, jnp.float32)
    true = lambda x_t, t: (x_t - jnp.sqrt(abar[t]) * x) / jnp.sqrt(1 - abar[t])
    np.testing.assert_allclose(ddim(true, schedule, steps, start), x, atol=2e-5)
    np.testing.assert_allclose(true(start, 49), noise, atol=1e-6)


def test_ddim_is_the_loop_one_would_write_by_hand():
    predict = lambda x, t: 0.3 * x + 0.01 * t
    x = start = np.array([1.0, -2.0])
    for t, after in ((2, 1), (1, 0), (0, None)):
        guess, left = predict(x, t), THREE.abar[t]
        clean = (x - np.sqrt(1 - left) * guess) / np.sqrt(left)
        left = 1.0 if after is None else THREE.abar[after]
        x = np.sqrt(left) * clean + np.sqrt(1 - left) * guess
    np.testing.assert_allclose(ddim(predict, THREE, 3, jnp.asarray(start)), x, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_per_example_gradients_are_those_of_one_example_at_a_time_and_every_leaf_is_fast(name):
    model, params, x = made(name)
    loss = noise_prediction_error(model, linear_schedule(20), label_dropout=0.5)
    batch = (x, Y, KEYS)
    rows = jax.jit(
        lambda p: co.gradients.materialize(co.per_example_value_and_grad(loss)(p, batch)[1])
    )
    looped = jax.jit(jax.grad(loss))
    each = [looped(params, jax.tree.map(lambda leaf, i=i: leaf[i], batch)) for i in range(4)]
    g = np.concatenate([reference.flat(jax.tree.map(lambda leaf: leaf[None], one)) for one in each])
    difference = np.linalg.norm(reference.flat(rows(params)) - g, axis=1)
    assert (difference < 1e-6 * np.linalg.norm(g, axis=1)).all()
    _, nodes = jax.eval_shape(co.per_example_value_and_grad(loss), params, batch)
    slow = lambda node: isinstance(node, co.gradients.Recomputed)
    assert not any(map(slow, jax.tree.leaves(nodes, is_leaf=slow)))  # and warnings are errors


def test_the_loss_is_the_mean_squared_error_of_the_noise_at_a_level_of_the_keys():
    class Reports:  # predicts nothing; the loss is the noise's mean square
        classes = 4

        def apply(self, params, x, t, *labels):
            return jnp.zeros_like(x) + params * (t + 100 * sum(labels))

    schedule, x = linear_schedule(4), jnp.ones(5)
    loss = noise_prediction_error(Reports(), schedule, label_dropout=0.25)
    square = jax.vmap(lambda key: loss(0.0, (x, 1, key)))(jax.random.split(KEYS[0], 4000))
    assert np.mean(square) == pytest.approx(1, abs=4 * np.sqrt(2 / 5 / 4000))
    # With a huge weight the mean square is that of what was told: the level, and 100 or 400.
    told = jnp.sqrt(jax.vmap(lambda key: loss(1e6, (x, 1, key)))(jax.random.split(KEYS[1], 4000)))
    level, label = np.round(told / 1e6) % 100, np.round(told / 1e6) // 100
    assert np.bincount(level.astype(int)) / 4000 == pytest.approx([0.25] * 4, abs=0.03)
    assert np.unique(label).tolist() == [1, 4]
    assert np.mean(label == 4) == pytest.approx(0.25, abs=0.03)
    given = noise_prediction_error(Reports(), schedule, label_dropout=0, levels="given")
    assert given(1e6, (x, 1, 3, KEYS[0])) == pytest.approx(103e6**2, rel=1e-4)


def test_guidance_goes_beyond_the_prediction_for_the_label():
    model, params, _ = made("MLP")
    noise = jax.random.normal(jax.random.key(5), (4, 3))
    abar = THREE.abar[-1]
    with_label, without = (model.apply(params, noise, jnp.full(4, 2), *y) for y in ((Y,), ()))
    for guidance in (0.0, 2.0):
        guess = with_label + guidance * (with_label - without)
        expected = (noise - np.sqrt(1 - abar) * guess) / np.sqrt(abar)
        draw = sampler(model, THREE, steps=1, guidance=guidance)
        np.testing.assert_allclose(draw(params, noise, Y), expected, rtol=1e-4, atol=1e-5)
    assert sampler(model, THREE, steps=3)(params, noise).shape == (4, 3)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda model, p, x: sampler(model, THREE, steps=4), "from 1 to the 3 levels .* got 4"),
        (
            lambda model, p, x: sampler(DenoisingMLP(), THREE, steps=1, guidance=1.0),
            r"sampler\(guidance=1\): guidance is toward a label, and the network has classes=0",
        ),
        (
            lambda model, p, x: sampler(model, THREE, steps=1, guidance=1.0)(p, x),
            r"guidance=1\): guidance is toward a label: sample\(params, noise, labels\)",
        ),
        (
            lambda model, p, x: sampler(model, THREE, steps=1)(p, x, [0, 1, 4, 2]),
            r"labels: integers from 0 to 3, got \[0, 1, 2, 4\]",
        ),
        (
            lambda model, p, x: sampler(model, THREE, steps=1)(p, x, [0, 1]),
            r"labels: one an example, 4 of them, got shape \(2,\)",
        ),
        (
            lambda model, p, x: sampler(DenoisingMLP(), THREE, steps=1)(p, x, Y),
            "labels were given to a network with classes=0",
        ),
        (lambda *_: noise_prediction_error(None, THREE, label_dropout=2), "in \\[0, 1\\], got 2"),
        (
            lambda *_: noise_prediction_error(None, THREE, levels="all"),
            "levels is drawn or given, got 'all'",
        ),
        (lambda *_: NoiseSchedule((0.1, 1.0)), r"NoiseSchedule\(betas\): .* each in \(0, 1\)"),
    ],
)
def test_what_cannot_be_is_refused(call, said):
    model, params, x = made("MLP")
    with pytest.raises(ValueError, match=said):
        call(model, params, x)
