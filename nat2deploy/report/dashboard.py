"""A run's report over HTTP, drawn anew whenever the run's files have changed."""

from __future__ import annotations

import hashlib
import socket
import threading
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nat2deploy.errors import UserError
from nat2deploy.report.facts import gather
from nat2deploy.report.page import PLOTLY, asset, render
from nat2deploy.report.payload import payload_of
from nat2deploy.report.reading import read_run

_WATCHED = ("config.toml", "front.json", "history.json", "archive.jsonl", "timings.json", "verification.json")
_LOCAL = ("127.0.0.1", "localhost", "::1")


class Dashboard:
    """Serves ``/``, the report, and ``/plotly.js``; nothing of the run can be changed through it.

    Use it as a context, which gives the port back.

    Args:
        run: the folder of a search or of a pipeline, which may still be made.
        host: the address to listen on; a local one answers requests for local names only.
        port: 0 takes a free one.
        bundle: a folder or a zip, where it is not the pipeline's own.

    Raises:
        UserError: no run, no host, or the port cannot be had.
    """

    def __init__(
        self, run: Path, *, host: str = "127.0.0.1", port: int = 8765, bundle: Path | None = None
    ) -> None:
        self._run, self._bundle = run, bundle
        self._lock = threading.Lock()
        self._held: tuple[tuple[object, ...], str] | None = None
        if not host:  # to systems that is every address
            raise UserError("no host to listen on; give --host 127.0.0.1, or 0.0.0.0 for every address")
        self.page()
        try:
            server = _SixthServer if ":" in host else ThreadingHTTPServer
            self._server = server((host, port), partial(_Handler, self))
        except (OSError, OverflowError) as error:
            raise UserError(
                f"cannot listen on {host}, port {port}: {error}; choose another --host or --port"
            ) from error
        self._server.daemon_threads = True
        self.only_local = host in _LOCAL

    @property
    def url(self) -> str:
        """Where the page is."""
        host, port = self._server.server_address[:2]
        return f"http://[{host!s}]:{port}/" if ":" in str(host) else f"http://{host!s}:{port}/"

    def page(self) -> str:
        """The report as the run's files are now.

        Raises:
            UserError: there is no run any more.
        """
        with self._lock:
            state = self._state()
            if self._held is None or self._held[0] != state:
                facts = gather(read_run(self._run, self._bundle))
                self._held = (state, render(facts, payload_of(facts), {}, live=True))
            return self._held[1]

    def serve(self) -> None:
        """Answer until ``stop``, or Ctrl-C."""
        self._server.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        """End ``serve`` in another thread."""
        self._server.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.server_close()

    def _state(self) -> tuple[object, ...]:
        """What tells whether a file has changed."""
        folders = (self._run, self._run / "search")
        paths = [folder / name for folder in folders for name in _WATCHED]
        paths += [p for folder in folders for p in sorted(folder.glob("networks/*/finetune.json"))]
        bundle = self._bundle or self._run / "bundle"
        paths += [bundle, bundle / "manifest.json", bundle / "evidence.json"]
        found: list[object] = []
        for path in paths:
            try:
                seen = path.stat()
                found.append((str(path), seen.st_mtime_ns, seen.st_size))
            except OSError:
                continue
        return tuple(found)


class _SixthServer(ThreadingHTTPServer):
    """Listens on an address of IPv6."""

    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    server_version = "nat2deploy"
    sys_version = ""

    def __init__(self, dashboard: Dashboard, *args: Any) -> None:
        self._dashboard = dashboard
        super().__init__(*args)

    def do_GET(self) -> None:
        """Answer one request."""
        host = self.headers.get("Host", "").rsplit(":", 1)[0].strip("[]")
        if self._dashboard.only_local and host not in _LOCAL:  # a page elsewhere whose name leads here
            self._send(HTTPStatus.FORBIDDEN, "text/plain", "this dashboard is for this machine alone\n")
        elif self.path == "/":
            try:
                self._send(HTTPStatus.OK, "text/html", self._dashboard.page())
            except UserError as error:
                self._send(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"{error}\n")
        elif self.path == "/plotly.js":
            self._send(HTTPStatus.OK, "text/javascript", asset(PLOTLY))
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", "there is only /\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each request."""

    def _send(self, status: HTTPStatus, kind: str, text: str) -> None:
        content = text.encode()
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        unchanged = status is HTTPStatus.OK and self.headers.get("If-None-Match") == tag
        self.send_response(HTTPStatus.NOT_MODIFIED if unchanged else status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("X-Content-Type-Options", "nosniff")
        if status is HTTPStatus.OK:
            self.send_header("ETag", tag)
            self.send_header("Cache-Control", "no-cache")
        self.send_header("Content-Length", "0" if unchanged else str(len(content)))
        self.end_headers()
        if not unchanged:
            try:
                self.wfile.write(content)
            except ConnectionError:  # the browser has left
                self.close_connection = True
