"""What the checks found, and how it prints: as a table in plain text."""

import dataclasses
import math
from typing import NamedTuple

from coherence import display


@dataclasses.dataclass(frozen=True)
class LeafCheck:
    """How one parameter leaf gets its per-example gradients, and whether they are right.

    `kind` is the node's type; `how` its factors or the primitive without a rule; `memory` bytes of
    factors or rows for this batch. `difference` is the largest one from a loop of `jax.grad`, of
    rows, their norms and their sum, relative to the leaf's largest entry (or to a hundredth of the
    largest of any leaf, where that is more). `zero`: exactly 0 for every example of the batch.

    >>> leaf = LeafCheck("w", (64, 10), "Factored", "64 x 10", 29600, 1e-7, zero=False)
    >>> leaf.size, leaf.is_fast
    (640, True)
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    how: str
    memory: int
    difference: float
    zero: bool

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_fast(self) -> bool:
        """Whether a rule makes the gradients, in one pass for all reductions."""
        return self.kind != "Recomputed"


class StepCheck(NamedTuple):
    """How far the mean gradient is from that of a step's loss, relative to the latter's length.

    `unscaled` is that distance after multiplying the mean by `factor`, which makes it smallest.

    >>> StepCheck(difference=0.5, unscaled=0.0, factor=2.0).factor  # a loss without the mean
    2.0
    """

    difference: float
    unscaled: float
    factor: float


@dataclasses.dataclass(frozen=True, repr=False)
class LossCheck:
    """What `check_loss` found; prints as a table.

    `examples` of the `m` were compared; `batch_statistics` are sentences; `not_finite` are the
    compared examples whose gradient `jax.grad` finds nan or infinite; `step` says how the mean
    compares with the gradient of `batch_loss`.

    >>> import coherence as co
    >>> loss = lambda w, example: jnp.sum((w - example) ** 2)
    >>> check = co.check_loss(loss, jnp.ones(3), jnp.eye(3))
    >>> check.ok, check.fast_share, check.problems
    (True, 1.0, ())
    """

    leaves: tuple[LeafCheck, ...]
    m: int
    examples: int
    tolerance: float
    batch_statistics: tuple[str, ...]
    not_finite: tuple[int, ...] = ()
    step: StepCheck | None = None

    @property
    def ok(self) -> bool:
        """Gradients agree with `jax.grad`, none is zero for every example, no statistic of a
        batch is asked of one example."""
        return not self.problems

    @property
    def fast_share(self) -> float:
        """Share of the parameters (numbers, not leaves) whose gradients a rule makes."""
        return sum(leaf.size for leaf in self.leaves if leaf.is_fast) / max(
            1, sum(leaf.size for leaf in self.leaves)
        )

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence each, empty where all is well.

        A recomputed leaf is exact, hence no problem.
        """
        problems = [
            f"the loss of one example needs statistics of a batch: {what}"
            for what in self.batch_statistics
        ]
        for leaf in self.leaves:
            if not leaf.difference <= self.tolerance:  # nan is wrong too
                problems.append(
                    f"{leaf.name} differs from jax.grad by {leaf.difference:.1e} (allowed: "
                    f"{self.tolerance:.1e})"
                )
        if self.not_finite:
            problems.append(
                "gradients are nan or infinite, by jax.grad too, for these of the "
                f"{self.examples} examples compared: "
                f"{', '.join(map(str, self.not_finite))}"
            )
        if self.step is not None and not self.step.difference <= self.tolerance:
            problems.append(_of_step(self.step, self.tolerance, self.m))
        if zero := [leaf.name for leaf in self.leaves if leaf.zero]:
            problems.append(
                f"gradients are exactly 0 for every example: {', '.join(zero)}. Unused, frozen, "
                "behind dead units or a layer "
                "initialized at zero, or in front of a batch norm that sees one example"
            )
        return tuple(problems)

    def _rows(self) -> list[tuple[str, ...]]:
        head = ("leaf", "shape", "gradients", "memory", "difference", "")
        return [head] + [
            (
                leaf.name,
                "x".join(map(str, leaf.shape)) or "scalar",
                leaf.how,
                _bytes(leaf.memory),
                f"{leaf.difference:.1e}",
                "0!" * leaf.zero,
            )
            for leaf in self.leaves
        ]

    def _summary(self) -> str:
        parameters, memory = (
            sum(leaf.size for leaf in self.leaves),
            sum(leaf.memory for leaf in self.leaves),
        )
        return (
            f"{self.fast_share:.1%} of {parameters:,} parameters on a fast rule; "
            f"{_bytes(memory)} for {self.m} examples; "
            f"{self.examples} of them compared with jax.grad"
        )

    def __str__(self) -> str:
        return "\n".join([*_table(self._rows()), self._summary(), *_verdict(self.problems)])

    def _repr_html_(self) -> str:
        return _as_html(self._rows(), [self._summary(), *_verdict(self.problems)])

    __repr__ = __str__


def _of_step(step, tolerance, m):
    if step.unscaled <= tolerance:
        of_sum = f", the sum over the {m} examples" if abs(step.factor / m - 1) <= tolerance else ""
        return (
            f"batch_loss has {step.factor:.4g} times the gradient of the mean loss of the "
            f"examples{of_sum}"
        )
    return (
        "batch_loss has another gradient than the mean loss of the examples: they differ by "
        f"{step.difference:.1%} of its length. "
        "Is something averaged over the tokens of an example here and over those of the batch "
        "there, or weighted, or penalized? "
        "See docs/losses.md, 'The loss of a step'"
    )


@dataclasses.dataclass(frozen=True)
class Finding:
    """The outcome of a check.

    `difference` is the largest where it measures one, else `None`; `problem` says what is wrong, ''
    where nothing is.

    >>> Finding("odd", 0.0, "").problem == ""
    True
    """

    name: str
    difference: float | None
    problem: str


@dataclasses.dataclass(frozen=True, repr=False)
class AggregatorCheck:
    """What `check_aggregator` found; prints as a table.

    Differences are relative to what was expected.

    >>> check = AggregatorCheck((Finding("odd", 0.5, "it is not"),), tolerance=1e-3)
    >>> check.ok, check.problems
    (False, ('odd: it is not',))
    """

    findings: tuple[Finding, ...]
    tolerance: float

    @property
    def ok(self) -> bool:
        """Nothing is broken, and every property holds."""
        return not self.problems

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence each, beginning with the name of the check; empty where all is well."""
        return tuple(
            f"{finding.name}: {finding.problem}" for finding in self.findings if finding.problem
        )

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("check", "difference", "")]
        for finding in self.findings:
            difference = "" if finding.difference is None else f"{finding.difference:.1e}"
            rows.append((finding.name, difference, "broken" if finding.problem else "ok"))
        return rows

    def _summary(self) -> str:
        return f"differences of up to {self.tolerance:.1e} of what was expected count as rounding"

    def __str__(self) -> str:
        return "\n".join([*_table(self._rows()), self._summary(), *_verdict(self.problems)])

    def _repr_html_(self) -> str:
        return _as_html(self._rows(), [self._summary(), *_verdict(self.problems)])

    __repr__ = __str__


def _verdict(problems):
    return [f"problem: {problem}" for problem in problems] or ["ok"]


def _as_html(rows, sentences):
    head, *body = rows
    return display.table(head, body) + "".join(map(display.paragraph, sentences))


def _table(rows):
    """Lines of the rows, cells padded to the width of their column."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    padded = (map(str.ljust, row, widths) for row in rows)
    return ["  ".join(cells).rstrip() for cells in padded]


def _bytes(n):
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} GB"
