"""Standard output: the console, JSON, and how figures are written."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console


def plain_console(*, stderr: bool = False) -> Console:
    """Return a console that prints what it is given: [brackets] of folders and labels are no markup."""
    return Console(highlight=False, markup=False, emoji=False, stderr=stderr)


console = plain_console()


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    print(json.dumps(value, indent=1, default=str))


def percent(value: float) -> str:
    """A share as people write it."""
    return f"{100 * value:.2f} %"
