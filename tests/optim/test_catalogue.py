"""Every row of the catalogue does what is asked of all aggregators, agrees with its twin and keeps its promises."""

import pytest

from coherence.checks import check_aggregator
from tests.optim.catalogue import CATALOGUE


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_row_does_what_it_says(name):
    row = CATALOGUE[name]
    check = check_aggregator(row.make(), promises=row.promises, twin=row.twin, steps=row.steps)
    assert check.ok, check
