"""JSON Schemas of a bundle's own files: `python -m nat2deploy.deploy.schema docs` writes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import BaseModel

from nat2deploy.deploy.evidence import EvidenceFile
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.files import write_text


def schemas() -> dict[str, str]:
    """Return the text of each schema by its file name."""
    found = {}
    for name, model in (("manifest", Manifest), ("evidence", EvidenceFile)):
        found[f"{name}.schema.json"] = schema_text(model)
    return found


def schema_text(model: type[BaseModel]) -> str:
    """Return the text of the JSON Schema of what a model accepts."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    for name, text in schemas().items():
        write_text(Path(sys.argv[1]) / name, text)
