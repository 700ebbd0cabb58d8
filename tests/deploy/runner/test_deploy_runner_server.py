"""The runner over HTTP, by a real waitress on loopback."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from deploy_helpers import LABELS, make_images
from PIL import Image

from nat2deploy.deploy.runner.network import Network
from nat2deploy.deploy.runner.server import MAX_BODY_BYTES, MAX_SERVED_PIXELS, Address, Application

pytest.importorskip("waitress", reason="waitress is not installed")


def image_bytes(kind: str = "png") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(make_images(1)[0].permute(1, 2, 0).numpy()).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="module")
def port(exported: Path) -> Iterator[int]:
    """Of a running server, which ends well when it is told to."""
    command = [sys.executable, str(exported / "run.py"), "--serve", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("serving on http://127.0.0.1:"), line + process.stderr.read()
    yield int(line.rpartition(":")[2].partition("/")[0])
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0 and "Traceback" not in process.stderr.read()


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize("kind", ["png", "jpeg", "ppm"])
def test_says_what_the_network_says(port: int, exported: Path, kind: str) -> None:
    from nat2deploy.deploy.runner.images import decode

    code, answer = ask(port, "POST", "/classify?top=2", image_bytes(kind))
    assert code == 200 and answer["latency_ms"] > 0
    assert answer["top"] == Network(exported, None).classify(decode(image_bytes(kind)), 2)


def test_health_says_what_runs(port: int) -> None:
    assert ask(port, "GET", "/health") == (200, {"network": "abc123", "labels": list(LABELS)})


def test_many_at_once_get_the_same_answer(port: int) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(port, "POST", "/classify", image_bytes()), range(24)))
    assert {code for code, _ in answers} == {200}
    assert all(answer["top"] == answers[0][1]["top"] for _, answer in answers)


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "words"),
    [
        ("POST", "/classify", b"no image", 400, "not an image"),
        ("POST", "/classify", b"", 400, "curl --data-binary"),
        ("POST", "/classify?top=many", b"x", 400, "whole numbers"),
        ("POST", "/classify?top=0", b"x", 400, "top is 0; ask for one class at least"),
        ("GET", "/classify", None, 405, "use POST"),
        ("POST", "/health", b"x", 405, "use GET"),
        ("GET", "/../manifest.json", None, 404, "no such page"),
    ],
)
def test_what_cannot_be_answered_is_said_in_one_line(
    port: int, method: str, path: str, body: bytes | None, code: int, words: str
) -> None:
    found, answer = ask(port, method, path, body)
    assert found == code and words in answer["error"] and len(answer["error"].splitlines()) == 1
    assert ask(port, "GET", "/health")[0] == 200


def test_an_image_that_is_too_large_is_refused_unread(exported: Path) -> None:
    environ = {
        "PATH_INFO": "/classify",
        "REQUEST_METHOD": "POST",
        "CONTENT_LENGTH": str(MAX_BODY_BYTES + 1),
        "wsgi.input": None,
    }
    said: list[str] = []
    Application(Network(exported, None), 5)(environ, lambda status, headers: said.append(status))
    assert said == ["413 Content Too Large"]


def test_a_body_just_over_the_limit_is_answered_in_json(port: int) -> None:
    for size in (MAX_BODY_BYTES, MAX_BODY_BYTES + 1):
        code, answer = ask(port, "POST", "/classify", bytes(size))
        assert (code, "error" in answer) == (400 if size == MAX_BODY_BYTES else 413, True)


@pytest.mark.parametrize(
    ("head", "code", "words"),
    [
        ("POST /classify HTTP/1.1\r\nContent-Length: 999999999999\r\n", 413, "over 64 MiB; send a smaller"),
        ("POST /classify HTTP/1.1\r\nContent-Length: many\r\n", 400, "Content-Length"),
        ("GET /health HTTP/1.1\r\nno header\r\n", 400, "Invalid header"),
        ("POST /classify HTTP/1.1\r\nTransfer-Encoding: odd\r\n", 501, "Transfer-Encoding"),
        (f"GET /health HTTP/1.1\r\nX: {'x' * 300_000}\r\n", 431, "max_header"),
    ],
)
def test_what_never_reaches_the_application_is_answered_in_json_too(
    port: int, head: str, code: int, words: str
) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"{head}Host: here\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == code and answer.getheader("Content-Type") == "application/json"
        assert words in json.loads(answer.read())["error"]
    assert ask(port, "GET", "/health")[0] == 200


def test_a_small_file_of_too_many_pixels_is_refused(port: int) -> None:
    side = int(MAX_SERVED_PIXELS**0.5)
    for width, words in ((side + 2, "give 1 to 16 million"), (20_000, "sides of up to 16384")):
        stream = io.BytesIO()
        Image.new("1", (width, side if width < 20_000 else 1)).save(stream, "png")
        code, answer = ask(port, "POST", "/classify", stream.getvalue())
        assert code == 400 and words in answer["error"]


def test_a_name_of_several_addresses_is_listened_on(exported: Path) -> None:
    program = """
import runpy, socket, sys
one = socket.getaddrinfo
socket.getaddrinfo = lambda host, *more: one("127.0.0.1", *more) + one("127.0.0.2", *more)
sys.argv = [sys.argv[1], "--serve", "localhost:0"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    command = [sys.executable, "-c", program, str(exported / "run.py")]
    environment = {**os.environ, "PYTHONPATH": str(exported)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    line = process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0 and line.startswith("serving on http://localhost:"), line


def test_an_address_that_is_taken_is_one_line(port: int, exported: Path) -> None:
    command = [sys.executable, str(exported / "run.py"), "--serve", str(port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2 and f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("8080", "127.0.0.1", 8080),
        (":8080", "127.0.0.1", 8080),
        ("0.0.0.0:1", "0.0.0.0", 1),
        ("[::1]:2", "::1", 2),
    ],
)
def test_an_address_without_a_host_is_this_device_alone(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == (host, port)


@pytest.mark.parametrize("text", ["", "host", "1:2:x", "70000", "-1"])
def test_other_words_are_no_address(text: str) -> None:
    with pytest.raises(ValueError):
        Address.parse(text)
