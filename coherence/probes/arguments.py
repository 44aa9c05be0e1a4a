"""Checks of what a probe is made of, before anything is traced."""

from typing import Any

import numpy as np
from jax.typing import ArrayLike

from coherence.metrics.batching import group_array, is_iterable


def group_numbers(groups: ArrayLike | None, num_groups: int | None, m: int) -> np.ndarray | None:
    """The groups of the sample, int32 [m], each of them between 0 and their number less 1.

    Raises:
        ValueError: the wrong shape or type, no `num_groups`, or an entry outside.
    """
    if groups is None:
        return None
    numbers, count = group_array(groups, num_groups, m)
    if numbers.min() < 0 or numbers.max() >= count:
        asked = np.asarray(groups)
        raise ValueError(
            f"groups must be between 0 and num_groups - 1 = {count - 1}, got {asked.min()} to "
            f"{asked.max()}."
        )
    return numbers


def count_groups(groups: ArrayLike | None, num_groups: int | None) -> int | None:
    """How many groups there are, `None` where there are none.

    Raises:
        ValueError: `num_groups` without `groups`.
    """
    if groups is not None:
        return 2 if np.asarray(groups).dtype == bool else num_groups
    if num_groups is not None:
        raise ValueError(
            f"num_groups={num_groups} counts groups, and there are none: give groups, one entry an "
            "example."
        )
    return None


def check(loss: Any, examples: Any, name: Any, when: Any, batch_size: Any, few: Any) -> None:
    """Refuse what a probe cannot be made of.

    Raises:
        TypeError: a loss, a schedule or examples of another kind.
        ValueError: a name, batch size or few that cannot be.
    """
    if not callable(loss) or getattr(type(loss), "__hash__", None) is None:
        raise TypeError(
            f"loss must be a function (params, example) -> scalar, got {type(loss).__name__}. A "
            "model goes into one: def loss(...)."
        )
    if isinstance(when, type) or not hasattr(when, "steps"):
        raise TypeError(
            f"when must be a schedule, LogSpaced(), Every(100), Epochs() or AtLoss(), got {when!r}."
        )
    if not isinstance(name, str) or not name:
        raise ValueError(f"name must be a word that readings start with, got {name!r}.")
    if is_iterable(examples):
        raise TypeError(
            f"examples must be arrays, a fixed sample, got {type(examples).__name__}: read it once,"
            " and pass what it gave."
        )
    for argument, value, least in (("batch_size", batch_size, 1), ("few", few, 2)):
        if not isinstance(value, int | np.integer) or value < least:
            raise ValueError(
                f"{argument} must be a whole number of examples, at least {least}, got {value!r}."
            )
