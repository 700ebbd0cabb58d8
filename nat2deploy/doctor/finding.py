"""What one check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "failure", "optional"]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: of what was checked.
        state: ``failure`` stops work, a ``warning`` makes its results worse, ``optional`` is something that
            is not there and that not everybody needs.
        words: what was found.
        remedy: what to do; empty where there is nothing to do.
    """

    name: str
    state: State
    words: str
    remedy: str = ""
