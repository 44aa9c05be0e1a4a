"""Early stopping as settings: plain values, and `build()` to make the rule and the name of the measured quantity it watches.

What `build()` returns is what `Problem.stopping` takes. Values are checked when it is called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Never:
    """Train for all steps."""

    def build(self) -> None:
        return None


@dataclass(frozen=True)
class Patience:
    """Stop when a measured quantity no longer improves."""

    checks: int = 5
    """How many measurements without improvement to bear."""
    watch: str = "test_loss"
    """Choosing by the test set is a control that looks at the answer, not a method."""
    min_delta: float = 0.0
    mode: Literal["min", "max"] = "min"

    def build(self) -> tuple[Any, str]:
        from .rules import patience

        return patience(self.checks, self.watch, self.min_delta, self.mode), self.watch


@dataclass(frozen=True)
class Evidence:
    """Stop when the mean gradient is no more than its sampling noise (Mahsereci et al. 2017)."""

    checks: int = 1

    def build(self) -> tuple[Any, str]:
        from .rules import above

        return above(0.0, "evidence", self.checks), "evidence"


@dataclass(frozen=True)
class Coherence:
    """Stop when examples no longer help each other."""

    threshold: float = 1.0
    """In examples: an m-coherence of 1 is that of unrelated gradients."""
    checks: int = 3

    def build(self) -> tuple[Any, str]:
        from .rules import below

        return below(self.threshold, "m_coherence", self.checks), "m_coherence"


@dataclass(frozen=True)
class GradientNorm:
    """Stop when the mean gradient is shorter than epsilon."""

    epsilon: float = 1e-3
    checks: int = 1

    def build(self) -> tuple[Any, str]:
        from .rules import below

        return below(self.epsilon, "gradient_norm", self.checks), "gradient_norm"


@dataclass(frozen=True)
class MaxSteps:
    """Stop at the first measurement at or after a step."""

    steps: int = 1000

    def build(self) -> tuple[Any, str]:
        from .rules import max_steps

        return max_steps(self.steps), "step"


@dataclass(frozen=True)
class AnyOf:
    """Stop when the first of several says so."""

    rules: tuple[Patience | Evidence | Coherence | GradientNorm | MaxSteps, ...]

    def build(self) -> tuple[Any, tuple]:
        from .rules import any_of

        rules, names = zip(*(rule.build() for rule in self.rules)) if self.rules else ((), ())
        return any_of(*rules), names
