"""Drawing damaged JSON, TOML and other files, and giving them to what takes a path."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w

from fuzz.mutation import bytes_, text, tree


def json_text(rng: random.Random, value: Any) -> str:
    """Damaged JSON: mostly a damaged tree, sometimes damaged text, sometimes far too deep."""
    kind = rng.random()
    if kind < 0.8:
        return json.dumps(tree(rng, value))
    if kind < 0.99:
        return text(rng, json.dumps(value))
    return "[" * 100_000 if kind < 0.995 else '{"a":' * 50_000


def toml_text(rng: random.Random, value: Any) -> str:
    """Damaged TOML."""
    whole = tomli_w.dumps(value)
    if rng.random() < 0.8:
        try:
            return tomli_w.dumps(tree(rng, value, nulls=False))
        except (TypeError, ValueError, AttributeError, RecursionError):  # there is no such TOML
            return text(rng, whole)
    return text(rng, whole)


def encoded(rng: random.Random, content: str) -> bytes:
    """A text's bytes, now and then no UTF-8."""
    data = content.encode("utf-8", "surrogatepass")
    return bytes_(rng, data) if rng.random() < 0.02 else data


class Place:
    """A file that each input is written to."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def feeding(self, feed: Callable[[Path], object]) -> Callable[[bytes], object]:
        """A ``feed`` of bytes from one of a path."""

        def write_and_feed(data: bytes) -> object:
            self.path.write_bytes(data)
            return feed(self.path)

        return write_and_feed
