"""SIGTERM, which batch systems send before they kill: training ends with a checkpoint."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn


class Terminated(SystemExit):
    """Training was asked to end by SIGTERM and did; what it had done is on disk.

    A program that does not catch it ends with status 143, as the shell counts that signal, and
    without a traceback.
    """

    def __init__(self):
        super().__init__(128 + signal.SIGTERM)


@contextlib.contextmanager
def termination() -> Iterator[Callable[[], bool]]:
    """A context in which SIGTERM is only noted; its value is a function that says whether it came.

    If nobody acted on it, the context ends with `leave`.

    Signals are handled in the main thread alone, and a program that handles this one keeps its own
    way: there nothing is installed, and the answer is always no.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield lambda: False
        return
    came = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if came.is_set():
        leave("every run that was begun is finished")


def leave(how_far: str) -> NoReturn:
    """Say on stderr how far training came, and end.

    Raises:
        Terminated: always.
    """
    print(
        f"\ncoherence: SIGTERM: {how_far}; the same command goes on from there.",
        file=sys.stderr,
        flush=True,
    )
    raise Terminated
