"""JSON Schemas of what people write: `python -m nat2deploy.run.schema docs` writes them."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import BaseModel

from nat2deploy.deploy.schema import schema_text
from nat2deploy.files import write_text
from nat2deploy.run.config import PipelineConfig
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.target import Profile

WRITTEN: dict[str, type[BaseModel]] = {"config": PipelineConfig, "space": SearchSpace, "profile": Profile}
"""The TOML files that people write: of ``nat2deploy run``, of a search space, of a target."""


def schemas() -> dict[str, str]:
    """Return the text of each schema by its file name."""
    return {f"{name}.schema.json": schema_text(model) for name, model in WRITTEN.items()}


if __name__ == "__main__":
    for name, text in schemas().items():
        write_text(Path(sys.argv[1]) / name, text)
