"""Evidence and gradient norm: closed forms, the naive computation, and where they would stop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence import metrics
from coherence.optim import stopping
from tests import zoo


def naive_evidence(g):
    """As the paper writes it, coordinate by coordinate, from formed gradients [m, D] in float64."""
    m, ratios = len(g), []
    for column in np.asarray(g, np.float64).T:
        if column.any():
            ratios.append(column.mean() ** 2 / column.var(ddof=1))
    return 1 - m / len(ratios) * sum(ratios)


def formed(gradients):
    rows = jax.tree.leaves(jax.jit(co.gradients.materialize)(gradients))
    return np.concatenate([np.reshape(x, (len(x), -1)) for x in rows], 1)


@jax.jit
def read(gradients):
    of_rows = metrics.evidence(co.gradients.materialize(gradients))
    return metrics.evidence(gradients), of_rows, metrics.gradient_norm(gradients)


@pytest.mark.parametrize(
    "make",
    [zoo.dense, zoo.sequence, zoo.convolution, zoo.embedding, zoo.low_rank],
    ids=lambda make: make.__name__,
)
def test_evidence_needs_no_formed_gradients(make):
    gradients = zoo.gradients(make)
    rows = formed(gradients)
    expected = naive_evidence(rows)
    evidence, of_rows, norm = read(gradients)
    assert evidence == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert of_rows == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert norm == pytest.approx(np.linalg.norm(rows.astype(np.float64).mean(0)), rel=1e-4)


def test_examples_that_are_masked_do_not_count():
    loss, params, (x, y) = zoo.dense()
    x, y = np.asarray(x), np.asarray(y)
    value_and_grad = co.per_example_value_and_grad(loss)
    both = jax.jit(lambda *args: read(value_and_grad(*args)[1])[::2])  # rows have no mask
    masked = both(params, (x, y), np.arange(len(x)) < len(x) - 2)
    fewer = both(params, (x[:-2], y[:-2]))
    np.testing.assert_allclose(masked, fewer, rtol=1e-4)


@pytest.mark.parametrize("signal", [0.0, 0.3, 2.0])
def test_evidence_of_normal_gradients_has_a_closed_form(signal):
    """m gbar^2 / s is noncentral F(1, m - 1): mean (m-1)/(m-3) times 1 + m (signal / noise)^2."""
    m, dimensions, noise = 20, 100_000, 3.0
    mean = signal * noise / np.sqrt(m)
    g = mean + noise * np.random.default_rng(0).normal(size=(m, dimensions))
    expected = 1 - (m - 1) / (m - 3) * (1 + signal**2)
    assert metrics.evidence(jax.device_put(g)) == pytest.approx(expected, abs=0.05)


def test_dead_coordinates_are_left_out():
    alive = zoo.normal(0, 6, 5)
    assert metrics.evidence({"a": alive, "dead": jnp.zeros((6, 7))}) == pytest.approx(
        float(metrics.evidence(alive))
    )


@pytest.mark.parametrize(
    ("gradients", "expected"),
    [
        (jnp.zeros((4, 3)), 1.0),  # nothing to learn
        (jnp.ones((4, 3)), -np.inf),  # signal without noise
        (jnp.eye(4), 0.0),  # each coordinate moved by one example
        (jnp.array([[1.0], [-1.0]]), 1.0),  # a stationary point
        (jnp.array([[jnp.nan], [1.0]]), np.nan),
    ],
)
def test_evidence_at_its_landmarks(gradients, expected):
    assert metrics.evidence(gradients) == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_evidence_does_not_depend_on_units():
    g = {"a": zoo.normal(0, 6, 5), "b": zoo.normal(1, 6, 2)}
    scaled = {"a": 1e-4 * g["a"], "b": 1e3 * g["b"]}
    assert metrics.evidence(scaled) == pytest.approx(float(metrics.evidence(g)), rel=1e-4)


def test_half_precision_is_summed_in_full():
    g = (2 + zoo.normal(0, 64, 5)).astype(jnp.bfloat16)
    assert metrics.evidence(g) == pytest.approx(naive_evidence(g.astype(jnp.float32)), rel=1e-4)


def test_one_example_is_no_evidence():
    with pytest.raises(
        ValueError,
        match=r"evidence needs at least 2 examples, got 1: .* no pair and no variance\.",
    ):
        metrics.evidence(jnp.ones((1, 3)))


def test_on_a_linear_model_evidence_stops_after_the_signal_and_before_the_noise_is_fitted():
    rng = np.random.default_rng(0)
    m, d = 100, 40
    truth, x = rng.normal(size=d), rng.normal(size=(m, d))
    y = x @ truth + 2 * rng.normal(size=m)
    examples = (jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
    rule = stopping.evidence()

    def step(carry, _):
        w, state = carry
        _, g = co.per_example_value_and_grad(lambda w, e: 0.5 * (e[0] @ w - e[1]) ** 2)(w, examples)
        value = metrics.evidence(g)
        return (w - 0.05 * co.mean(g), rule.update(state, value, w)), value

    (last, state), values = jax.jit(lambda w: jax.lax.scan(step, (w, rule.init(w)), length=400))(
        jnp.zeros(d)
    )
    assert values[0] < -2  # the truth is far
    assert values[-1] > 0.99  # the mean gradient of fitted examples is far below their noise
    assert state.should_stop
    excess = lambda w: np.sum((w - truth) ** 2)
    assert (
        excess(last) < excess(state.best_params) < 0.3 * excess(0.0)
    )  # most of the way, and here early rather than late
    training_loss = lambda w: np.mean((x @ w - y) ** 2)
    assert (
        training_loss(last) < training_loss(truth) < training_loss(state.best_params)
    )  # only later is noise fitted
