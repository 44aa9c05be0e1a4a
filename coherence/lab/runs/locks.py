"""One writer a run."""

from __future__ import annotations

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: runs work there, but two processes on one run are not noticed
    fcntl = None  # type: ignore[assignment]


class RunBusy(RuntimeError):
    """Another process, or another `Run` of this one, is writing to the folder."""


class Lock:
    """A lock on a folder, held until released, forgotten, or the process ends or is killed.

    Args:
        folder: which must exist.
        wait: for the process that holds it, instead of refusing.
    """

    def __init__(self, folder: Path, *, wait: bool = False):
        self._descriptor: int | None = None
        if fcntl is None:
            return
        self._descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            self.release()
            raise RunBusy(
                f"{folder} is being written by another process, or by another Run of this one. "
                "Wait for it, or stop it and run this again "
                "to go on from its last checkpoint; Run.read looks at it meanwhile."
            ) from None
        except OSError:
            pass  # a file system without locks: go on without

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    __del__ = release
