"""Two players as one loss: whose gradient is whose, on fast rules, as slow loops say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence.lab import data
from coherence.lab.data import ring_means
from coherence.lab.models import GAN
from coherence.lab.tasks import adversarial, adversarial_losses
from coherence.lab.tasks.adversarial import PLAYERS, adversarial_loss, generated, player
from tests import reference

X = jax.random.uniform(jax.random.key(0), (4, 8, 8, 1))
Y = jnp.array([0, 3, 9, 3])
KEYS = jax.random.split(jax.random.PRNGKey(1), 4)  # plain arrays, which numpy can slice
MODEL = GAN(width=6, latents=3)
TOLD = GAN(width=6, latents=3, classes=10)
POINTS = GAN(width=6, depth=1, latents=3, shape=(2,), bounded=False)
CASES = {
    "non-saturating": (MODEL, "non_saturating", (X, KEYS)),
    "saturating, told labels": (TOLD, "saturating", (X, Y, KEYS)),
    "wasserstein, told labels": (TOLD, "wasserstein", (X, Y, KEYS)),
    "points": (POINTS, "non_saturating", (X[:, :2, 0, 0], KEYS)),
}


@functools.cache
def made(name):
    model, objective, batch = CASES[name]
    params = jax.jit(model.init)(jax.random.key(2), *batch[:-1])
    return model, objective, params, batch


def first(batch):
    return tuple(np.asarray(x)[0] for x in batch)


def fake_of(model, params):
    """What the loss generates from the first key."""
    z = jax.random.normal(jax.random.split(KEYS[0])[0], (3,))
    return np.asarray(jax.jit(functools.partial(model.apply, method="generate"))(params, z))


@pytest.mark.parametrize("name", ["non-saturating", "wasserstein, told labels"])
def test_alpha_is_that_of_a_loop_and_no_leaf_is_recomputed(name):
    model, objective, params, batch = made(name)
    loss = adversarial_loss(model, objective)
    fast = co.gradients.Factored | co.gradients.Stacked

    @jax.jit
    def measured(params, batch):  # warnings are errors
        losses, gradients = co.per_example_value_and_grad(loss)(params, batch)
        nodes = jax.tree.leaves(gradients, is_leaf=lambda x: isinstance(x, fast))
        assert all(isinstance(node, fast) for node in nodes)
        return losses, co.alpha(gradients, by=player)

    losses, alphas = measured(params, batch)
    expected, rows = reference.values_and_gradients(loss, params, batch)
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    for name in PLAYERS:
        own = reference.flat({"params": rows["params"][name]})
        mean = own.mean(0)
        alpha = mean @ mean / (own**2).sum(1).mean()
        assert alphas[name] == pytest.approx(alpha, rel=1e-6)


@pytest.mark.parametrize("name", ["saturating, told labels", "wasserstein, told labels"])
def test_neither_loss_moves_the_other_player(name):
    model, objective, params, batch = made(name)
    losses, close = adversarial_losses(model, objective), {"rtol": 1e-6, "atol": 1e-7}

    @jax.jit
    def gradients(params, example):
        of = lambda name: jax.grad(lambda params: getattr(losses(params, example), name))(params)
        return {name: of(name)["params"] for name in (*PLAYERS, "total")}

    by_loss = gradients(params, first(batch))
    for name, other in (PLAYERS, PLAYERS[::-1]):
        own = by_loss[name]
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(own[other]))
        assert any(np.any(leaf) for leaf in jax.tree.leaves(own[name]))
        for leaf, whole in zip(*map(jax.tree.leaves, (own[name], by_loss["total"][name]))):
            np.testing.assert_allclose(leaf, whole, **close)


def test_losses_by_hand():
    model, _, params, batch = made("non-saturating")
    fake = fake_of(model, params)
    assert fake.shape == (8, 8, 1)
    assert 0 <= fake.min() <= fake.max() <= 1
    discriminate = jax.jit(functools.partial(model.apply, method="discriminate"))
    real, false = (float(discriminate(params, x)) for x in (X[0], fake))
    softplus = lambda x: np.log1p(np.exp(x))
    losses = jax.jit(adversarial_losses(model))(params, first(batch))
    assert losses.generator == pytest.approx(softplus(-false), rel=1e-5)
    assert losses.discriminator == pytest.approx(softplus(-real) + softplus(false), rel=1e-5)
    assert losses.total == pytest.approx(losses.generator + losses.discriminator)
    saturating = jax.jit(adversarial_losses(model, "saturating"))(params, first(batch))
    assert saturating.generator == pytest.approx(-softplus(false), rel=1e-5)
    assert saturating.discriminator == losses.discriminator


def test_the_penalty_is_of_the_gradient_by_the_example():
    model, _, params, batch = made("points")
    free, ten = (
        jax.jit(adversarial_losses(model, "wasserstein", penalty=penalty))(params, first(batch))
        for penalty in (0.0, 10.0)
    )
    discriminate = jax.jit(functools.partial(model.apply, method="discriminate"))
    score = lambda x: float(discriminate(params, x))
    fake = fake_of(model, params)
    u, x = float(jax.random.uniform(jax.random.split(KEYS[0])[1])), np.asarray(batch[0][0])
    middle, width = u * x + (1 - u) * fake, 1e-2
    steps = width * np.eye(2, dtype=np.float32)
    slope = [(score(middle + step) - score(middle - step)) / (2 * width) for step in steps]
    assert free.discriminator == pytest.approx(score(fake) - score(x), abs=1e-6)
    expected = 10 * (np.linalg.norm(slope) - 1) ** 2
    assert ten.discriminator - free.discriminator == pytest.approx(expected, rel=1e-2)
    assert free.generator == ten.generator == pytest.approx(-score(fake))


def test_a_flat_discriminator_has_a_penalty_and_no_nan():
    model, _, params, batch = made("points")
    flat = jax.tree.map(np.zeros_like, params)
    penalized = jax.jit(jax.value_and_grad(adversarial_loss(model, "wasserstein")))
    loss, gradient = penalized(flat, first(batch))
    assert loss == pytest.approx(10)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_saturation_by_algebra():
    # dl/dD is -sigma(D) in one, -sigma(-D) in the other: at D = -12 almost 0 and almost -1.
    for score, expected in ((0.0, 1.0), (-12.0, np.exp(-12.0))):
        slopes = [
            jax.grad(lambda d: -jax.nn.softplus(d))(score),
            jax.grad(lambda d: jax.nn.softplus(-d))(score),
        ]
        assert slopes[0] / slopes[1] == pytest.approx(expected, rel=1e-4)


def test_images_are_generated_in_one_pass_as_asked():
    params = made("saturating, told labels")[2]
    images = generated(TOLD, params, KEYS[0], labels=[3, 3, 5])
    assert images.shape == (3, 8, 8, 1)
    assert not np.array_equal(images[0], images[1])
    again = generated(TOLD, params, KEYS[0], labels=[4, 3, 5])
    np.testing.assert_array_equal(images[1:], again[1:])
    assert np.abs(images[0] - again[0]).max() > 0
    assert generated(MODEL, made("non-saturating")[2], KEYS[0], examples=2).shape == (2, 8, 8, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: generated(TOLD, None, KEYS[0], labels=[3, 10]),
            r"labels: integers from 0 to 9, got \[3, 10\] among others",
        ),
        (lambda: generated(TOLD, None, KEYS[0], labels=[-1]), r"integers from 0 to 9, got \[-1\]"),
        (lambda: generated(TOLD, None, KEYS[0], labels=[0.5]), "labels: integers from 0 to 9"),
        (lambda: generated(TOLD, None, KEYS[0], examples=3), "classes=10 give labels"),
        (lambda: generated(MODEL, None, KEYS[0], labels=[3]), "classes=0 give examples"),
        (lambda: generated(MODEL, None, KEYS[0]), "classes=0 give examples"),
        (lambda: adversarial_losses(MODEL, "minimax"), "objective is non_saturating, saturating"),
        (lambda: adversarial_losses(MODEL, penalty=-1), "penalty: .* at least 0, got -1"),
        (lambda: GAN(width=0), "width is at least 1"),
        (lambda: GAN(shape=()), r"shape is an example's, as \(8, 8, 1\) or \(2,\); got \(\)"),
        (lambda: data.gaussian_ring(deviation=0), "a deviation above 0"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_labels_are_asked_for_or_refused():
    with pytest.raises(ValueError, match=r"GAN\(classes=10\) takes a label each, got 0 arrays"):
        TOLD.init(KEYS[0], X)
    with pytest.raises(ValueError, match=r"takes no labels, got 1 arrays .* is \(x, key\)"):
        MODEL.init(KEYS[0], X, Y)


def test_a_ring_has_its_modes_where_they_are_said_to_be():
    ring = data.gaussian_ring(4000, 10, modes=4, radius=3.0, deviation=0.1, seed=1)
    assert ring.x_train.shape == (4000, 2)
    assert ring.classes == ("0", "1", "2", "3")
    np.testing.assert_allclose(ring_means(4, 3.0), [[3, 0], [0, 3], [-3, 0], [0, -3]], atol=1e-12)
    for mode, mean in enumerate(ring_means(4, 3.0)):
        own = ring.x_train[ring.y_train == mode]
        assert len(own) == pytest.approx(1000, abs=120)
        np.testing.assert_allclose(own.mean(0), mean, atol=0.02)
        np.testing.assert_allclose(own.std(0), 0.1, rtol=0.1)
    longer = data.gaussian_ring(4001, 10, modes=4, radius=3.0, deviation=0.1, seed=1)
    np.testing.assert_array_equal(ring.x_test, longer.x_test)


def test_whose_leaf_it_is():
    params = made("non-saturating")[2]
    names = {player(path) for path, _ in jax.tree.leaves_with_path(params)}
    assert names == set(adversarial.PLAYERS)
