"""The page as text, and as a file that holds what it shows."""

from __future__ import annotations

import functools
import json
import time
from pathlib import Path
from typing import Any

from coherence.lab.runs.files import write_text

from .watcher import Watcher

_HERE = Path(__file__).parent


@functools.cache
def _template() -> str:
    style, script = ((_HERE / f"page.{kind}").read_text() for kind in ("css", "js"))
    text = (_HERE / "page.html").read_text()
    return text.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)


def page_text(state: dict[str, Any], every: float | None = None) -> str:
    """The page in HTML; it asks its server for news unless the state says when it was `written`.

    Args:
        state: what it shows first.
        every: seconds after which a browser loads the file again; `None` for never.
    """
    # "<" could end the element that holds it
    data = json.dumps(state, allow_nan=False).replace("<", "\\u003c")
    refresh = "" if every is None else f'<meta http-equiv="refresh" content="{every:g}">'
    return _template().replace("<!--REFRESH-->", refresh).replace("/*DATA*/", data)


def write_page(watcher: Watcher, path: str | Path, every: float = 5.0) -> Path:
    """Write the page to a file, and again whenever runs have changed, until all are done.

    Args:
        watcher: the runs.
        path: the file; it is replaced as a whole.
        every: seconds between two looks, and after which a browser loads it again.

    Raises:
        FileNotFoundError: there is no folder for the file.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder {path.parent} to write {path.name} to. Make it, or name another."
        )
    version = None
    while True:
        done = watcher.done  # before reading: what is written last is seen
        state = watcher.state(None if done else version)
        if state is not None:
            written = time.strftime("%Y-%m-%d %H:%M:%S")
            write_text(path, page_text({**state, "written": written}, None if done else every))
            version = state["version"]
        if done:
            return path
        time.sleep(every)
