"""A bounded cache of compiled programs, shared by runs, arms and fits that train the same thing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any


class Programs:
    """A bounded cache of functions that JAX compiles, and of what is compiled of them.

    A program depends on the functions it calls and on the shapes of its arguments; data and keys
    are arguments. So two runs share one where `get` gives them the same functions, and it gives
    the same for equal values: settings, functions made by `get` before, numbers. The
    entry that was not used for longest is dropped, its compiled programs with it, where there are
    more than `size`.
    """

    def __init__(self, size: int = 128):
        if size < 1:
            raise ValueError(f"Programs(size): at least 1 entry, got {size}.")
        self.size = size
        self._entries: OrderedDict[tuple, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, make: Callable, *values: Any) -> Any:
        """`make(*values)`, made once for equal values; anew each time where a value has no hash."""
        key = (make, *((type(value), value) for value in values))
        try:
            hash(key)
        except TypeError:
            return make(*values)
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        entry = make(*values)  # may ask for others, so not under the lock
        with self._lock:
            entry = self._entries.setdefault(key, entry)
            self._entries.move_to_end(key)
            while len(self._entries) > self.size:
                self._entries.popitem(last=False)
        return entry

    def clear(self) -> None:
        """Drop everything, and the memory that compiled programs take."""
        with self._lock:
            self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)


PROGRAMS = Programs()
"""The lab's own."""
