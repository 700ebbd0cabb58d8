"""The code blocks of the documentation, and what comments in front of them say.

<!-- needs: gpu -->               it is not run; its commands must parse
<!-- shortened: --epochs 0.1 -->  options that each of its commands which knows them is given, instead of its own
<!-- file: my.toml -->            a file of this name is written, for the blocks behind it
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import typer

from nat2deploy.cli.app import app

ROOT = Path(__file__).parents[2]
LANGUAGES = ("bash", "python", "toml", "text", "json")
_COMMENT = re.compile(r"<!--\s*(needs|shortened|file):\s*(.*?)\s*-->")


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
