"""JSON Schemas of a bundle's own files: `python -m nat2deploy.deploy.schema docs` writes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nat2deploy.deploy.evidence import EvidenceFile
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.files import write_text


def schemas() -> dict[str, str]:
    """Return the text of each schema by its file name."""
    found = {}
    for name, model in (("manifest", Manifest), ("evidence", EvidenceFile)):
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
        found[f"{name}.schema.json"] = json.dumps(schema, indent=1) + "\n"
    return found


if __name__ == "__main__":
    for name, text in schemas().items():
        write_text(Path(sys.argv[1]) / name, text)
