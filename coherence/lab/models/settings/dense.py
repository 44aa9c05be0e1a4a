"""Settings of the networks that read an example as one vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from coherence.lab.models.dense import MLP, MuMLP
    from coherence.lab.models.linear import DeepLinear, DiagonalChain, Linear


@dataclass(frozen=True)
class FullyConnected:
    """Hidden layers of one width with ReLU; initialized as in the paper."""

    width: int = 256
    """Units in each hidden layer."""
    depth: int = 1
    """Number of hidden layers; 0 is logistic regression."""

    def __post_init__(self):
        _check_hidden(self)

    def build(self, outputs: int) -> MLP:
        from coherence.lab.models.dense import MLP

        return MLP(self.width, self.depth, outputs)

    def describe(self, inputs: int, outputs: int) -> str:
        return f"MLP {_sizes(self, inputs, outputs)}"


@dataclass(frozen=True)
class Parametrized:
    """Like `FullyConnected`, initialized and scaled so that widths can be compared."""

    width: int = 256
    """Units in each hidden layer."""
    depth: int = 1
    """Number of hidden layers."""
    parametrization: Literal["standard", "mu"] = "mu"
    """standard: weights of variance 2 / inputs. mu: maximal update, for which a learning rate of SGD suits all widths."""
    base_width: int = 64
    """The width at which both are the same network."""

    def __post_init__(self):
        _check_hidden(self)
        if self.base_width < 1 or self.parametrization not in ("standard", "mu"):
            raise ValueError(
                "Parametrized: parametrization is standard or mu and base_width at least 1, "
                f"got parametrization={self.parametrization!r}, base_width={self.base_width}."
            )

    def build(self, outputs: int) -> MLP | MuMLP:
        from coherence.lab.models.dense import MLP, MuMLP, he_init

        if self.parametrization == "mu":
            return MuMLP(self.width, self.depth, outputs, self.base_width)
        return MLP(self.width, self.depth, outputs, he_init)

    def describe(self, inputs: int, outputs: int) -> str:
        kind = f"mu, base width {self.base_width}" if self.parametrization == "mu" else "standard"
        return f"MLP {_sizes(self, inputs, outputs)} ({kind})"


@dataclass(frozen=True)
class LinearNetwork:
    """Hidden layers of one width without nonlinearity or bias: a product of matrices."""

    width: int = 256
    """Units in each hidden layer."""
    depth: int = 1
    """Number of hidden layers: one less than there are matrices."""

    def __post_init__(self):
        _check_hidden(self)

    def build(self, outputs: int) -> DeepLinear:
        from coherence.lab.models.linear import DeepLinear

        return DeepLinear(self.width, self.depth, outputs)

    def describe(self, inputs: int, outputs: int) -> str:
        return f"linear network {_sizes(self, inputs, outputs)}"


@dataclass(frozen=True)
class Diagonal:
    """A linear map whose every weight is a product of factors that start equal."""

    depth: int = 2
    """Number of factors; 1 is a linear map."""
    initial: float = 0.01
    """Every weight at first, above 0; the smaller, the more depth favours what is shared."""

    def __post_init__(self):
        if self.depth < 1 or not self.initial > 0:
            raise ValueError(
                f"Diagonal: depth is at least 1 and initial above 0, got depth={self.depth}, initial={self.initial}."
            )

    def build(self, outputs: int) -> DiagonalChain:
        from coherence.lab.models.linear import DiagonalChain

        return DiagonalChain(self.depth, outputs, self.initial)

    def describe(self, inputs: int, outputs: int) -> str:
        return f"diagonal chain {inputs}-{outputs} of {self.depth} factors"


@dataclass(frozen=True)
class LinearMap:
    """A linear map without bias that starts at zero."""

    def build(self, outputs: int) -> Linear:
        from coherence.lab.models.linear import Linear

        return Linear(outputs)

    def describe(self, inputs: int, outputs: int) -> str:
        return f"linear map {inputs}-{outputs}"


def _check_hidden(network):
    if network.width < 1 or network.depth < 0:
        raise ValueError(
            f"{type(network).__name__}: width is at least 1 and depth at least 0, got width={network.width}, depth={network.depth}."
        )


def _sizes(network, inputs, outputs):
    return "-".join(map(str, [inputs, *[network.width] * network.depth, outputs]))
