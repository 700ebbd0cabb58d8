"""Inputs are bytes: how words, JSON, TOML and several parts lie in them, and how each kind is damaged.

A damage takes a random state and a whole input, or one that is damaged already, and gives another.
"""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from fuzz import mutation

Damage = Callable[[random.Random, bytes], bytes]

BETWEEN = b"\xff"
"""What is between the parts of an input: no text has it."""
_DEEPEST_TOML = 40
_NO_TREE = (ValueError, TypeError, AttributeError, RecursionError, OverflowError)
"""What parsing damaged text raises, and writing what there is no JSON or TOML for."""


def decoded(data: bytes) -> str:
    """A text of any bytes; lone surrogates stay what they are."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")


def encoded(text: str) -> bytes:
    """The bytes of any text."""
    return text.encode("utf-8", "surrogatepass")


def joined(*parts: str | bytes) -> bytes:
    """One input of several parts."""
    return BETWEEN.join(encoded(part) if isinstance(part, str) else part for part in parts)


def split(data: bytes, count: int) -> list[bytes]:
    """An input's parts; those that are missing are empty, and the last may hold what is between parts."""
    found = data.split(BETWEEN, count - 1)
    return found + [b""] * (count - len(found))


def words(data: bytes) -> list[str]:
    """All parts of an input, as texts."""
    return [decoded(part) for part in data.split(BETWEEN)]


def loaded(data: str | bytes) -> Any:
    """What JSON says, None where it says nothing."""
    try:
        return json.loads(data)
    except _NO_TREE:
        return None


def of_text(rng: random.Random, data: bytes) -> bytes:
    """Damage a text."""
    return encoded(mutation.text(rng, decoded(data)))


def of_words(rng: random.Random, data: bytes) -> bytes:
    """Damage one or two of an input's words."""
    found = data.split(BETWEEN)
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(found))
        odd = rng.random() < 0.2
        found[at] = encoded(rng.choice(mutation.ODD_TEXTS)) if odd else of_text(rng, found[at])
    return joined(*found)


def of_json(rng: random.Random, data: bytes) -> bytes:
    """Damage JSON: mostly its tree, sometimes its text or bytes, sometimes make it far too deep."""
    return _of_tree(rng, data, json.loads, json.dumps)


def of_toml(rng: random.Random, data: bytes) -> bytes:
    """Damage TOML."""
    return _of_tree(rng, data, tomllib.loads, _toml, nulls=False)


def _toml(value: Any) -> str:
    """TOML of a tree that is not too deep: a list's text is copied by each one around it."""
    level, depth = [value], 0
    while level:
        level = [one for holder in level for one in _inside(holder)]
        depth += 1
    if depth > _DEEPEST_TOML:
        raise ValueError("too deep")
    return tomli_w.dumps(value)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _of_tree(
    rng: random.Random,
    data: bytes,
    load: Callable[[str], Any],
    dump: Callable[[Any], str],
    *,
    nulls: bool = True,
) -> bytes:
    kind = rng.random()
    if kind < 0.8:
        try:
            return encoded(dump(mutation.tree(rng, load(data.decode()), nulls=nulls)))
        except _NO_TREE:
            return of_text(rng, data)
    if kind < 0.98:
        return of_text(rng, data)
    if kind < 0.99:
        return mutation.bytes_(rng, data)
    return b"[" * 100_000 if kind < 0.995 else b'{"a":' * 50_000


def of_lines(damage: Damage) -> Damage:
    """Damage one line of a file of several."""

    def change(rng: random.Random, data: bytes) -> bytes:
        found = data.split(b"\n")
        at = rng.randrange(len(found))
        found[at] = damage(rng, found[at])
        return b"\n".join(found)

    return change


def of_parts(*damages: Damage) -> Damage:
    """Damage one of an input's parts, each in its own way."""

    def change(rng: random.Random, data: bytes) -> bytes:
        found = split(data, len(damages))
        at = rng.randrange(len(found))
        found[at] = damages[at](rng, found[at])
        return joined(*found)

    return change


def by_head(damages: dict[str, Damage]) -> Damage:
    """Damage what is behind an input's first part, a word, in the way of that word."""

    def change(rng: random.Random, data: bytes) -> bytes:
        head, rest = split(data, 2)
        damage = damages.get(decoded(head)) or next(iter(damages.values()))
        return joined(head, damage(rng, rest))

    return change


def sometimes(share: float, damage: Damage, otherwise: Damage) -> Damage:
    """One damage for a share of the inputs, another one for the rest."""
    return lambda rng, data: (damage if rng.random() < share else otherwise)(rng, data)


def packed(values: Sequence[Any], dump: Callable[[Any], str] = json.dumps) -> list[bytes]:
    """Trees as whole inputs."""
    return [encoded(dump(value)) for value in values]


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
