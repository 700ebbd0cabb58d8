"""Classify images over HTTP: POST an image's bytes to /classify; GET /health says what runs here."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

from .images import decode
from .refusal import BadInput

if TYPE_CHECKING:
    from .network import Network

    Environ = dict[str, Any]
    StartResponse = Callable[[str, list[tuple[str, str]]], object]

MAX_BODY_BYTES = 64 << 20
MAX_SERVED_PIXELS = 16_000_000
"""Fewer than of files: whoever reaches the server may send images, and four are decoded at a time."""
_TOO_LARGE = f"over {MAX_BODY_BYTES >> 20} MiB; send a smaller image"
_MARGIN = 1 << 20  # read beyond the limit: a client that sends all before it listens still gets the answer
_STATUS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
}


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``8080`` or ``:8080`` (this device alone), or such as ``0.0.0.0:8080`` (all that reach it).

        Raises:
            ValueError: something else.
        """
        host, _, port = text.rpartition(":")
        found = cls(host.strip("[]") or "127.0.0.1", int(port))
        if not 0 <= found.port < 65536:
            raise ValueError(text)
        return found


class Application:
    """A WSGI application around a network; any WSGI server can run it.

    Args:
        network: one image at a time goes through it, on all of its threads.
        top: classes in an answer where the request asks for no other number.
    """

    def __init__(self, network: Network, top: int) -> None:
        self._network = network
        self._top = top
        self._turn = threading.Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request with one JSON object; errors are ``{"error": "one line"}``."""
        try:
            code, answer = self._answer(environ)
        except BadInput as error:
            code, answer = 400, {"error": str(error)}
        body = (json.dumps(answer) + "\n").encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response(f"{code} {_STATUS[code]}", headers)
        return [body]

    def _answer(self, environ: Environ) -> tuple[int, dict[str, Any]]:
        wanted = {"/health": "GET", "/classify": "POST"}.get(environ.get("PATH_INFO", ""))
        if wanted is None:
            return 404, {"error": "no such page; POST an image to /classify, or GET /health"}
        if environ["REQUEST_METHOD"] != wanted:
            return 405, {"error": f"use {wanted} here"}
        if wanted == "GET":
            manifest = self._network.manifest
            return 200, {"network": manifest.get("network"), "labels": self._network.labels}
        return self._classify(environ)

    def _classify(self, environ: Environ) -> tuple[int, dict[str, Any]]:
        try:
            length = int(environ.get("CONTENT_LENGTH") or 0)
            top = int(parse_qs(environ.get("QUERY_STRING", "")).get("top", [str(self._top)])[0])
        except ValueError:
            return 400, {"error": "top and Content-Length are whole numbers"}
        if length > MAX_BODY_BYTES:
            return 413, {"error": _TOO_LARGE}
        if top < 1:
            return 400, {"error": f"top is {top}; ask for one class at least"}
        if length < 1:
            return 400, {"error": "send an image's bytes: curl --data-binary @image.png .../classify?top=5"}
        image = decode(environ["wsgi.input"].read(length), MAX_SERVED_PIXELS)
        with self._turn:
            start = time.perf_counter()
            answer = self._network.answer(image, top)
            latency_ms = 1e3 * (time.perf_counter() - start)
        return 200, {**answer, "latency_ms": round(latency_ms, 4)}


def serve(network: Network, address: Address, *, top: int) -> int:
    """Serve until the process is told to end.

    Raises:
        BadInput: no waitress installed, or the address cannot be listened on.
    """
    try:
        import waitress
    except ImportError:
        raise BadInput("--serve needs waitress; run `pip install waitress`") from None
    _refuse_in_json()
    try:
        server = waitress.create_server(
            Application(network, top),
            host=address.host,
            port=address.port,
            threads=4,
            max_request_body_size=MAX_BODY_BYTES + _MARGIN,
            ident="nat2deploy",
        )
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or error
        raise BadInput(f"cannot listen on {address.host}:{address.port}: {words}") from None
    host = f"[{address.host}]" if ":" in address.host else address.host
    # A name of several addresses, as localhost is with IPv6, is listened on at each.
    several = getattr(server, "effective_listen", None)
    port = several[0][1] if several else server.effective_port
    signal.signal(signal.SIGTERM, _end)  # before the line that says it is there
    print(f"serving on http://{host}:{port}/classify", file=sys.stderr, flush=True)
    server.run()
    return 0


def _refuse_in_json() -> None:
    """Let waitress say in our form what it refuses itself: broken HTTP, and bodies far over the limit."""
    from waitress.channel import HTTPChannel
    from waitress.server import BaseWSGIServer
    from waitress.task import ErrorTask

    class Refusal(ErrorTask):  # type: ignore[misc]  # waitress has no types
        """What waitress says of a request that never reaches the application."""

        def execute(self) -> None:
            """Write the answer; the rest of the request is not read."""
            error = self.request.error
            line = _TOO_LARGE if error.code == 413 else (str(error.body).splitlines() or [error.reason])[0]
            body = (json.dumps({"error": line}) + "\n").encode()
            self.status = f"{error.code} {_STATUS.get(error.code, error.reason)}"
            self.response_headers.append(("Content-Type", "application/json"))
            self.set_close_on_finish()
            self.content_length = len(body)
            self.write(body)

    class Channel(HTTPChannel):  # type: ignore[misc]
        """A connection whose refusals are ours."""

        error_task_class = Refusal

    BaseWSGIServer.channel_class = Channel


def _end(number: int, frame: object) -> None:
    raise SystemExit(0)
