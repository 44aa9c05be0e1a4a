"""What every data set is once loaded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test examples; the leading axis is always the example.

    `y_*` are int32 class labels, or float32 targets where `classes` is empty (a regression).
    Arrays are not copied: take them as read-only and use `dataclasses.replace` for another version.

    >>> x, y = np.zeros((3, 2), np.float32), np.arange(3, dtype=np.int32)
    >>> data = Dataset("three points", x, y, x, y, classes=("a", "b", "c"))
    >>> len(data.x_train), data.classes
    (3, ('a', 'b', 'c'))
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    """What each number of an example is, where that has a name: the words of a bag of words."""

    def __post_init__(self):
        for part in ("train", "test"):
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            if len(x) != len(y):
                raise ValueError(
                    f"{self.name}: x_{part} has {len(x)} examples and y_{part} {len(y)}; "
                    "each example needs one label."
                )
            if len(x) == 0:
                raise ValueError(f"{self.name}: x_{part} is empty; at least one example is needed.")
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise ValueError(
                f"{self.name}: an example has shape {self.x_train.shape[1:]} in x_train and "
                f"{self.x_test.shape[1:]} in x_test; both need the same."
            )

    @property
    def outputs(self) -> int:
        """The number of a network's outputs: one a class, or one in a regression."""
        return len(self.classes) or 1
