"""Properties that a robust mean may have, one function each.

Each is a function `(aggregate, gradients) -> violation`. `aggregate` turns a plain tree of
per-example gradients, leaves [m, ...], into one gradient. The violation is a number: 0, or
rounding, where the property holds; relative to the largest entry of the expected result unless
said otherwise. Write your own the same way: `check_aggregator` prints its name, the number and,
where it does not hold, the first line of its docstring.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import numpy as np

from coherence.trees import PyTree

from .distances import differences, examples, largest, worst

Aggregate: TypeAlias = Callable[[PyTree], PyTree]
Property: TypeAlias = Callable[[Aggregate, PyTree], float]

_HUGE = 1e12  # times the largest gradient; its square is still finite in float32


def permutes(aggregate: Aggregate, gradients: PyTree) -> float:
    """The order of the examples is irrelevant."""
    order = np.random.default_rng(0).permutation(examples(gradients))
    return _distance(
        aggregate(jax.tree.map(lambda x: x[order], _arrays(gradients))),
        aggregate(gradients),
        gradients,
    )


def odd(aggregate: Aggregate, gradients: PyTree) -> float:
    """Negating the gradients negates the result."""
    return _distance(
        aggregate(jax.tree.map(np.negative, gradients)),
        jax.tree.map(np.negative, aggregate(gradients)),
        gradients,
    )


def scales(aggregate: Aggregate, gradients: PyTree) -> float:
    """Gradients times a positive factor give the result times that factor."""
    violations = []
    for factor in (4.0, 0.3):
        scaled = _times(factor, gradients)
        violations.append(
            _distance(aggregate(scaled), _times(factor, aggregate(gradients)), scaled)
        )
    return worst(violations)


def shifts(aggregate: Aggregate, gradients: PyTree) -> float:
    """A part that all examples have in common passes through."""
    rng = np.random.default_rng(0)
    common = jax.tree.map(lambda x: np.asarray(rng.normal(size=x.shape[1:]), x.dtype), gradients)
    shifted = jax.tree.map(np.add, gradients, common)
    return _distance(
        aggregate(shifted), jax.tree.map(np.add, aggregate(gradients), common), shifted
    )


def unanimous(aggregate: Aggregate, gradients: PyTree) -> float:
    """Where all examples have one gradient, it is the result."""
    same = jax.tree.map(lambda x: np.broadcast_to(x[:1], x.shape), _arrays(gradients))
    return _distance(aggregate(same), jax.tree.map(lambda x: x[0], _arrays(gradients)), gradients)


def separable(aggregate: Aggregate, gradients: PyTree) -> float:
    """A coordinate's result depends on that coordinate alone, not on other coordinates or
    leaves."""
    rng = np.random.default_rng(0)
    changed = jax.tree.map(lambda x: np.asarray(rng.random(x.shape[1:]) < 0.5), gradients)
    others = jax.tree.map(lambda x, c: np.where(c, -7 * x[::-1], x), _arrays(gradients), changed)
    unchanged = lambda result: jax.tree.map(lambda r, c: np.where(c, 0, r), result, changed)
    return _distance(unchanged(aggregate(others)), unchanged(aggregate(gradients)), gradients)


def is_the_mean(aggregate: Aggregate, gradients: PyTree) -> float:
    """It is the plain mean over the examples."""
    return _distance(
        aggregate(gradients), jax.tree.map(lambda x: x.mean(0), _arrays(gradients)), gradients
    )


def breakdown(share: float) -> Property:
    """A share of the examples, however large, moves no coordinate out of the others' range.

    Of m examples `share` of m - 1 to the nearest integer, halves down, as `winsorize` counts: so
    0.5 is fewer than half of them. They are the first ones, or spread over the batch, and go to
    either side. The violation is in sizes of the others' largest. A share of fewer than 0.03 is
    none of the 20 examples of `check_aggregator`, and refused: try the method with a larger one.

    Raises:
        ValueError: `share` is not in (0, 0.5].
    """
    _check(share, "breakdown")

    def violation(aggregate, gradients):
        violations = []
        for bad, others in _outliers(share, gradients):
            inside = jax.tree.map(lambda x: x[others], _arrays(gradients))
            for sign in (1, -1):
                result = aggregate(_replaced(gradients, bad, sign * _HUGE))
                beyond = jax.tree.map(
                    lambda r, x: np.maximum(0, np.maximum(r - x.max(0), x.min(0) - r)),
                    _arrays(result),
                    inside,
                )
                violations.append(largest(beyond) / largest(inside))
        return worst(violations)

    return _named(violation, f"breakdown({share})", breakdown)


def bounded(share: float) -> Property:
    """A share of the examples moves the result only so far: a thousand times larger, no farther.

    Weaker than `breakdown`, which asks for the range of the others coordinate by coordinate;
    examples counted and placed alike. The violation is the distance between the two results, in
    sizes of the others' largest.

    Raises:
        ValueError: `share` is not in (0, 0.5].
    """
    _check(share, "bounded")

    def violation(aggregate, gradients):
        violations = []
        for bad, others in _outliers(share, gradients):
            far, farther = (
                aggregate(_replaced(gradients, bad, size * _HUGE)) for size in (1e-3, 1.0)
            )
            violations.append(
                largest(differences(farther, far))
                / largest(jax.tree.map(lambda x: x[others], _arrays(gradients)))
            )
        return worst(violations)

    return _named(violation, f"bounded({share})", bounded)


def _check(share, name):
    if not 0 < share <= 0.5:
        raise ValueError(
            f"{name}(share): share of the examples that go astray, in (0, 0.5], got {share}."
        )


def _named(function, name, source):
    function.__name__, function.__doc__ = name, source.__doc__
    return function


def _outliers(share, gradients):
    """Places of that share of the examples and of the others, as pairs.

    At the beginning and spread, which groups by position tell apart.
    """
    m = examples(gradients)
    number = math.ceil(share * (m - 1) - 0.5 - 1e-9)
    if number < 1:
        raise ValueError(
            f"a share of {share} is none of {m} examples, and says nothing. Ask for it with "
            f"{0.5 / (m - 1):.3f} or more."
        )
    for bad in (np.arange(number), np.linspace(0, m - 1, number).round().astype(int)):
        yield bad, np.setdiff1d(np.arange(m), bad)


def _replaced(gradients, bad, size):
    """The bad examples agree on huge values, positive at some coordinates and negative at
    others."""
    rng = np.random.default_rng(0)
    scale = size * largest(gradients)

    def replace(x):
        result = x.copy()
        result[bad] = scale * rng.choice([-1, 1], x.shape[1:])
        return result

    return jax.tree.map(replace, _arrays(gradients))


def _arrays(tree):
    """In numpy, where nothing is compiled."""
    return jax.tree.map(np.asarray, tree)


def _times(factor, tree):
    return jax.tree.map(lambda x: factor * x, _arrays(tree))


def _distance(result, expected, gradients):
    """The largest difference of two results, relative to the largest entry expected (of the
    gradients, where that is zero)."""
    return largest(differences(result, expected)) / (largest(expected) or largest(gradients))
