"""How far apart two results are: numbers for trees."""

import math
from collections.abc import Iterable

import jax
import numpy as np

from coherence.trees import PyTree


def examples(gradients: PyTree) -> int:
    """m, the length of the leading axis."""
    return jax.tree.leaves(gradients)[0].shape[0]


def worst(numbers: Iterable[float]) -> float:
    """The largest violation; nan is larger than any."""
    return max(numbers, key=lambda x: (math.isnan(x), x))


def largest(tree: PyTree) -> float:
    """The largest absolute value; nan is larger than any."""
    return worst([float(np.max(np.abs(np.asarray(x)))) for x in jax.tree.leaves(tree)])


def differences(result: PyTree, expected: PyTree) -> PyTree:
    """Leaf by leaf, in float64."""
    return jax.tree.map(
        lambda a, b: np.asarray(a, np.float64) - np.asarray(b, np.float64), result, expected
    )
