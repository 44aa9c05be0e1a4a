"""Cross-entropy of one example, and exact means over many in little memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.lab.models import MLP
from coherence.lab.tasks import accuracy, classification, cross_entropy

MODEL = MLP(width=8, outputs=4)
X = jax.random.normal(jax.random.key(0), (23, 5))
Y = jax.random.randint(jax.random.key(1), (23,), 0, 4)
PARAMS = jax.jit(MODEL.init)(jax.random.key(2), X)


def naive(weights=None):
    logits = np.asarray(MODEL.apply(PARAMS, X), np.float64)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(23), Y]
    return np.average(losses, weights=weights), np.average(logits.argmax(1) == Y, weights=weights)


def test_the_loss_of_one_example_is_the_negative_log_probability_of_its_label():
    loss = cross_entropy(MODEL)
    assert np.mean([loss(PARAMS, (x, y)) for x, y in zip(X, Y)]) == pytest.approx(
        naive()[0], rel=1e-6
    )
    assert loss(PARAMS, (X[0], Y[0])).shape == ()


def test_equal_logits_cost_the_logarithm_of_the_number_of_classes():
    loss = cross_entropy(lambda params, x: jnp.zeros(10, jnp.bfloat16))
    assert loss({}, (X[0], 3)) == pytest.approx(np.log(10))
    assert loss({}, (X[0], 3)).dtype == jnp.float32


@pytest.mark.parametrize("batch_size", [1, 4, 22, 23, 24, 1000])
def test_means_are_exact_for_any_number_of_examples_and_batch_size(batch_size):
    evaluation = jax.jit(classification.evaluate(MODEL, batch_size=batch_size))(PARAMS, X, Y)
    assert evaluation == pytest.approx(naive(), rel=1e-6)
    assert accuracy(MODEL, batch_size=batch_size)(
        PARAMS, np.asarray(X), np.asarray(Y)
    ) == pytest.approx(naive()[1])


def test_weights_leave_examples_out():
    corrupt = np.arange(23) % 3 == 0
    evaluate = classification.evaluate(MODEL, batch_size=5)
    assert evaluate(PARAMS, X, Y, corrupt) == pytest.approx(naive(corrupt), rel=1e-6)
    assert evaluate(PARAMS, X.at[1].set(jnp.nan), Y, corrupt) == pytest.approx(
        naive(corrupt), rel=1e-6
    )
    assert all(map(np.isnan, evaluate(PARAMS, X, Y, np.zeros(23))))


def test_a_network_that_diverged_is_never_right():
    loss, right = classification.evaluate(lambda params, x: jnp.full((len(x), 4), jnp.nan))(
        {}, X, jnp.zeros(23, int)
    )
    assert np.isnan(loss)
    assert right == 0


def test_several_networks_are_evaluated_at_once():
    params = jax.vmap(MODEL.init, (0, None))(jax.random.split(jax.random.key(3), 3), X)
    together = jax.vmap(classification.evaluate(MODEL, batch_size=10), (0, None, None))(
        params, X, Y
    )
    for i in range(3):
        one = classification.evaluate(MODEL)(jax.tree.map(lambda leaf, i=i: leaf[i], params), X, Y)
        np.testing.assert_allclose(jnp.stack(together)[:, i], jnp.stack(one), rtol=1e-5)


def test_memory_grows_with_the_batch_and_not_with_the_examples():
    def temporaries(n):
        shapes = jax.ShapeDtypeStruct((n, 100), jnp.float32), jax.ShapeDtypeStruct((n,), jnp.int32)
        model = MLP(width=500)
        params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(100))
        return (
            jax.jit(classification.evaluate(model, batch_size=50))
            .lower(params, *shapes)
            .compile()
            .memory_analysis()
            .temp_size_in_bytes
        )

    assert temporaries(5000) < 2 * temporaries(500)


@pytest.mark.parametrize(
    ("x", "y", "size", "said"),
    [
        (
            X,
            Y[:3],
            10,
            r"need one leading axis of equal, positive length, got \[\(23, 5\), \(3,\), \(3,\)\]",
        ),
        (X[:0], Y[:0], 10, "of equal, positive length"),
        (X, Y, 0, "batch_size: at least 1 example at a time, got 0"),
    ],
)
def test_mismatched_examples_are_refused(x, y, size, said):
    with pytest.raises(ValueError, match=said):
        classification.evaluate(MODEL, batch_size=size)(PARAMS, x, y)


def test_a_model_is_something_that_predicts():
    with pytest.raises(
        TypeError,
        match=r"model must have apply\(params, x\) or be a function of \(params, x\), got int",
    ):
        cross_entropy(3)
