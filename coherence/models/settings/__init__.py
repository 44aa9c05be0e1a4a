"""Networks as settings: plain values that can be compared and written to JSON.

Each has `build(outputs)`, which makes the module, and `describe(inputs, outputs)`, which says it in a few words.
"""

from .dense import Diagonal, FullyConnected, LinearMap, LinearNetwork
from .images import Convolutional, Residual
from .sequences import Recurrent

AnyModel = FullyConnected | Convolutional | Residual | LinearNetwork | Diagonal | Recurrent

__all__ = ["AnyModel", "Convolutional", "Diagonal", "FullyConnected", "LinearMap", "LinearNetwork", "Recurrent", "Residual"]
