"""docs/licences.md follows pyproject.toml."""

from tools.licences import dependencies, licence_of, listed


def test_every_dependency_is_listed_with_its_use_and_a_licence():
    rows = listed()
    assert {name: use for name, (use, _) in rows.items()} == dependencies(), "run `python tools/licences.py`"
    assert all(licence not in ("", "not known") for _, licence in rows.values())


def test_a_licence_is_read_from_an_installed_packages_metadata():
    assert licence_of("pydantic") == "MIT"
    assert licence_of("no-such-package") is None
