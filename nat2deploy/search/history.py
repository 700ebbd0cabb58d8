"""``history.json``: what each round of a search came to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from nat2deploy.errors import UserError
from nat2deploy.files import parse, read_json


class _Round(BaseModel):
    """Others than these fields are kept as they are."""

    model_config = ConfigDict(extra="allow")

    round: int
    hypervolume: float | None = None
    tau: float | None = None
    surrogate: str | None = None


def read_history(path: Path) -> list[dict[str, Any]]:
    """Return a search's rounds, oldest first; none where there is no file yet.

    Raises:
        UserError: not JSON, or no list of rounds in their order.
    """
    if not path.exists():
        return []
    value = read_json(path, "search history")
    if not isinstance(value, list):
        raise UserError(f"search history {path} is no list of rounds; start a new run")
    for number, entry in enumerate(value):
        if parse(_Round, entry, f"search history {path}, round {number}").round != number:
            raise UserError(f"search history {path} lacks round {number}; start a new run")
    return value
