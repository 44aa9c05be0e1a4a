"""Progress that suits where it is shown: a bar in a terminal or a notebook, lines in a log file."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from typing import IO, Any, Protocol

SILENCE = 30.0
"""Seconds after which a log file gets another line; each tenth gets one, too."""


class Meter(Protocol):
    """What shows how many steps are done: tqdm's bars, and `Lines`."""

    n: Any

    def update(self, n: int) -> object: ...
    def set_description(self, description: str) -> object: ...
    def write(self, line: str, file: IO[str] | None = None) -> object: ...
    def close(self) -> None: ...


def meter(total: int, leave: bool = True) -> Meter:
    """A bar where the errors go to a terminal or the code runs in a notebook; else `Lines`.

    Args:
        total: how many steps there are.
        leave: whether a bar stays when it is closed.
    """
    if _is_terminal() or _is_notebook():
        widgets = _is_notebook() and importlib.util.find_spec("ipywidgets") is not None
        if widgets:
            from tqdm.notebook import tqdm
        else:
            from tqdm import tqdm
        options = {"unit_scale": True, "mininterval": 0.5, "dynamic_ncols": True, "leave": leave}
        return tqdm(total=total, unit="step", **options)
    return Lines(total)


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # none, or closed
        return False


def _is_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


class Lines:
    """Whole lines for a log file: at each tenth of the steps, and after `SILENCE` seconds.

    Args:
        total: how many steps there are.
        clock: seconds that pass.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic):
        self.n, self._total, self._clock = 0, total, clock
        self._description = ""
        self._written = 0, clock()  # steps and time of the last line

    def set_description(self, description: str) -> None:
        """Say what is being done."""
        self._description = description

    def update(self, n: int) -> None:
        """Count `n` more steps, and write a line if one is due."""
        self.n += n
        steps, moment = self._written
        tenths = 10 * self.n // max(self._total, 1) > 10 * steps // max(self._total, 1)
        if n and (tenths or self._clock() - moment >= SILENCE):
            self._line()

    def _line(self) -> None:
        before, moment = self._written
        seconds = self._clock() - moment
        self._written = self.n, moment + seconds
        words = f"{self._description}: {self.n:,} of {self._total:,} steps"
        words += f" ({100 * self.n // max(self._total, 1)} %)"
        if seconds > 0 and self.n > before:
            rate = (self.n - before) / seconds
            words += f", {rate:,.3g} steps/s"
            if self.n < self._total:
                words += f", {duration((self._total - self.n) / rate)} left"
        self.write(words)

    def write(self, line: str, file: IO[str] | None = None) -> None:
        """Write a line of its own."""
        print(line, file=file or sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is left to write: the last step is a tenth."""


def duration(seconds: float) -> str:
    """A time in words, rounded up.

    >>> duration(44), duration(150), duration(7000)
    ('45 s', '3 min', '117 min')
    """
    if seconds < 100:
        return f"{5 * -int(-seconds // 5)} s"
    return f"{-int(-seconds // 60)} min"
