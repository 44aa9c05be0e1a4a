"""The records of a run: JSON lines, appended, of which a kill can only tear the last."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from .files import Damaged, naming, read_bytes, replacing, to_json


class RecordFile:
    """A file of records, kept open: opening it would cost more than a record."""

    def __init__(self, path: Path):
        self.path = path
        self._descriptor: int | None = None
        self._written: _Digest | None = None  # None: not known without reading the file

    def append(self, record: Any) -> None:
        """Hand one record to the operating system: from there on a kill cannot take it."""
        whole = line = (to_json(record, "record") + "\n").encode()
        with naming(self.path):
            try:
                if self._descriptor is None:
                    self._descriptor = self._open()
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except BaseException:
                self.close()  # half a line may be there; it is cut when the file is opened again
                self._written = None
                raise
        if self._written is not None:
            self._written.add(whole[:-1])

    def _open(self) -> int:
        if self.path.exists():
            with open(self.path, "rb+") as file:
                _drop_torn_line(file)
        return os.open(
            self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666
        )

    def records(self) -> list[dict]:
        """All records in order, without a last line that a kill tore."""
        lines = self.lines()
        whole = _parsed_together(lines)
        if whole is not None:
            return whole
        return [self._record(line, number) for number, line in enumerate(lines, start=1)]

    def lines(self) -> list[bytes]:
        """The whole lines, without their ends."""
        if not self.path.exists():
            return []
        *lines, _torn = read_bytes(self.path).split(
            b"\n"
        )  # the last piece of a whole file is empty
        return lines

    def _record(self, line: bytes, number: int) -> dict:
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if _is_record(record):
                return record
        raise Damaged(
            f"{self.path} is damaged in line {number} ({line[:40]!r}). Delete the run's folder and "
            "run again."
        )

    def truncate(self, step: int) -> None:
        """Drop the records of later steps; the others stay as they are, to the byte."""
        self.close()
        self._written = None
        kept = [
            line for line, record in zip(self.lines(), self.records()) if record["step"] <= step
        ]
        with replacing(self.path) as file:
            file.write(b"".join(line + b"\n" for line in kept))

    def fingerprint(self) -> dict:
        """`fingerprint` of all records; what this process wrote is not read again for it."""
        if self._written is None:
            self._written = _Digest()
            for line in self.lines():
                self._written.add(line)
        return self._written.fingerprint()

    def sync(self) -> None:
        """Wait until the records are on disk, where a power failure cannot take them either."""
        if self.path.exists():
            with naming(self.path), open(self.path, "rb+") as file:
                _drop_torn_line(file)
                os.fsync(file.fileno())

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    __del__ = close


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("step"), int)


def _parsed_together(lines: list[bytes]) -> list[dict] | None:
    """All lines as one array, in a fifth of the time; `None` where some line is no record."""
    if not all(line[:1] == b"{" and line[-1:] == b"}" for line in lines):
        return None
    try:
        records = json.loads(b"[%s]" % b",".join(lines))
    except ValueError:
        return None
    return records if len(records) == len(lines) and all(map(_is_record, records)) else None


def fingerprint(lines: list[bytes]) -> dict:
    """The number of records and a digest: what a checkpoint or a finished run relies on."""
    return {"records": len(lines), "sha256": hashlib.sha256(b"\n".join(lines)).hexdigest()}


class _Digest:
    """The `fingerprint` of lines that come one by one."""

    def __init__(self) -> None:
        self.count, self.sha256 = 0, hashlib.sha256()

    def add(self, line: bytes) -> None:
        self.sha256.update(b"\n" * (self.count > 0) + line)
        self.count += 1

    def fingerprint(self) -> dict:
        return {"records": self.count, "sha256": self.sha256.hexdigest()}


def _drop_torn_line(file: BinaryIO) -> None:
    """Cut what follows the last newline, and leave the position at the end."""
    end = position = file.seek(0, os.SEEK_END)
    while position:
        start = max(0, position - 65536)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            position = start + newline + 1
            break
        position = start
    if position < end:
        file.truncate(position)
    file.seek(position)
