"""What a parameter's per-example gradients are made of where it met data, one kind a file.

Every kind is a `Term`: dense products are `Outer`, convolutions `Convolved`, table look-ups
`Looked`. Shapes: m examples, B groups with weights of their own, T positions (a sequence, pixels),
K and N the two sides of the weights.
"""

from .convolved import Convolved, Window
from .looked import Looked
from .outer import Outer, pairs_are_cheaper
from .term import Term, accumulator, by_examples, largest, static

__all__ = [
    "Convolved",
    "Looked",
    "Outer",
    "Term",
    "Window",
    "accumulator",
    "by_examples",
    "largest",
    "pairs_are_cheaper",
    "static",
]
