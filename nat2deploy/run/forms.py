"""Texts of a form that people write in settings: what is wrong with one is said in words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, Field

_DEVICE = r"^(cpu|cuda(:\d{1,4})?)$"
_PROFILED = r"^(cpu$|ssh://.)"
_BATCH = r"^\d{1,4}(:\d{1,4}){0,2}$"


def _of_form(pattern: str, words: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if "\n" in text or not re.search(pattern, text):
            raise ValueError(f"'{text[:60]}': {words}")
        return text

    return check


ComputeDevice = Annotated[
    str,
    AfterValidator(_of_form(_DEVICE, "write cpu, cuda, or cuda:1 for the second GPU")),
    Field(json_schema_extra={"pattern": _DEVICE}),
]
"""``cpu``, ``cuda`` or such as ``cuda:1``."""
ProfiledDevice = Annotated[
    str,
    AfterValidator(_of_form(_PROFILED, "write cpu, or ssh://user@host")),
    Field(json_schema_extra={"pattern": _PROFILED}),
]
"""``cpu``, or ``ssh://user@host``."""
BatchSizes = Annotated[
    str,
    AfterValidator(_of_form(_BATCH, "write a number such as 8, or a range: 1:8, or 1:4:8")),
    Field(json_schema_extra={"pattern": _BATCH}),
]
"""A number, or the smallest and the largest, with the one to be fastest at between them."""
