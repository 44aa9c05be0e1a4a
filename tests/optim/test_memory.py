"""Means, counts and inner products form nothing of the size examples x parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.gradients import per_example_value_and_grad
from coherence.optim import kfac, median_of_means
from tests.optim.catalogue import CATALOGUE

SORTED = (
    "winsorize",
    "median",
    "trimmed",
)  # look at all values of a coordinate: tested with their kernels
OTHERS = {
    name: row.make
    for name, row in CATALOGUE.items()
    if not name.startswith(SORTED) or name.startswith("median_of_means")
}


DRAWN = lambda: median_of_means(3, seed=0)


@pytest.mark.parametrize(
    ("make", "masked"),
    [
        *((make, False) for make in OTHERS.values()),
        (median_of_means, True),
        (DRAWN, False),
        (DRAWN, True),
        (kfac, False),
    ],
    ids=[
        *OTHERS,
        "median_of_means, masked",
        "median_of_means, drawn",
        "median_of_means, drawn and masked",
        "kfac",
    ],
)
def test_the_examples_x_parameters_array_is_never_formed(make, masked):
    m, inputs, hidden = 100, 400, 500
    loss = lambda params, x: jnp.sum(
        jnp.tanh(jnp.tanh(x @ params["first"] + params["bias"]) @ params["second"]) ** 2
    )
    params = {
        "first": jnp.ones((inputs, hidden)),
        "bias": jnp.ones(hidden),
        "second": jnp.ones((hidden, 2)),
    }
    tx = make()

    def step(params, state, batch):
        _, g = per_example_value_and_grad(loss)(
            params, batch, jnp.arange(m) < 90 if masked else None
        )
        return tx.update(g, state, params)

    size = sum(p.size for p in params.values())
    memory = (
        jax.jit(step)
        .lower(params, tx.init(params), np.zeros((m, inputs), np.float32))
        .compile()
        .memory_analysis()
    )
    assert memory.temp_size_in_bytes < 4 * m * size / 10
