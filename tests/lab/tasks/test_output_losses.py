"""Losses of outputs against plain numpy, their gradients against closed forms; what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from coherence.lab import settings
from coherence.lab.settings import MLP, OutputLosses, digits, parse
from coherence.lab.tasks import (
    hinge,
    huber,
    softmax_cross_entropy,
    softmax_squared_error,
    squared_error,
)
from coherence.lab.training import Classification

RNG = np.random.default_rng(0)
F, Y = RNG.normal(size=(20, 4)) * 3, RNG.integers(0, 4, 20)
E = np.eye(4)[Y]
P = softmax(F, 1)
WEIGHTS = (1.0, 2.0, 0.5, 0.0)
W = np.array(WEIGHTS)[Y]
Q = 0.8 * E + 0.2 / 4
OTHERS = np.where(E == 1, -np.inf, F)
LACK = 1 + OTHERS.max(1) - (F * E).sum(1)
SHORT = np.abs(F - E) <= 0.5
JACOBIAN = np.einsum("ij,jk->ijk", P, np.eye(4)) - P[:, :, None] * P[:, None]
EXACT = {  # value and gradient in the outputs
    "cross-entropy": (softmax_cross_entropy(), -np.log((P * E).sum(1)), P - E),
    "weighted": (
        softmax_cross_entropy(weights=WEIGHTS),
        -W * np.log((P * E).sum(1)),
        W[:, None] * (P - E),
    ),
    "smoothed": (softmax_cross_entropy(0.2), -(Q * np.log(P)).sum(1), P - Q),
    "squared": (squared_error(), ((F - E) ** 2).sum(1) / 2, F - E),
    "squared behind softmax": (
        softmax_squared_error(),
        ((P - E) ** 2).sum(1) / 2,
        np.einsum("ijk,ik->ij", JACOBIAN, P - E),
    ),
    "Huber": (
        huber(0.5),
        np.where(SHORT, (F - E) ** 2 / 2, 0.5 * (np.abs(F - E) - 0.25)).sum(1),
        np.clip(F - E, -0.5, 0.5),
    ),
    "hinge": (
        hinge(),
        LACK.clip(0),
        (LACK > 0)[:, None] * (np.eye(4)[OTHERS.argmax(1)] - E),
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_values_and_gradients_are_their_closed_forms_for_one_and_for_many(name):
    loss, values, gradients = EXACT[name]
    with jax.enable_x64(True):
        many = np.asarray(loss(jnp.asarray(F), jnp.asarray(Y)))
        each = jax.vmap(jax.value_and_grad(loss))(jnp.asarray(F), jnp.asarray(Y))
    np.testing.assert_allclose(many, values, rtol=1e-12)
    np.testing.assert_allclose(each[0], values, rtol=1e-12)
    np.testing.assert_allclose(each[1], gradients, atol=1e-12)


def test_a_smoothed_loss_is_least_at_the_smoothed_label():
    gradient = jax.grad(softmax_cross_entropy(0.2))(jnp.log(jnp.array([0.85, 0.05, 0.05, 0.05])), 0)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("name", EXACT)
def test_an_output_that_is_nan_makes_its_loss_nan_among_many(name):
    """XLA's own maximum of more than a thousand numbers passes over nan on CPU."""
    classes = F.shape[-1]
    outputs = np.random.default_rng(0).normal(size=(3000, classes)).astype(np.float32)
    outputs[7, 1] = np.nan
    losses = jax.jit(EXACT[name][0])(outputs, np.zeros(3000, int))
    assert np.flatnonzero(np.isnan(np.asarray(losses))).tolist() == [7]


def test_half_precision_is_computed_in_single():
    for loss, *_ in EXACT.values():
        assert loss(jnp.zeros(4, jnp.bfloat16), 1).dtype == jnp.float32


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: softmax_cross_entropy(1.5),
            r"softmax_cross_entropy\(smoothing\): in \[0, 1\], got 1.5",
        ),
        (lambda: softmax_cross_entropy(weights=(-1.0,)), r"\(weights\): at least 0 each, got"),
        (
            lambda: softmax_cross_entropy(weights=(1.0, 2.0))(jnp.zeros(3), 0),
            r"\(weights\): a weight for each of 3 classes, got 2",
        ),
        (lambda: huber(0), r"huber\(delta\): above 0, got 0"),
        (lambda: hinge(-1), r"hinge\(margin\): above 0, got -1"),
    ],
)
def test_impossible_numbers_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_a_run_takes_a_loss_by_name_and_records_its_mean():
    loss = parse("huber(delta=0.5)", OutputLosses)
    assert loss == settings.huber(0.5)
    problem = Classification(data=digits(), model=MLP(4), loss=loss).build(0)
    x, y = (part[:50] for part in problem.data["train"])
    outputs = jax.jit(MLP(4).build(10).apply)(problem.params, x)
    expected = np.asarray(huber(0.5)(outputs, y))
    one = jax.jit(problem.loss)(problem.params, (x[3], y[3]))
    assert float(one) == pytest.approx(expected[3], rel=1e-5)
    data = {**problem.data, "train": (x, y), "corrupt": problem.data["corrupt"][:50]}
    recorded = jax.jit(problem.measure)(problem.params, data)["train_loss"]
    assert float(recorded) == pytest.approx(expected.mean(), rel=1e-5)
