"""The records of a run as they grow: each byte is read once, and few records are kept.

A file of 10^5 records is neither parsed nor held as a whole. Lines with the same number of
quotation marks have, as a rule, the same names; of each such kind every 2^k-th record is kept, and
the last. k grows with the file.
"""

from __future__ import annotations

import json
import math
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

MOST = 1000
"""Records kept of a kind: at least as many where there are, at most twice as many."""
LONGEST = 64
"""Numbers in a list that is kept; a value for each example is not for this page."""
_BLOCK = 4 * 2**20  # bytes read at a time
_KINDS = 32  # told apart; a loop that writes more kinds of records has the rest thinned together


class Parts(NamedTuple):
    """A value by layer or by group."""

    names: tuple[str, ...]
    """Of the layers; empty for a list."""
    numbers: array[float]


class Bins(NamedTuple):
    """Counts by layer: of each layer as many."""

    names: tuple[str, ...]
    counts: tuple[array[float], ...]


Value = float | Parts | Bins
Row = tuple[int, dict[str, Value]]


class Tail:
    """A file of records, followed.

    Args:
        path: the file; it may not be there yet.
        most: as `MOST`.

    >>> Tail(Path("not/there/yet.jsonl")).read()
    False
    """

    def __init__(self, path: Path, most: int = MOST):
        self.path, self.most = path, most
        self._begin()

    def _begin(self) -> None:
        self.count = 0
        """Whole lines so far."""
        self.damaged = 0
        """Of the lines that were looked at, those that hold no record."""
        self._inode, self._offset, self._torn = -1, 0, b""
        self._kinds: dict[int, _Kind] = {}
        self._shared: dict[Any, Any] = {}  # names, which every record repeats

    def read(self) -> bool:
        """Read what is new; whether something is.

        A file that was replaced, as when a run is resumed, is read from its beginning.
        """
        try:
            with open(self.path, "rb") as file:
                return self._follow(file)
        except FileNotFoundError:
            had_some = self.count > 0
            self._begin()
            return had_some

    def _follow(self, file: BinaryIO) -> bool:
        before, status = self.count, os.fstat(file.fileno())
        if status.st_ino != self._inode or status.st_size < self._offset:
            self._begin()
            self._inode = status.st_ino
        file.seek(self._offset)
        begun = self._offset == 0
        while block := file.read(_BLOCK):
            self._offset += len(block)
            self._take(self._torn + block)
        return begun or self.count != before

    def rows(self) -> list[Row]:
        """The records that are kept, by step."""
        kept = [row for kind in self._kinds.values() for row in kind.rows()]
        return sorted(kept, key=lambda row: row[0])

    @property
    def stride(self) -> int:
        """Of the most frequent kind every so many-th record is kept."""
        return max((kind.stride for kind in self._kinds.values()), default=1)

    def _take(self, content: bytes) -> None:
        codes = np.frombuffer(content, np.uint8)
        ends = np.flatnonzero(codes == ord("\n"))
        if not ends.size:
            self._torn = content
            return
        starts = np.concatenate([[0], ends[:-1] + 1])
        before = np.searchsorted(np.flatnonzero(codes == ord('"')), ends)
        marks = np.diff(before, prepend=0)
        for mark in np.unique(marks).tolist():
            lines = np.flatnonzero(marks == mark)
            kind, place = self._kind(mark), -1
            for place in kind.chosen(len(lines)):
                line = lines[place]
                kind.newest = self._parsed(content[starts[line] : ends[line]])
                kind.keep(kind.newest, self.most)
            if place < len(lines) - 1:
                kind.newest = self._parsed(content[starts[lines[-1]] : ends[lines[-1]]])
        self.count += len(ends)
        self._torn = content[ends[-1] + 1 :]

    def _kind(self, mark: int) -> _Kind:
        if mark not in self._kinds and len(self._kinds) >= _KINDS:
            mark = -1
        return self._kinds.setdefault(mark, _Kind())

    def _parsed(self, line: bytes) -> Row | None:
        """What a page can show of a record; `None` of a line that is none."""
        try:
            record = json.loads(line)
            step = record.pop("step")
            values = {self._share(name): self._value(value) for name, value in record.items()}
        except (ValueError, AttributeError, KeyError, TypeError):
            self.damaged += 1
            return None
        if not isinstance(step, int):
            self.damaged += 1
            return None
        return step, {name: value for name, value in values.items() if value is not None}

    def _share(self, value: Any) -> Any:
        return self._shared.setdefault(value, value)

    def _value(self, value: Any) -> Value | None:
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, list):
            return Parts((), array("d", value)) if _are_numbers(value) else None
        if isinstance(value, dict) and value:
            names = self._share(tuple(value))
            inner = list(value.values())
            if _are_numbers(inner, math.inf):
                return Parts(names, array("d", inner))
            if all(isinstance(row, list) and _are_numbers(row) for row in inner):
                return Bins(names, tuple(array("d", row) for row in inner))
        return None


class _Kind:
    """Records of one kind: every `stride`-th of them, and the newest."""

    def __init__(self) -> None:
        self.stride = 1
        self.newest: Row | None = None
        self._seen = 0
        self._kept: list[Row] = []

    def chosen(self, count: int) -> Iterator[int]:
        """Which of the next `count` lines are to be kept; the stride may grow meanwhile."""
        for i in range(count):
            if (self._seen + i) % self.stride == 0:
                yield i
        self._seen += count

    def keep(self, row: Row | None, most: int) -> None:
        if row is not None:
            self._kept.append(row)
        if len(self._kept) > 2 * most:
            self._kept, self.stride = self._kept[::2], 2 * self.stride

    def rows(self) -> list[Row]:
        """Those that are kept, and the newest."""
        if self.newest is None or (self._kept and self._kept[-1][0] >= self.newest[0]):
            return self._kept
        return [*self._kept, self.newest]


def _are_numbers(values: list[Any], most: float = LONGEST) -> bool:
    numbers = all(isinstance(value, int | float) for value in values)
    return bool(values) and numbers and len(values) <= most
