"""The schemas of what people write: in step with the code, and as strict as it."""

import json
import tomllib

import jsonschema
import pytest

from nat2deploy.run.pipeline import quickstart_config
from nat2deploy.run.schema import schemas


@pytest.fixture(scope="module")
def fits():
    """What says whether a TOML text fits a schema."""
    validators = {
        name.split(".")[0]: jsonschema.Draft202012Validator(json.loads(text))
        for name, text in schemas().items()
    }

    def check(name: str, text: str) -> bool:
        return validators[name].is_valid(tomllib.loads(text))

    return check


@pytest.mark.parametrize("name", list(schemas()))
def test_the_schema_in_docs_is_that_of_the_code(repository, name):
    """After a change of the models: `python -m nat2deploy.run.schema docs`."""
    assert (repository / "docs" / name).read_text(encoding="utf-8") == schemas()[name]
    jsonschema.Draft202012Validator.check_schema(json.loads(schemas()[name]))


def test_every_checked_in_file_fits_its_schema(repository, fits):
    places = {
        "config": [*repository.glob("examples/*.toml"), repository / "nat2deploy/run/quickstart.toml"],
        "space": list(repository.glob("nat2deploy/space/presets/*.toml")),
        "profile": list(repository.glob("profiles/*.toml")),
    }
    for name, paths in places.items():
        assert paths
        for path in paths:
            assert fits(name, path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("data = 'digits'", True),
        ("data = 'digits'\nworkers = 4", True),
        ("data = 'digits'\nworkers = 'ray://head:10001'", True),
        ("data = 'digits'\nworkers = 'many'", False),
        ("data = 'digits'\n[train]\nwidth = [1.0, 1.2]\nsupernet = ['a', 'b']", True),
        ("data = 'digits'\n[profile.tables]\npi = ['a.json', 'b.json']", True),
        ("epochs = 3", False),
        ("data = 'digits'\nepochs = 3", False),
        ("data = 'digits'\n[search]\nround = 3", False),
        ("data = 'digits'\n[search]\nrepair = 'pull'", False),
        ("data = 'digits'\n[train]\nepochs = -1", False),
    ],
)
def test_the_schema_refuses_what_the_code_refuses(fits, text, good):
    assert fits("config", text) == good


def test_the_schema_explains_the_keys():
    schema = json.loads(schemas()["config.schema.json"])
    described = schema["$defs"]["SearchSettings"]["properties"]
    assert "Kendall tau" in described["surrogates"]["description"]
    assert set(schema["properties"]) >= set(quickstart_config().model_dump())
