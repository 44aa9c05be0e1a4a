"""Half the squared error, with its half, and no broadcasting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.lab import data
from coherence.lab.models import Linear
from coherence.lab.tasks import half_squared_error, regression

TOY = data.learnable()
PARAMS = jax.jit(Linear().init)(jax.random.key(0), TOY.x_train[0])


def test_the_initial_loss_of_the_six_feature_sets_is_a_half():
    assert half_squared_error(Linear())(PARAMS, (TOY.x_train[0], TOY.y_train[0])) == 0.5
    assert regression.evaluate(Linear())(PARAMS, TOY.x_train, TOY.y_train) == 0.5


def test_its_gradient_is_the_residual_times_the_features():
    gradient = jax.grad(half_squared_error(Linear()))(PARAMS, (TOY.x_train[1], TOY.y_train[1]))[
        "params"
    ]["output"]["kernel"]
    np.testing.assert_array_equal(gradient[:, 0], -TOY.y_train[1] * TOY.x_train[1])


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_the_mean_is_exact_for_any_batch_size(batch_size):
    params = jax.tree.map(lambda leaf: leaf + 0.3, PARAMS)
    expected = np.mean((TOY.x_train.sum(1) * 0.3 - TOY.y_train) ** 2) / 2
    assert jax.jit(regression.evaluate(Linear(), batch_size=batch_size))(
        params, TOY.x_train, TOY.y_train
    ) == pytest.approx(expected)


def test_several_outputs_add_up():
    assert (
        half_squared_error(lambda params, x: x)({}, (jnp.array([1.0, 2.0]), jnp.array([0.0, 0.0])))
        == 2.5
    )


def test_a_prediction_of_another_size_is_refused():
    with pytest.raises(
        ValueError,
        match=r"the model puts out shape \(3,\) for one example whose target has shape \(\); they "
        r"need equal sizes",
    ):
        half_squared_error(Linear(3))(
            Linear(3).init(jax.random.key(0), jnp.zeros(6)), (TOY.x_train[0], TOY.y_train[0])
        )
