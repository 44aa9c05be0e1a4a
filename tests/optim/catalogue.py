"""Every aggregator is one row: how to make it, its slow twin in numpy, its properties.

A new one adds its row, and nothing else: `test_catalogue.py` runs `check_aggregator` over all of
them, `test_aggregators.py` what is asked of rows with certain properties.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from coherence.checks import leafwise
from coherence.checks.properties import (
    bounded,
    breakdown,
    is_the_mean,
    odd,
    permutes,
    scales,
    separable,
    shifts,
    unanimous,
)
from coherence.optim import (
    agreement_filter,
    average,
    clipped_mean,
    coherence_mask,
    compressed,
    conflict_free,
    coordinate_mask,
    geometric_median,
    krum,
    largest,
    median,
    median_of_means,
    medoid_of_means,
    natural_gradient,
    rolling_mean,
    rolling_median,
    rounded,
    scale_by_per_example_rms,
    scaled_sign,
    sign_agreement,
    sign_of_sum,
    slow_gradients,
    sum_of_signs,
    top_k,
    trimmed_mean,
    winsorize,
    with_statistics,
)
from tests.optim import twins


class Row(NamedTuple):
    """How to make an aggregator, and what it is.

    `make() -> transformation`; `twin(tree of [m, ...] in float64) -> one gradient`;
    `properties` from `coherence.checks.properties`.

    A twin of one leaf is wrapped in `leafwise`. One with state has `steps`: how often it is fed the
    same gradients before its update counts (3 for a window of 3).
    """

    make: Callable
    twin: Callable
    properties: tuple = ()
    steps: int = 1


def winsorized(g, c):
    """As the paper writes it, one coordinate at a time, in float64; ranks as in the docstring."""
    m = len(g)
    k = max(0, math.ceil(c * (m - 1) / 100 - 0.5))
    columns = np.asarray(g, np.float64).reshape(m, -1).T
    result = []
    for column in columns:
        if np.isnan(column).any():
            result.append(np.nan)
            continue
        ranked = sorted(column)
        with np.errstate(invalid="ignore"):  # inf - inf is nan, as it should be
            result.append(sum(min(max(x, ranked[k]), ranked[m - 1 - k]) for x in column) / m)
    return np.array(result).reshape(np.shape(g)[1:])


def middle(g):
    with np.errstate(invalid="ignore"):
        return np.median(np.asarray(g, np.float64), 0)


MEAN_LIKE = (permutes, odd, scales, shifts, unanimous, separable)
IN_GROUPS = (
    odd,
    scales,
    shifts,
    unanimous,
    separable,
)  # who is in a group with whom depends on the order
PICKED = (
    permutes,
    odd,
    scales,
    unanimous,
)  # parts of the mean: what all have in common changes which

CATALOGUE = {
    "average": Row(average, leafwise(lambda g: winsorized(g, 0)), (*MEAN_LIKE, is_the_mean)),
    "winsorize(0)": Row(
        lambda: winsorize(0), leafwise(lambda g: winsorized(g, 0)), (*MEAN_LIKE, is_the_mean)
    ),
    "winsorize(2.5)": Row(
        lambda: winsorize(2.5), leafwise(lambda g: winsorized(g, 2.5)), MEAN_LIKE
    ),
    "winsorize(10)": Row(
        lambda: winsorize(10), leafwise(lambda g: winsorized(g, 10)), (*MEAN_LIKE, breakdown(0.1))
    ),
    "trimmed_mean(10)": Row(
        lambda: trimmed_mean(10),
        leafwise(lambda g: twins.trimmed(g, 10)),
        (*MEAN_LIKE, breakdown(0.1)),
    ),
    "trimmed_mean(45)": Row(
        lambda: trimmed_mean(45),
        leafwise(lambda g: twins.trimmed(g, 45)),
        (*MEAN_LIKE, breakdown(0.45)),
    ),
    "trimmed_mean(50)": Row(
        lambda: trimmed_mean(50), leafwise(middle), (*MEAN_LIKE, breakdown(0.5))
    ),
    "median": Row(median, leafwise(middle), (*MEAN_LIKE, breakdown(0.5))),
    "median_of_means(1)": Row(
        lambda: median_of_means(1), leafwise(twins.mean), (*MEAN_LIKE, is_the_mean)
    ),
    "median_of_means(3)": Row(
        lambda: median_of_means(3),
        leafwise(lambda g: twins.middle_of_groups(g, 3)),
        (*IN_GROUPS, breakdown(0.05)),
    ),
    "median_of_means(4)": Row(
        lambda: median_of_means(4),
        leafwise(lambda g: twins.middle_of_groups(g, 4)),
        (*IN_GROUPS, breakdown(0.05)),
    ),
    "median_of_means, batches": Row(
        lambda: median_of_means(consecutive=True),
        leafwise(twins.mean),
        (*MEAN_LIKE, is_the_mean),
        steps=3,
    ),
    "rolling_median": Row(rolling_median, leafwise(twins.mean), (*MEAN_LIKE, is_the_mean), steps=3),
    "rolling_mean": Row(rolling_mean, leafwise(twins.mean), (*MEAN_LIKE, is_the_mean), steps=3),
    "geometric_median": Row(
        lambda: geometric_median(100),
        twins.together(twins.nearest),
        (permutes, odd, scales, shifts, unanimous, bounded(0.2)),
    ),
    "clipped_mean": Row(
        lambda: clipped_mean(3.0),
        twins.together(lambda g: twins.clipped(g, 3.0)),
        (permutes, odd, bounded(0.5)),
    ),
    "clipped_mean, by leaf": Row(
        lambda: clipped_mean(1.5, "leaf"),
        leafwise(lambda g: twins.clipped(g.reshape(len(g), -1), 1.5).reshape(g.shape[1:])),
        (permutes, odd, bounded(0.5)),
    ),
    "krum": Row(
        lambda: krum(0.3),
        twins.together(lambda g: twins.krum(g, 0.3, 1)),
        (permutes, odd, scales, shifts, unanimous, bounded(0.2)),
    ),
    "krum, several": Row(
        lambda: krum(0.2, 5),
        twins.together(lambda g: twins.krum(g, 0.2, 5)),
        (permutes, odd, scales, shifts, unanimous, bounded(0.1)),
    ),
    "medoid_of_means": Row(
        lambda: medoid_of_means(5),
        twins.together(lambda g: twins.medoid_of_means(g, 5)),
        (odd, scales, shifts, unanimous, bounded(0.05)),
    ),
    "agreement_filter": Row(
        lambda: agreement_filter(0.9, 4),
        twins.together(lambda g: twins.agreeing(g, 0.9, 4)),
        (odd, scales, unanimous),
    ),
    "slow_gradients": Row(
        lambda: slow_gradients(0.9, 2.0),
        leafwise(lambda g: 3 * twins.mean(g)),
        (permutes, odd, scales, separable),
        steps=2,
    ),
    "conflict_free": Row(
        lambda: conflict_free(400),
        twins.together(twins.without_conflict),
        (permutes, odd, scales, unanimous),
    ),
    "scale_by_per_example_rms": Row(
        scale_by_per_example_rms,
        leafwise(twins.over_rms),
        (permutes, odd, separable),
        steps=2,
    ),
    "with_statistics": Row(
        lambda: with_statistics(average()), leafwise(twins.mean), (permutes, odd)
    ),
    "natural_gradient": Row(
        lambda: natural_gradient(0.3),
        twins.together(lambda g: twins.over_fisher(g, 0.3)),
        (permutes, odd, bounded(0.2)),
    ),
    "compressed, signs": Row(
        lambda: compressed(scaled_sign(), 3),
        leafwise(lambda g: twins.sent_by_workers(g, 3, twins.scaled_signs)),
        (odd, scales),
    ),
    "compressed, largest": Row(
        lambda: compressed(largest(0.3), 3, feedback=False),
        leafwise(lambda g: twins.sent_by_workers(g, 3, lambda p: twins.keep_largest(p, 0.3))),
        (odd, scales),
    ),
    "compressed, rounded": Row(
        lambda: compressed(rounded(16), 3),
        leafwise(lambda g: twins.sent_by_workers(g, 3, lambda p: twins.in_steps(p, 16))),
        (odd, scales),
    ),
    "sign_agreement": Row(
        lambda: sign_agreement(0.3), leafwise(lambda g: twins.agreed(g, 0.3)), (*PICKED, separable)
    ),
    "sum_of_signs": Row(
        sum_of_signs, leafwise(twins.votes), (permutes, odd, separable, bounded(0.5))
    ),
    "sign_of_sum": Row(
        sign_of_sum, leafwise(lambda g: np.sign(twins.mean(g))), (permutes, odd, separable)
    ),
    "coherence_mask": Row(
        lambda: coherence_mask(3.0), lambda g: twins.coherent_leaves(g, 3.0), PICKED
    ),
    "coordinate_mask": Row(
        lambda: coordinate_mask(1.5),
        leafwise(lambda g: twins.coherent_coordinates(g, 1.5)),
        (*PICKED, separable),
    ),
    "top_k": Row(
        lambda: top_k(0.3),
        twins.together(lambda g: twins.strongest(g, abs(g.mean(0)), 0.3)),
        (permutes, odd, scales),
    ),
    "top_k, by coherence": Row(
        lambda: top_k(0.3, by_coherence=True),
        twins.together(lambda g: twins.strongest(g, twins.own_coherence(g), 0.3)),
        (permutes, odd, scales),
    ),
}

# The same code as another row with another number. Their definitions are tested at every size, the
# rest where slow tests run.
VARIANTS = {
    "winsorize(0)",
    "winsorize(2.5)",
    "trimmed_mean(10)",
    "trimmed_mean(50)",
    "median_of_means(1)",
    "median_of_means(4)",
    "clipped_mean, by leaf",
    "krum, several",
}
# What each of these computes is tested in a file of its own; here it is asked for the rest.
ELSEWHERE = {
    "medoid_of_means",
    "agreement_filter",
    "slow_gradients",
    "conflict_free",
    "scale_by_per_example_rms",
    "with_statistics",
}


def marked(name, *values):
    """A parameter of a test, slow for a variant, and for what other files test."""
    slow = name in VARIANTS | ELSEWHERE
    return pytest.param(name, *values, marks=pytest.mark.slow if slow else ())
