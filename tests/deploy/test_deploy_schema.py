from __future__ import annotations

import json
from pathlib import Path

import pytest

from nat2deploy.deploy.schema import schemas


@pytest.mark.parametrize("name", list(schemas()))
def test_the_schema_in_docs_is_that_of_the_code(repository: Path, name: str) -> None:
    """After a change of the models: `python -m nat2deploy.deploy.schema docs`."""
    assert (repository / "docs" / name).read_text(encoding="utf-8") == schemas()[name]


@pytest.mark.parametrize("name", ["manifest", "evidence"])
def test_a_bundle_fits_its_schema(exported: Path, name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    schema = json.loads(schemas()[f"{name}.schema.json"])
    jsonschema.Draft202012Validator.check_schema(schema)
    value = json.loads((exported / f"{name}.json").read_text(encoding="utf-8"))
    jsonschema.validate(value, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**value, "surprise": 1}, schema)
