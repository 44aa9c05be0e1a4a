"""The loss of one image and its key, its two terms and their scales, and their gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence.lab import data
from coherence.lab.models import AE, VAE, ConditionalVAE, ConvVAE
from coherence.lab.tasks import (
    autoencoding,
    elbo_terms,
    kl_from_standard_normal,
    negative_elbo,
    reconstruction_error,
)
from coherence.trees import layer
from tests import reference

SMALL = {"width": 6, "latents": 2, "shape": (8, 8, 1)}
X = jax.random.uniform(jax.random.key(0), (5, 8, 8, 1))
Y = jnp.array([0, 3, 3, 9, 1])
KEYS = jax.random.split(jax.random.key(1), 5)
MODEL = VAE(**SMALL)
PARAMS = jax.jit(MODEL.init)(jax.random.key(2), X)

LOSSES = {
    "AE": (AE(**SMALL), reconstruction_error, (X,)),
    "VAE": (MODEL, negative_elbo, (X, KEYS)),
    "VAE, logits": (
        VAE(**SMALL, sigmoid=True),
        lambda model: negative_elbo(model, factor=0.3, error="cross_entropy"),
        (X, KEYS),
    ),
    "VAE, sigmoid": (
        VAE(**SMALL, sigmoid=True),
        lambda model: negative_elbo(model, pixels="mean"),
        (X, KEYS),
    ),
    "VAE, plain": (MODEL, lambda model: negative_elbo(model, sampling="plain"), (X, KEYS)),
    "conditional VAE": (ConditionalVAE(**SMALL), negative_elbo, (X, Y, KEYS)),
    "convolutional VAE": (ConvVAE(**{**SMALL, "width": 2}), negative_elbo, (X, KEYS)),
}
FULL_SIZE = {
    "AE": AE(),
    "VAE": VAE(),
    "conditional VAE": ConditionalVAE(),
    "convolutional VAE": ConvVAE(),
}


@functools.cache
def made(name):
    model, task, batch = LOSSES[name]
    images_and_labels = batch[:-1] if len(batch) > 1 else batch
    return task(model), jax.jit(model.init)(jax.random.key(2), *images_and_labels), batch


@pytest.mark.parametrize("name", LOSSES)
def test_per_example_gradients_are_those_of_one_example_at_a_time_with_its_key(name):
    loss, params, batch = made(name)

    @jax.jit
    def ours(params, batch):
        losses, gradients = co.per_example_value_and_grad(loss)(params, batch)
        mean_loss = lambda params: jnp.mean(jax.vmap(loss, (None, 0))(params, batch))
        plain = jax.grad(mean_loss)(params)
        return losses, co.gradients.materialize(gradients), co.mean(gradients), plain

    losses, rows, mean, plain = ours(params, batch)
    one = jax.jit(jax.value_and_grad(loss))
    looped = [one(params, jax.tree.map(lambda x, i=i: x[i], batch)) for i in range(5)]
    np.testing.assert_allclose(losses, [value for value, _ in looped], rtol=1e-5)
    g = np.stack(
        [reference.flat(jax.tree.map(lambda x: np.asarray(x)[None], tree))[0] for _, tree in looped]
    )
    np.testing.assert_allclose(
        reference.flat(rows),
        g,
        rtol=1e-4,
        atol=1e-5 * np.abs(g).max(),
    )
    for a, b in zip(jax.tree.leaves(mean), jax.tree.leaves(plain)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * np.abs(g).max())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("AE", marks=pytest.mark.slow),
        pytest.param("VAE", marks=pytest.mark.slow),
        "conditional VAE",
        "convolutional VAE",
    ],
)
def test_check_loss_finds_nothing_wrong_and_every_leaf_on_a_fast_rule(name):
    check = co.check_loss(*made(name), examples=2)
    assert check.fast_share == 1
    assert check.ok, check


@pytest.mark.parametrize("name", FULL_SIZE)
def test_no_leaf_is_recomputed_at_the_tutorials_size(name):
    model = FULL_SIZE[name]
    loss = reconstruction_error(model) if name == "AE" else negative_elbo(model)
    x, y, keys = (
        jnp.zeros((2, 28, 28, 1)),
        jnp.zeros(2, int),
        jax.random.split(jax.random.key(0), 2),
    )
    labels = (y,) if name == "conditional VAE" else ()
    params = jax.eval_shape(model.init, jax.random.key(0), x, *labels)
    _, nodes = jax.eval_shape(
        co.per_example_value_and_grad(loss), params, (x, *labels, keys)
    )  # warnings are errors
    kinds = jax.tree.map(
        type,
        nodes,
        is_leaf=lambda node: isinstance(
            node, co.gradients.Factored | co.gradients.Stacked | co.gradients.Recomputed
        ),
    )
    assert set(jax.tree.leaves(kinds)) <= {co.gradients.Factored, co.gradients.Stacked}


def test_the_loss_is_factor_times_the_squared_error_plus_the_divergence():

    @jax.jit
    def computed(params, x, key):
        mu, log_var = MODEL.apply(params, x, method="encode")
        z = mu + jax.random.normal(key, (2,)) * jnp.exp(log_var / 2)
        image = MODEL.apply(params, z, method="decode")
        losses = [
            elbo_terms(MODEL, factor=3.0),
            negative_elbo(MODEL, factor=3.0),
            elbo_terms(MODEL, pixels="mean"),
        ]
        return mu, log_var, image, [loss(params, (x, key)) for loss in losses]

    mu, log_var, image, (terms, total, means) = jax.device_get(computed(PARAMS, X[0], KEYS[0]))
    error = np.square(np.asarray(image - X[0], np.float64)).sum()
    divergence = -0.5 * np.sum(1 + log_var - mu**2 - np.exp(log_var))
    np.testing.assert_allclose(terms, [error, divergence, 3 * error + divergence], rtol=1e-5)
    assert total == terms.total
    assert means.reconstruction == pytest.approx(error / 64, rel=1e-4)


def test_cross_entropy_reads_logits():
    model = VAE(**SMALL, sigmoid=True)
    params = jax.tree.map(lambda leaf: 3 * leaf, PARAMS)
    x = np.asarray(X[0], np.float64)
    encode = jax.jit(functools.partial(MODEL.apply, method="encode"))
    decode = jax.jit(functools.partial(model.apply, method="decode"))
    image = np.asarray(decode(params, encode(params, X[0])[0]), np.float64)
    expected = -np.sum(x * np.log(image) + (1 - x) * np.log(1 - image))
    ae = AE(**SMALL, sigmoid=True)
    encoder = {
        name if name != "mu" else "z": layer
        for name, layer in params["params"]["encoder"].items()
        if name != "log_var"
    }
    plain = {"params": {"encoder": encoder, "decoder": params["params"]["decoder"]}}
    loss = jax.jit(reconstruction_error(ae, error="cross_entropy", pixels="sum"))
    np.testing.assert_allclose(loss(plain, X[0]), expected, rtol=1e-4)
    assert loss(plain, (X[0], Y[0], KEYS[0])) == loss(
        plain, X[0]
    )  # what follows the image is not looked at
    np.testing.assert_allclose(
        jax.jit(reconstruction_error(ae))(plain, X[0]), np.square(image - x).mean(), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("mu", "sigma"), [([0.0], [1.0]), ([1.5], [0.3]), ([-2.0, 0.5], [2.0, 1.0])]
)
def test_the_divergence_is_the_mean_log_ratio_of_densities(mu, sigma):
    mu, sigma = np.array(mu), np.array(sigma)
    z = mu + sigma * np.random.default_rng(0).normal(size=(200_000, len(mu)))
    log_ratio = (-np.log(sigma) - ((z - mu) / sigma) ** 2 / 2 + z**2 / 2).sum(1)
    margin = 4 * log_ratio.std() / np.sqrt(len(z))
    assert kl_from_standard_normal(jnp.array(mu), jnp.array(2 * np.log(sigma))) == pytest.approx(
        log_ratio.mean(), abs=margin + 1e-6
    )


def test_the_reconstruction_teaches_the_encoder_only_through_reparametrized_noise():
    parts = lambda sampling: jax.jit(
        jax.grad(lambda p: elbo_terms(MODEL, sampling=sampling)(p, (X[0], KEYS[0])).reconstruction)
    )(PARAMS)["params"]
    plain, reparametrized = parts("plain"), parts("reparametrized")
    assert not any(leaf.any() for leaf in jax.tree.leaves(plain["encoder"]))  # exactly
    assert all(leaf.any() for leaf in jax.tree.leaves(reparametrized["encoder"]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        plain["decoder"],
        reparametrized["decoder"],
    )
    of_divergence = jax.jit(
        jax.grad(lambda p: elbo_terms(MODEL, sampling="plain")(p, (X[0], KEYS[0])).kl)
    )(PARAMS)["params"]
    assert all(leaf.any() for leaf in jax.tree.leaves(of_divergence["encoder"]))
    assert not any(leaf.any() for leaf in jax.tree.leaves(of_divergence["decoder"]))


def test_an_examples_noise_is_its_keys():
    loss = jax.jit(negative_elbo(MODEL))
    assert loss(PARAMS, (X[0], KEYS[0])) == loss(PARAMS, (X[0], KEYS[0]))
    assert loss(PARAMS, (X[0], KEYS[0])) != loss(PARAMS, (X[0], KEYS[1]))
    losses = jax.jit(jax.vmap(loss, (None, 0)))
    np.testing.assert_allclose(
        losses(PARAMS, (X[::-1], KEYS[::-1])), losses(PARAMS, (X, KEYS))[::-1], rtol=1e-6
    )


def test_untrained_losses_are_the_tutorials_in_all_four_reductions():
    """Mean or sum over pixels, then over a batch of 32; over circles and initial weights."""
    x = jnp.asarray(data.circles(320, 1).x_train)
    model = VAE(width=256)
    keys = jax.random.split(jax.random.key(0), len(x))

    @jax.jit
    def means(key, x):
        params = model.init(key, x[0])
        return [
            autoencoding.evaluate(elbo_terms(model, pixels=pixels), batch_size=len(x))(
                params, (x, keys)
            )
            for pixels in ("mean", "sum")
        ]

    drawn = [means(jax.random.key(seed), x) for seed in range(12)]
    of = lambda part, which, batch: (
        np.median([getattr(two[which], part) for two in drawn])
        * autoencoding.batch_factor(batch, 32)
    )
    found = [of("reconstruction", pixels, batch) for pixels in (0, 1) for batch in ("mean", "sum")]
    np.testing.assert_allclose(
        found, [0.9459, 30.269, 741.59, 23730.8], rtol=0.02
    )  # 0.03 off if lines were grey
    assert 0.003 < of("kl", 0, "mean") < 0.018  # 0.006
    assert 0.1 < of("kl", 1, "sum") < 0.6  # 0.192


def test_a_sum_over_the_batch_is_the_mean_gradient_times_the_examples():
    loss = negative_elbo(MODEL)
    whole = jax.jit(jax.grad(lambda p: jnp.sum(jax.vmap(loss, (None, 0))(p, (X, KEYS)))))(PARAMS)
    mean = jax.jit(lambda p: co.mean(co.per_example_value_and_grad(loss)(p, (X, KEYS))[1]))(PARAMS)
    scaled = jax.tree.map(lambda leaf: autoencoding.batch_factor("sum", 5) * leaf, mean)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), scaled, whole)
    assert autoencoding.batch_factor("mean", 5) == 1


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_means_over_examples_are_exact_for_any_chunk(batch_size):
    terms = elbo_terms(MODEL, factor=2.0)
    each = jax.device_get(jax.jit(jax.vmap(terms, (None, 0)))(PARAMS, (X, KEYS)))
    evaluate = jax.jit(autoencoding.evaluate(terms, batch_size=batch_size))
    np.testing.assert_allclose(
        evaluate(PARAMS, (X, KEYS)), [np.mean(part) for part in each], rtol=1e-5
    )
    chosen = np.array([True, False, True, False, False])
    without = evaluate(PARAMS, (X.at[1].set(jnp.nan), KEYS), chosen)
    np.testing.assert_allclose(without, [np.mean(part[chosen]) for part in each], rtol=1e-5)
    assert np.isnan(evaluate(PARAMS, (X, KEYS), np.zeros(5)).total)


@pytest.mark.parametrize("name", ["AE", "conditional VAE"])
def test_means_of_one_number_and_of_labelled_images(name):
    loss, params, batch = made(name)
    each = jax.jit(jax.vmap(loss, (None, 0)))(params, batch)
    evaluate = jax.jit(autoencoding.evaluate(loss, batch_size=2))
    np.testing.assert_allclose(evaluate(params, batch), np.mean(each), rtol=1e-5)


def test_encoder_and_decoder_have_coherences_of_their_own():
    parts = lambda path: layer(path).split("/")[0]
    alphas = jax.jit(
        lambda p: co.alpha(
            co.per_example_value_and_grad(negative_elbo(MODEL))(p, (X, KEYS))[1], by=parts
        )
    )(PARAMS)
    assert set(alphas) == {"encoder", "decoder"}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: negative_elbo(MODEL, error="absolute"),
            "error is squared or cross_entropy and pixels sum or mean, got error='absolute'",
        ),
        (
            lambda: reconstruction_error(MODEL, pixels="max"),
            "pixels sum or mean, got error='squared', pixels='max'",
        ),
        (
            lambda: negative_elbo(MODEL, sampling="score"),
            "sampling is reparametrized or plain, got 'score'",
        ),
        (
            lambda: negative_elbo(MODEL, error="cross_entropy"),
            "VAE shows them as grey levels: give it sigmoid=True",
        ),
        (
            lambda: autoencoding.batch_factor("max", 3),
            r"batch_factor\(batch\): sum or mean, got 'max'",
        ),
        (
            lambda: negative_elbo(VAE(width=6, latents=2, depth=0, shape=(4, 4, 1)))(
                VAE(2, 0, 2, (4, 4, 1)).init(KEYS[0], X[0]), (X[0], KEYS[0])
            ),
            r"the model puts out shape \(4, 4, 1\) for one image of shape \(8, 8, 1\); they need "
            r"equal sizes",
        ),
    ],
)
def test_what_makes_no_loss_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
