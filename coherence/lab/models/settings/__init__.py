"""Networks as settings: plain values that can be compared and written to JSON.

Each has `build(outputs)`, which makes the module, and `describe(inputs, outputs)`, which says it in
a few words; of those of autoencoders, which know their outputs, `build()` and `describe()`.
"""

from .autoencoders import (
    AnyAutoencoder,
    Autoencoder,
    ConditionalVariational,
    ConvolutionalVariational,
    Variational,
)
from .dense import Diagonal, FullyConnected, LinearMap, LinearNetwork, Parametrized
from .images import Convolutional, Residual
from .sequences import Recurrent

AnyModel = (
    FullyConnected | Parametrized | Convolutional | Residual | LinearNetwork | Diagonal | Recurrent
)

__all__ = [
    "AnyAutoencoder",
    "AnyModel",
    "Autoencoder",
    "ConditionalVariational",
    "Convolutional",
    "ConvolutionalVariational",
    "Diagonal",
    "FullyConnected",
    "LinearMap",
    "LinearNetwork",
    "Parametrized",
    "Recurrent",
    "Residual",
    "Variational",
]
