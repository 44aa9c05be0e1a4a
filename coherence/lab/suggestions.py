"""The known name that a mistyped one probably means."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(name: str, known: Iterable[str], before: str = "") -> str:
    """The end of an error about an unknown name: ` Did you mean X?`, or nothing.

    Case does not count. At most three names, the closest first, each with `before` before it.

    >>> suggestion("winsorisation", ["width", "winsorization"])
    ' Did you mean winsorization?'
    >>> suggestion("nothing", ["width", "winsorization"])
    ''
    """
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3)
    names = " or ".join(f"{before}{by_lower[other]}" for other in close)
    return f" Did you mean {names}?" if close else ""
