"""The number formats that networks run in; light to import."""

from __future__ import annotations

from typing import Literal, get_args

Precision = Literal["fp32", "fp16", "bf16", "int8"]

EVERY_PRECISION: tuple[Precision, ...] = get_args(Precision)
"""From the most exact to the least."""
