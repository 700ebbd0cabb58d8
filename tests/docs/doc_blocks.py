"""The code blocks of the documentation, and what comments in front of them say.

<!-- needs: gpu -->               it is not run; its commands must parse
<!-- needs: minutes -->           it is run by `make docs-blocks` and not by the suite, where its commands must parse
<!-- shortened: --epochs 0.1 -->  the suite gives these options to each of its commands which knows them, instead of
                                  its own; of a file, the keys which it sets: search.rounds=1 finetune.epochs=0.1
<!-- file: my.toml -->            a file of this name is written, for the blocks behind it
<!-- exit: 1 -->                  its commands may end with this code, too
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import tomli_w
import typer

from nat2deploy.cli.app import app

ROOT = Path(__file__).parents[2]
LANGUAGES = ("bash", "python", "toml", "text", "json")
RARE = (
    "hours",
    "a network with several exits",
    "a device",
    "a cluster",
    "gpu",
    "CIFAR-10",
    "a downloaded checkpoint",
)
"""What blocks need that few have, or that not every search of the tutorial ends with: they are parsed only."""
_COMMENT = re.compile(r"<!--\s*(needs|shortened|file|exit):\s*(.*?)\s*-->")


@dataclass
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    notes: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def runs(self, *, whole: bool) -> bool:
        """Whether it is run, by the suite or ``whole``, as it stands."""
        needs = self.notes.get("needs")
        return needs is None or (whole and needs == "minutes")

    @property
    def quick_text(self) -> str:
        """A TOML file's text with the keys that the suite sets."""
        value = tomllib.loads(self.text)
        for word in self.notes.get("shortened", "").split():
            place, given = word.split("=", 1)
            *tables, key = place.split(".")
            holder = value
            for table in tables:
                holder = holder.setdefault(table, {})
            holder[key] = json.loads(given)
        return tomli_w.dumps(value) if "shortened" in self.notes else self.text

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command; a line that ends with a backslash goes on."""
        joined = re.sub(r"\\\n\s*", " ", self.text)
        return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def pages() -> list[str]:
    """The names of README, CONTRIBUTING and of all pages."""
    found = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]
    found += sorted((ROOT / "docs").rglob("*.md"))
    return [str(path.relative_to(ROOT)) for path in found if path.exists()]


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page, in order."""
    notes: dict[str, str] = {}
    inside: Block | None = None
    for number, line in enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), 1):
        if inside is not None:
            if line == "```":
                yield inside
                inside = None
            else:
                inside.text += f"{line}\n"
        elif line.startswith("```"):
            inside, notes = Block(page, number, line[3:], "", notes), {}
        elif match := _COMMENT.fullmatch(line):
            notes[match[1]] = match[2]
        elif line:
            assert not notes, f"{page}:{number}: a comment for a block, and no block behind it"
    assert inside is None, f"{page}: a block that does not end"


def of_nat2deploy(words: list[str]) -> list[str] | None:
    """The arguments of a command line that starts nat2deploy; None for another program."""
    for start in (["nat2deploy"], [".venv/bin/nat2deploy"]):
        if words[: len(start)] == start:
            return words[len(start) :]
    if words[0] in ("torchrun", "python") and "nat2deploy" in words:
        return words[words.index("nat2deploy") + 1 :]
    return None


@lru_cache(maxsize=1)
def _application() -> Any:
    return typer.main.get_command(app)


def command_of(arguments: list[str]) -> tuple[Any, list[str]]:
    """The real command of some arguments, and those that are left for it."""
    command = _application()
    rest = list(arguments)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    return command, rest


def check_parses(arguments: list[str]) -> None:
    """Parse arguments as the program would, types and ranges included; nothing is run."""
    command, rest = command_of(arguments)
    if hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        raise ValueError(f"no such command: {' '.join(arguments)}")
    command.make_context("nat2deploy", rest)


def shortened(arguments: list[str], options: str) -> list[str]:
    """Give the command those of the options that it knows, in the place of its own."""
    command, rest = command_of(arguments)
    named = {opt: one for one in command.params for opt in (*one.opts, *one.secondary_opts)}
    words = shlex.split(options)
    while words:
        option = words.pop(0)
        value = [words.pop(0)] if words and not words[0].startswith("--") else []
        if option in named:
            while option in rest:
                place = rest.index(option)
                del rest[place : place + 1 + len(value)]
            rest += [option, *value]
    return [*arguments[: len(arguments) - len(command_of(arguments)[1])], *rest]
