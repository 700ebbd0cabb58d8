"""Standard output: the console, JSON, and how figures are written."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console

console = Console(highlight=False)


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    print(json.dumps(value, indent=1, default=str))


def percent(value: float) -> str:
    """A share as people write it."""
    return f"{100 * value:.2f} %"
