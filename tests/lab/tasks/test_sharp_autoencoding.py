"""Reconstruction by squares, features and patches: by hand, and whose gradients are whose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence.lab.models import SpatialVAE
from coherence.lab.sample_quality import DigitClassifier
from coherence.lab.tasks import sharp_terms
from coherence.lab.tasks.sharp_autoencoding import features_of
from coherence.lab.training import SharpAutoencoding
from tests import reference

MODEL = SpatialVAE(width=2, latents=4, shape=(4, 4, 1), patches=2)
X = jax.random.uniform(jax.random.key(0), (3, 4, 4, 1))
KEYS = jax.random.split(jax.random.key(1), 3)
PARAMS = jax.jit(MODEL.init)(jax.random.key(2), X)
RNG = np.random.default_rng(0)
CLASSIFIER = DigitClassifier(
    (RNG.normal(size=(16, 5)), RNG.normal(size=(5, 2))), (RNG.normal(size=5), np.zeros(2))
)
FEATURES = features_of(CLASSIFIER.weights, CLASSIFIER.biases)
WEIGHTS = {"factor": 3.0, "perceptual": 0.5, "adversarial": 2.0}
TERMS = sharp_terms(MODEL, FEATURES, **WEIGHTS)


def test_features_are_the_classifiers():
    expected = CLASSIFIER.features(np.asarray(X))
    np.testing.assert_allclose(jax.vmap(FEATURES)(X), expected, rtol=1e-5)


def test_the_terms_by_hand():
    x, key = X[0], KEYS[0]
    mu, log_var = MODEL.apply(PARAMS, x, method="encode")
    z = mu + jax.random.normal(key, (4,)) * jnp.exp(log_var / 2)
    drawn = MODEL.apply(PARAMS, z, method="decode")
    judged = [np.asarray(MODEL.apply(PARAMS, i, method="discriminate")) for i in (drawn, x)]
    softplus = lambda v: np.log1p(np.exp(v))
    squared = np.square(np.asarray(drawn - x)).sum()
    felt = np.square(np.diff(CLASSIFIER.features(np.stack([drawn, x])), axis=0)).sum()
    fooled = softplus(-judged[0]).mean()
    told = softplus(-judged[1]).mean() + softplus(judged[0]).mean()
    kl = -0.5 * np.sum(1 + log_var - mu**2 - np.exp(log_var))
    total = 3 * (squared + 0.5 * felt + 2 * fooled) + kl + told
    expected = [squared, felt, fooled, kl, told, total]
    np.testing.assert_allclose(TERMS(PARAMS, (x, key)), expected, rtol=1e-4)


def test_either_player_has_the_gradient_of_its_own_loss():
    gradient = lambda of: jax.grad(lambda p: of(TERMS(p, (X[0], KEYS[0]))))(PARAMS)["params"]
    whole, told = jax.jit(
        lambda: (gradient(lambda t: t.total), gradient(lambda t: t.discriminator))
    )()
    for part in ("encoder", "decoder"):
        assert not any(leaf.any() for leaf in jax.tree.leaves(told[part]))  # exactly
        assert any(leaf.any() for leaf in jax.tree.leaves(whole[part]))
    for a, b in zip(*map(jax.tree.leaves, (whole["discriminator"], told["discriminator"]))):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_per_example_gradients_are_those_of_one_image_at_a_time_and_every_leaf_is_fast():
    loss = lambda params, example: TERMS(params, example).total
    rows = jax.jit(
        lambda p: co.gradients.materialize(co.per_example_value_and_grad(loss)(p, (X, KEYS))[1])
    )
    looped = jax.jit(jax.grad(loss))
    each = [looped(PARAMS, (X[i], KEYS[i])) for i in range(3)]
    g = np.concatenate([reference.flat(jax.tree.map(lambda leaf: leaf[None], one)) for one in each])
    difference = np.linalg.norm(reference.flat(rows(PARAMS)) - g, axis=1)
    assert (difference < 1e-6 * np.linalg.norm(g, axis=1)).all()
    _, nodes = jax.eval_shape(co.per_example_value_and_grad(loss), PARAMS, (X, KEYS))
    slow = lambda node: isinstance(node, co.gradients.Recomputed)
    assert not any(map(slow, jax.tree.leaves(nodes, is_leaf=slow)))


def test_a_run_records_each_term():
    settings = SharpAutoencoding(model=SharpAutoencoding.model, probes=())
    problem = settings.build(0)
    measured = jax.eval_shape(problem.measure, problem.params, problem.data)
    terms = ("squared", "perceptual", "adversarial", "kl", "discriminator", "loss")
    assert set(measured) == {f"{part}_{term}" for part in ("train", "test") for term in terms}
    assert settings.describe() == (
        "digits (1,437 examples), VAE of 16 channels to 4x4x1 and patches of 16 channels"
    )


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"perceptual": -1.0}, r"at least 0, got 1\.0, -1\.0 and 0\.0"),
        ({"adversarial": 1.0}, r"sharp_terms\(adversarial=1\): the model has no discriminator"),
    ],
)
def test_what_cannot_be_is_refused(weights, said):
    with pytest.raises(ValueError, match=said):
        sharp_terms(SpatialVAE(), FEATURES, **weights)
