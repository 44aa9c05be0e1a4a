"""`gram` of two sets of examples is their block of the Gram matrix of both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.gradients import gram, per_example_value_and_grad
from coherence.gradients.reductions import take
from tests import zoo

NETWORKS = [zoo.dense, zoo.sequence, zoo.convolution, zoo.embedding]


@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
def test_two_sets_meet_as_in_the_gram_matrix_of_both(make):
    @jax.jit
    def both(params, batch):
        _, g = per_example_value_and_grad(loss)(params, batch)
        return gram(g), gram(take(g, jnp.arange(2)), take(g, jnp.arange(1, 3)))

    loss, params, batch = make()
    whole, block = both(params, batch)
    np.testing.assert_allclose(block, whole[:2, 1:3], rtol=1e-4, atol=1e-6)


def test_sets_of_other_parameters_are_refused():
    with pytest.raises(ValueError, match="both are of the same parameters"):
        gram({"w": jnp.ones((2, 3))}, {"w": jnp.ones((2, 4))})
