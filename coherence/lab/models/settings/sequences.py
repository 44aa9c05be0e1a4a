"""Settings of the networks that read an example position by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coherence.lab.models.recurrent import LSTM, RNN


@dataclass(frozen=True)
class Recurrent:
    """Recurrent layers, then a linear layer on the last output."""

    width: int = 128
    """Units in each layer."""
    depth: int = 1
    """Number of recurrent layers."""
    gated: bool = True
    """Long short-term memory; False: plain tanh units."""
    shape: tuple[int, ...] | None = None
    """Positions and features to fold flat examples into (None: examples are sequences already)."""

    def __post_init__(self):
        if self.width < 1 or self.depth < 1:
            raise ValueError(
                f"Recurrent: width and depth are at least 1, got width={self.width}, depth={self.depth}."
            )
        if self.shape is not None and len(self.shape) != 2:
            raise ValueError(
                f"Recurrent: shape is positions and features, as (28, 28); got {self.shape}."
            )

    def build(self, outputs: int) -> LSTM | RNN:
        from coherence.lab.models.recurrent import LSTM, RNN

        return (LSTM if self.gated else RNN)(
            self.width, self.depth, outputs, self.shape and tuple(self.shape)
        )

    def describe(self, inputs: int, outputs: int) -> str:
        return ("LSTM " if self.gated else "RNN ") + "-".join(map(str, [self.width] * self.depth))
