"""The documentation's site: built without a warning, whole, and without anything from elsewhere."""

import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from doc_blocks import command_of

import nat2deploy as package
from nat2deploy.run.config import PipelineConfig
from nat2deploy.search.settings import SearchSettings

pytest.importorskip("mkdocstrings", reason="pip install 'nat2deploy[docs]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory, repository) -> Path:
    """The built site."""
    out = tmp_path_factory.mktemp("site")
    environment = {
        **os.environ,
        "NO_MKDOCS_2_WARNING": "1",
        "PYTHONPATH": str(Path(package.__file__).parents[1]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "WARNING" not in done.stderr and "ERROR" not in done.stderr
    return out


def text_of(page: Path) -> str:
    return unescape(re.sub(r"<[^>]+>", " ", page.read_text(encoding="utf-8")))


def test_every_page_is_there_and_fetches_nothing(site, repository):
    for page in (repository / "docs").rglob("*.md"):
        built = site / page.relative_to(repository / "docs").with_suffix(".html")
        html = built.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img|iframe)[^>]*\ssrc="((?:https?:)?//[^"]+)', html)
        fetched += re.findall(r'<link[^>]*\shref="((?:https?:)?//[^"]+)', html)
        assert fetched == [], built
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", style.read_text(encoding="utf-8")), style


def test_the_reference_has_every_command_and_option(site):
    text = text_of(site / "reference" / "commands.html")

    def walk(command, name):
        for inner, one in getattr(command, "commands", {}).items():
            yield f"{name} {inner}", one
            yield from walk(one, f"{name} {inner}")

    found = list(walk(command_of([])[0], "nat2deploy"))
    assert len(found) > 20
    for name, command in found:
        assert name in text
        for one in command.params:
            assert all(option in text for option in one.opts if option.startswith("--")), (name, one.name)


def test_the_reference_has_every_key_of_a_pipeline(site):
    text = text_of(site / "reference" / "configuration.html")
    for name, field in PipelineConfig.model_fields.items():
        assert name in text
        for key in getattr(field.annotation, "model_fields", {}):
            assert key in text
    assert "best by cross-validated Kendall tau" in " ".join(text.split())
    assert set(SearchSettings.model_fields) <= set(text.split())


def test_the_reference_of_python_shows_docstrings(site):
    text = " ".join(text_of(site / "reference" / "python.html").split())
    for words in (
        "Run the NAT2 search in the run directory",
        "errors are shares of the measured latency",
        "SubsetSelection",
        "Engine",
    ):
        assert words in text


def test_examples_are_shown_and_the_search_finds_pages(site):
    assert "class ChannelsLastEngine(Engine)" in text_of(site / "how-to" / "extend.html")
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert any("certificate" in entry["text"] for entry in index["docs"])
