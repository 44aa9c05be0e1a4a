"""What a probe may be made of, checked before anything is traced."""

import numpy as np

from coherence.metrics.batching import group_array, is_iterable


def group_numbers(groups, num_groups, m):
    if groups is None:
        return None
    numbers, many = group_array(groups, num_groups, m)
    if numbers.min() < 0 or numbers.max() >= many:
        raise ValueError(
            f"groups must be between 0 and num_groups - 1 = {many - 1}, got {numbers.min()} to {numbers.max()}."
        )
    return numbers.astype(np.int32)


def count_groups(groups, num_groups):
    if groups is None:
        if num_groups is not None:
            raise ValueError(
                f"num_groups={num_groups} counts groups, and there are none: give groups, one entry an example."
            )
        return None
    return 2 if np.asarray(groups).dtype == bool else num_groups


def check(loss, examples, name, when, batch_size, few):
    if not callable(loss) or getattr(type(loss), "__hash__", None) is None:
        raise TypeError(
            f"loss must be a function (params, example) -> scalar, got {type(loss).__name__}. A model goes into one: def loss(...)."
        )
    if isinstance(when, type) or not hasattr(when, "steps"):
        raise TypeError(
            f"when must be a schedule, Log(), Every(100), Epochs() or AtLoss(), got {when!r}."
        )
    if not isinstance(name, str) or not name:
        raise ValueError(f"name must be a word that readings start with, got {name!r}.")
    if is_iterable(examples):
        raise TypeError(
            f"examples must be arrays, a fixed sample, got {type(examples).__name__}: read it once, and pass what it gave."
        )
    for what, value, least in (("batch_size", batch_size, 1), ("few", few, 2)):
        if not isinstance(value, int | np.integer) or value < least:
            raise ValueError(
                f"{what} must be a whole number of examples, at least {least}, got {value!r}."
            )
