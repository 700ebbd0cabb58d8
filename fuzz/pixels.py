"""What reaches a bundle's runner: image files, streams of frames, raw frames, requests over HTTP."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from fuzz.mutation import ODD_NUMBERS, bytes_, text
from fuzz.target import Target
from nat2deploy.deploy.runner.frames import raw_frames, split_frames
from nat2deploy.deploy.runner.images import decode
from nat2deploy.deploy.runner.png import PNG
from nat2deploy.deploy.runner.refusal import BadInput
from nat2deploy.deploy.runner.server import Address, Application
from nat2deploy.deploy.runner.sources import RawFormat


def targets() -> list[Target]:
    """All of this file."""
    files = _files()
    return [
        Target("image files", 20, lambda rng: _damaged(rng, files), decode),
        Target("streams of frames", 10, lambda rng: _stream(rng, files), _frames),
        Target("HTTP requests", 10, lambda rng: _request(rng, files), _serve),
    ]


def _files() -> list[bytes]:
    """Small images in every format: PNGs of each kind, PGM, PPM, JPEG, BMP, WebP."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    images = [
        rgb,
        rgb.convert("L"),
        rgb.convert("P"),
        rgb.convert("RGBA"),
        rgb.convert("LA"),
        rgb.convert("1"),
    ]
    found = [_saved(image, "PNG") for image in images]
    found += [_saved(rgb, kind) for kind in ("PPM", "JPEG", "BMP", "WEBP")]
    found.append(_saved(rgb.convert("L"), "PPM"))
    found.append(b"P6\n# deep\n3 2\n65535\n" + rng.bytes(36))
    return found


def _saved(image: Image.Image, kind: str) -> bytes:
    held = io.BytesIO()
    image.save(held, kind)
    return held.getvalue()


def _damaged(rng: random.Random, files: list[bytes]) -> bytes:
    data = rng.choice(files)
    return _png(rng, data) if data.startswith(PNG) and rng.random() < 0.7 else bytes_(rng, data)


def _png(rng: random.Random, data: bytes) -> bytes:
    """A PNG with damaged chunks whose checksums are right, so that what is behind them is reached."""
    chunks, at = [], len(PNG)
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + size]])
        at += 12 + size
    place = rng.randrange(len(chunks))
    name, body = chunks[place]
    kind = rng.randrange(5)
    if kind == 0:
        del chunks[place]
    elif kind == 1:
        chunks.insert(place, [name, body])
    elif kind == 2:
        rng.shuffle(chunks)
    elif kind == 3 and name == b"IDAT":
        chunks[place][1] = zlib.compress(bytes_(rng, zlib.decompress(body)))
    else:
        chunks[place][1] = bytes_(rng, body)
    found = PNG
    for name, body in chunks:
        found += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return found


def _stream(rng: random.Random, files: list[bytes]) -> tuple[str, bytes]:
    kind = rng.random()
    if kind < 0.2:
        return text(rng, "9x7:gray"), rng.randbytes(rng.randrange(200))
    data = b"".join(rng.choice(files) for _ in range(3))
    return "", bytes_(rng, data) if kind < 0.9 else rng.randbytes(300)


def _frames(given: tuple[str, bytes]) -> None:
    word, data = given
    read = io.BytesIO(data).read
    if word:
        try:
            raw = RawFormat.parse(word)
        except ValueError as error:  # as it says; the command line turns that into a line
            raise BadInput("no format of raw frames") from error
        if raw.width * raw.height < 1 << 20:
            for frame in raw_frames(read, raw.width * raw.height * {"gray": 1}.get(raw.pixel, 3)):
                raw.decode(frame)
        return
    for frame in split_frames(read):
        try:
            decode(frame)
        except BadInput:
            continue


class _Network:
    """In place of an engine: says what a network would."""

    labels = ("a", "b")
    manifest = {"network": "0123456789"}  # noqa: RUF012

    def answer(self, image: np.ndarray[Any, Any], top: int) -> dict[str, Any]:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        return {"top": [{"label": "a", "index": 0, "score": 1.0}][:top]}


def _request(rng: random.Random, files: list[bytes]) -> tuple[dict[str, Any], str]:
    body = _damaged(rng, files) if rng.random() < 0.7 else rng.choice(files)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/classify", "QUERY_STRING": "top=5",
        "CONTENT_LENGTH": str(len(body)),
    }  # fmt: skip
    for name in rng.sample(list(environ), rng.choice((0, 0, 1, 2))):
        kind = rng.random()
        if kind < 0.2 and name != "REQUEST_METHOD":
            del environ[name]
        elif kind < 0.5:
            environ[name] = str(rng.choice(ODD_NUMBERS))
        else:
            environ[name] = text(rng, environ[name])
    environ["wsgi.input"] = io.BytesIO(body)
    return environ, text(rng, "0.0.0.0:8080")


def _serve(given: tuple[dict[str, Any], str]) -> None:
    environ, address = given
    said: list[str] = []
    answer = Application(_Network(), 5)(environ, lambda status, headers: said.append(status))  # type: ignore[arg-type]
    value = json.loads(b"".join(answer))
    try:
        Address.parse(address)
    except ValueError as error:
        raise BadInput("no address") from error
    if not said[0].startswith("200"):
        raise BadInput(value["error"])
