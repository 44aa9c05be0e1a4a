"""Every row of the catalogue fits in, agrees with its twin and has its properties."""

import copy

import jax.numpy as jnp
import pytest

from coherence import optim
from coherence.checks import check_aggregator
from tests.optim.catalogue import CATALOGUE, marked


@pytest.mark.parametrize("name", [*map(marked, CATALOGUE)])
def test_a_row_does_what_it_says(name):
    row = CATALOGUE[name]
    check = check_aggregator(row.make(), properties=row.properties, twin=row.twin, steps=row.steps)
    assert check.ok, check


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_aggregator_prints_as_the_call_that_makes_it(name):
    tx = CATALOGUE[name].make()
    again = eval(repr(tx), {function: getattr(optim, function) for function in optim.__all__})
    assert repr(again) == repr(tx) == tx.name
    assert repr(copy.deepcopy(tx)) == repr(tx)
    assert again.takes_batch_gradient == tx.takes_batch_gradient


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_aggregator_says_whether_it_takes_batch_gradients(name):
    tx, params = CATALOGUE[name].make(), jnp.ones(3)
    state = tx.init(params)
    if tx.takes_batch_gradient:
        assert tx.update(params, state, params)[0].shape == (3,)
    else:
        with pytest.raises(ValueError, match=r"needs per-example gradients, got a batch gradient"):
            tx.update(params, state, params)
