"""Damaging bytes, texts and trees (what JSON and TOML hold), a little at a time."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Sequence
from typing import Any

ODD_TEXTS = (
    "", " ", "\0", "\n", "a\nb", "ä", "\u202e", "\ud800", "\U0001d7db", "é" * 5000, "x" * 300, "..",
    "../../etc/passwd",
    "/", "~", "~nobody-at-all", "C:\\x", "-", "--help", "%s", "{}", "$HOME", "1e999", "nan", "inf", "-0", "٣",
    "best", "cpu", "cuda:99999999999999999999", "ssh://", "null", "true", "0x10", "1_000", "[", "{", '"', "'",
)  # fmt: skip
ODD_NUMBERS = (
    0, 1, -1, 2, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 10**400,
    0.0, -0.0, 0.5, 1e-320, 1e-9, 1e300, math.nan, math.inf, -math.inf, True, False,
)  # fmt: skip
_MAGIC = (
    b"\0",
    b"\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\n",
    b"\r\n",
    b"PK\x03\x04",
)


def bytes_(rng: random.Random, data: bytes) -> bytes:
    """One to a few small changes of bytes."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(found) + 1)
        kind = rng.randrange(8)
        if kind == 0 and found:
            found[at % len(found)] ^= 1 << rng.randrange(8)
        elif kind == 1 and found:
            found[at % len(found)] = rng.randrange(256)
        elif kind == 2:
            found[at:at] = rng.choice(_MAGIC)
        elif kind == 3:
            del found[at : at + rng.choice((1, 2, 4, 16, 200))]
        elif kind == 4:
            del found[at:]
        elif kind == 5:
            length = rng.choice((1, 4, 30))
            start = rng.randrange(len(found) + 1)
            found[at:at] = found[start : start + length]
        elif kind == 6:
            magic = rng.choice(_MAGIC)
            found[at : at + len(magic)] = magic
        else:
            found[at:at] = rng.randbytes(rng.choice((1, 3, 20)))
    return bytes(found)


def text(rng: random.Random, given: str) -> str:
    """One to a few small changes of characters."""
    found = given
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(found) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            found = found[:at] + found[at + rng.choice((1, 2, 9)) :]
        elif kind == 1:
            found = found[:at] + rng.choice(ODD_TEXTS) + found[at:]
        elif kind == 2:
            found = found[:at] + chr(rng.choice((rng.randrange(32, 127), rng.randrange(0xD800)))) + found[at:]
        elif kind == 3:
            start = rng.randrange(len(found) + 1)
            found = found[:at] + found[start : start + rng.choice((1, 5, 40))] + found[at:]
        elif kind == 4:
            found = found[:at]
        else:
            found = found[:at] + str(rng.choice(ODD_NUMBERS[:15])) + found[at:]
    return found


def tree(rng: random.Random, value: Any, *, nulls: bool = True) -> Any:
    """One to a few changes of a tree of dictionaries, lists, texts and numbers, in place where it can be."""
    found = value
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        places = _places(found) if isinstance(found, dict | list) else []
        if not places:
            return _odd(rng, found, nulls)
        holder, key = rng.choice(places)
        kind = rng.randrange(8)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice(ODD_TEXTS[:-3])] = rng.choice(places)[1]
        elif kind == 2 and isinstance(holder, dict):
            holder[text(rng, str(key))] = holder.pop(key)
        elif kind == 3 and isinstance(holder, list):
            holder[key:key] = [copy.deepcopy(holder[key])] * rng.choice((1, 2, 30))
        elif kind == 4:
            other, place = rng.choice(places)
            holder[key] = copy.deepcopy(other[place])
        elif kind == 5:
            for _ in range(rng.choice((1, 3, 200))):
                holder[key] = [holder[key]]
        else:
            holder[key] = _odd(rng, holder[key], nulls)
    return found


def _odd(rng: random.Random, value: Any, nulls: bool) -> Any:
    """A strange value, often of the same kind as the one that was there."""
    if isinstance(value, str) and rng.random() < 0.6:
        return text(rng, value)
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.6:
        return rng.choice(
            (*ODD_NUMBERS, -value, value + 1, value * 2, value / 3 if abs(value) < 1e300 else 0)
        )
    choices: Sequence[Any] = (rng.choice(ODD_TEXTS), rng.choice(ODD_NUMBERS), [], {}, [value], {"a": value})
    return rng.choice((*choices, None) if nulls else choices)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every holder of a tree with each of its keys."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            found.append((holder, key))
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])
    return found
