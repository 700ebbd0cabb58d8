"""What can be a seed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

LARGEST_SEED = 2**63 - 1
"""PyTorch's generators take a little more; parts of a command add their number to it."""
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
