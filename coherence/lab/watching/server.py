"""The page, served on this machine by the standard library's server."""

from __future__ import annotations

import contextlib
import errno
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from .page import page_text
from .watcher import Watcher

PORT = 8765
_HOSTS = ("localhost", "127.0.0.1", "[::1]")
"""By which the page is asked for; another name would be another site's, pointed here."""


def serve(watcher: Watcher, port: int = PORT) -> ThreadingHTTPServer:
    """A server of the page on localhost, to be run by `serve_forever`.

    `/` is the page, `/data.json` what it shows; with `?version=N` nothing where it still is that.

    Args:
        watcher: the runs.
        port: 0 for one that is free.

    Raises:
        OSError: the port is taken, or may not be used.

    >>> import tempfile
    >>> from coherence.lab.runs import Run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Run.open(f"{folder}/seed=0", {}, seed=0).close()
    ...     with serve(Watcher([folder]), port=0) as server:
    ...         server.server_address[0]
    '127.0.0.1'
    """

    class Handler(_Handler):
        pass

    Handler.watcher = watcher
    watcher.state()  # reads what is there, so that the page need not wait
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = "is taken" if taken else f"cannot be used ({error})"
        raise OSError(
            f"port {port} of this machine {why}. Name another with --port, or --port 0 for one "
            "that is free."
        ) from None


class _Handler(BaseHTTPRequestHandler):
    watcher: Watcher

    def do_GET(self) -> None:
        host = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host")
        parts = urlsplit(self.path)
        if host not in _HOSTS:
            self._answer(403, "text/plain", b"this page is for localhost")
        elif parts.path == "/":
            state = self.watcher.state()
            assert state is not None  # no version was named
            self._answer(200, "text/html", page_text(state).encode())
        elif parts.path == "/data.json":
            self._data(parse_qs(parts.query).get("version", [""])[0])
        else:
            self._answer(404, "text/plain", b"there is / and /data.json")

    def _data(self, version: str) -> None:
        state = self.watcher.state(int(version) if version.isdecimal() else None)
        if state is None:
            self._answer(204, "application/json", b"")
        else:
            self._answer(200, "application/json", json.dumps(state, allow_nan=False).encode())

    def _answer(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the page was closed
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal is for what went wrong."""
