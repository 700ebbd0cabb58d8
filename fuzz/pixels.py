"""What reaches a bundle's runner: image files, streams of frames, raw frames, requests over HTTP."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image

from fuzz.inputs import Damage, decoded, joined, of_parts, of_text, split
from fuzz.mutation import ODD_NUMBERS, bytes_
from fuzz.target import Target
from nat2deploy.deploy.runner.frames import raw_frames, split_frames
from nat2deploy.deploy.runner.images import decode
from nat2deploy.deploy.runner.png import PNG
from nat2deploy.deploy.runner.refusal import BadInput
from nat2deploy.deploy.runner.server import Address, Application
from nat2deploy.deploy.runner.sources import RawFormat

HEADERS = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "CONTENT_LENGTH")
WHOLE = "all"
"""In place of a length: that of the body."""
REQUEST = ("POST", "/classify", "top=5", WHOLE)
MOST_PIXELS = 1 << 16


def targets() -> list[Target]:
    """All of this file."""
    files = _files()
    raw = [joined("9x7:gray", bytes(range(100))), joined("5x3:bgr24", bytes(range(150)))]
    streams = [joined("", b"".join(files[at : at + 3])) for at in range(len(files) - 2)]
    words: list[Damage] = [_header] * 4
    requests = [joined(*REQUEST, "0.0.0.0:8080", file) for file in files]
    return [
        Target("image files", 20, files, _image, decode),
        Target("streams of frames", 10, [*raw, *streams], _stream, _frames),
        Target("HTTP requests", 10, requests, of_parts(*words, of_text, _image), _serve),
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


def _image(rng: random.Random, data: bytes) -> bytes:
    return _png(rng, data) if data.startswith(PNG) and rng.random() < 0.7 else bytes_(rng, data)


def _png(rng: random.Random, data: bytes) -> bytes:
    """A PNG with damaged chunks whose checksums are right, so that what is behind them is reached."""
    chunks, at = [], len(PNG)
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + size]])
        at += 12 + size
    if not chunks:
        return bytes_(rng, data)
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
        with suppress(zlib.error):
            chunks[place][1] = zlib.compress(bytes_(rng, zlib.decompressobj().decompress(body, MOST_PIXELS)))
    else:
        chunks[place][1] = bytes_(rng, body)
    found = PNG
    for name, body in chunks:
        found += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return found


def _stream(rng: random.Random, data: bytes) -> bytes:
    """Damage frames, or the word that says how raw ones lie, or what lies behind it."""
    word, frames = split(data, 2)
    if word and rng.random() < 0.5:
        return joined(of_text(rng, word), frames)
    return joined(word, bytes_(rng, frames) if rng.random() < 0.9 else rng.randbytes(300))


def _frames(given: bytes) -> None:
    head, data = split(given, 2)
    word = decoded(head)
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


def _header(rng: random.Random, word: bytes) -> bytes:
    """Damage a header's value; an empty one is not sent."""
    kind = rng.random()
    if kind < 0.2:
        return b""
    return str(rng.choice(ODD_NUMBERS)).encode() if kind < 0.5 else of_text(rng, word)


def _serve(given: bytes) -> None:
    *words, body = split(given, len(REQUEST) + 2)
    *values, address = (decoded(word) for word in words)
    environ: dict[str, Any] = {name: value for name, value in zip(HEADERS, values, strict=True) if value}
    environ.setdefault("REQUEST_METHOD", "POST")  # a server always says it
    if environ.get("CONTENT_LENGTH") == WHOLE:
        environ["CONTENT_LENGTH"] = str(len(body))
    environ["wsgi.input"] = io.BytesIO(body)
    said: list[str] = []
    answer = Application(_Network(), 5)(environ, lambda status, headers: said.append(status))  # type: ignore[arg-type]
    value = json.loads(b"".join(answer))
    try:
        Address.parse(address)
    except ValueError as error:
        raise BadInput("no address") from error
    if not said[0].startswith("200"):
        raise BadInput(value["error"])
