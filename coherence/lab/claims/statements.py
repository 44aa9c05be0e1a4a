"""What sources claim, as plain data: a file `experiments/claims/NAME.toml` for each experiment."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args

Known = Literal["read", "second-hand", "remembered", "derived"]
Group = Literal["papers", "ours", "tutorials"]
Direction = Literal["greater", "less", "within"]

GROUPS: dict[str, str] = {
    "papers": "the papers' claims",
    "exact": "exact checks",
    "ours": "our own controls and extensions",
    "tutorials": "claims of tutorials and textbooks",
}
"""Of claims, which are counted apart, in words. A claim of exact values is an exact check whoever
says it."""


@dataclass(frozen=True)
class Source:
    """Where a claim comes from.

    Args:
        reference: paper and section; of our own claims "ours", and what they rest on.
        known: how firmly: "read" in the source, "second-hand" from an account of it, "remembered",
            or "derived" by algebra or by us.
        group: "papers" for the four papers on coherent gradients, "ours", or "tutorials" for
            tutorials, textbooks and what else is not about coherence.
        says: the sentence of the paper that is claimed; a claim of the papers without one is ours.

    Raises:
        ValueError: another word, a claim of the papers that no sentence of theirs makes, or one of
            ours that does not say so.
    """

    reference: str
    known: Known
    group: Group = "ours"
    says: str = ""

    def __post_init__(self) -> None:
        for name, choices in (("known", Known), ("group", Group)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"source {self.reference}: {name} is one of {', '.join(get_args(choices))}, "
                    f"got {getattr(self, name)!r}."
                )
        if (self.group == "ours") != self.reference.startswith("ours"):
            raise ValueError(
                f'source {self.reference}: the reference of group "ours", and of no other, '
                f'begins with "ours"; its group is {self.group!r}.'
            )
        if self.group == "papers" and not (self.says and self.known in ("read", "second-hand")):
            raise ValueError(
                f"source {self.reference}: a claim of the papers is a sentence (says) that was "
                f"read there or in an account of it, got known = {self.known!r}, says = "
                f"{self.says!r}. What is only remembered or derived is ours."
            )


@dataclass(frozen=True)
class Claim:
    """A statement of a source that a run can confirm or contradict.

    Args:
        name: short, unique in its experiment.
        text: the claim in words.
        source: who says so.
        statistic: what is measured, in words.
        direction: the side of `threshold` on which the statistic is claimed to be; "within" claims
            exact values, no farther from it than `tolerance`.
        unit: of the statistic, in the field's words.

    Raises:
        ValueError: another direction, or a tolerance without "within".
    """

    name: str
    text: str
    source: Source
    statistic: str
    direction: Direction
    threshold: float = 0.0
    tolerance: float | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if self.direction not in get_args(Direction):
            raise ValueError(
                f"claim {self.name}: direction is one of {', '.join(get_args(Direction))}, "
                f"got {self.direction!r}."
            )
        if (self.direction == "within") != (self.tolerance is not None):
            raise ValueError(
                f'claim {self.name}: tolerance goes with direction "within" and only with it, '
                f"got {self.direction!r} and {self.tolerance}."
            )

    @property
    def group(self) -> str:
        """The key in `GROUPS` under which it is counted."""
        return "exact" if self.direction == "within" else self.source.group

    @property
    def statement(self) -> str:
        """The claim and what is measured for it, in words."""
        return f"{self.text} Measured: {self.statistic}."


def digest(claim: Claim) -> str:
    """A digest of all that decides a verdict: the words, what is measured, where it must lie."""
    numbers = [None if x is None else float(x) for x in (claim.threshold, claim.tolerance)]
    text = json.dumps([claim.text, claim.statistic, claim.direction, *numbers])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read(path: str | Path) -> tuple[Claim, ...]:
    """The claims of a TOML file.

    It has a table `sources.KEY` for each source, with the fields of `Source`, and a table `claims`
    for each claim: `name`, `source` (a key), `text`, `measured`, one of `above`, `below` and
    `equals` (with its `within`), perhaps a `unit`.

    Raises:
        ValueError: the file is no such file, with the claim or source that is wrong.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        sources = {key: Source(**_words(table)) for key, table in dict(tables["sources"]).items()}
        claims = tuple(_claim(_words(table), sources) for table in tables["claims"])
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        what = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is no file of claims: {what}") from error
    names = [claim.name for claim in claims]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path} claims twice: {', '.join(sorted(twice))}.")
    return claims


def _words(table: dict[str, Any]) -> dict[str, Any]:
    """A table whose texts are in one line each."""
    if not isinstance(table, dict):
        raise ValueError(
            f"a source is a table [sources.KEY], a claim one [[claims]], not {table!r}."
        )
    return {
        key: " ".join(value.split()) if isinstance(value, str) else value
        for key, value in table.items()
    }


def _claim(table: dict[str, Any], sources: dict[str, Source]) -> Claim:
    sides: dict[str, Direction] = {"above": "greater", "below": "less", "equals": "within"}
    given = [key for key in sides if key in table]
    name = table.pop("name")
    if len(given) != 1:
        raise ValueError(f"claim {name}: one of {', '.join(sides)} is needed, got {given}.")
    (side,) = given
    for key in {side, "within"} & table.keys():
        number = table[key]
        if isinstance(number, bool) or not isinstance(number, int | float) or not isfinite(number):
            raise ValueError(f"claim {name}: {key} is a finite number, got {number!r}.")
    return Claim(
        name,
        source=sources[table.pop("source")],
        statistic=table.pop("measured"),
        direction=sides[side],
        threshold=table.pop(side),
        tolerance=table.pop("within", None),
        **table,
    )
