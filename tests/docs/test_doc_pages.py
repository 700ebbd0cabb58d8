"""Every code block of README and the documentation does what it says.

Commands are parsed by the real application, all of them; those without need of hardware or minutes are run, in order, in
a folder that holds what the pages speak of. The tutorial's short run is made once, and each page goes on from it.
`make docs-blocks` (whole_pages.py) runs those that need minutes, too, and shortens none.
"""

from __future__ import annotations

import json
import os
import shutil
import tomllib

import pytest
from doc_blocks import LANGUAGES, RARE, ROOT, Block, blocks, check_parses, of_nat2deploy, pages, shortened
from doc_world import TUTORIAL, make_world, run

from nat2deploy import plugins
from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.run.schema import WRITTEN
from nat2deploy.search.settings import SearchSettings

EVERY = [block for page in pages() for block in blocks(page)]
COMMANDS = [(block, words) for block in EVERY if block.language == "bash" for words in block.commands]
OTHER_PROGRAMS = (
    "make",
    "pip",
    "python",
    "python3",
    "nvidia-smi",
    "ffmpeg",
    "curl",
    "echo",
    "ssh",
    "scp",
    "export",
)


def test_every_block_says_what_it_is():
    assert {"bash", "python", "toml"} <= {block.language for block in EVERY}
    for block in EVERY:
        assert block.language in LANGUAGES, block
        assert block.notes.get("needs") in (None, "minutes", *RARE), block
        assert not {"needs", "shortened"} <= set(block.notes), block


@pytest.mark.parametrize(("block", "words"), COMMANDS, ids=lambda value: str(value)[:60])
def test_every_command_parses(block, words):
    arguments = of_nat2deploy(words)
    if arguments is None:
        assert words[0] in OTHER_PROGRAMS, f"{block}: {words[0]}"
        assert "needs" in block.notes or words[0] in ("python", "export"), f"{block}: say what it needs"
    else:
        check_parses(arguments)


@pytest.mark.parametrize(
    "wrong", [["serch"], ["search", "--out", "x", "--epoch", "3"], ["export", "run", "--sm"]]
)
def test_a_command_that_is_not_there_would_be_found(wrong):
    with pytest.raises(Exception, match=r"(?i)no such|unexpected|requires|missing"):
        check_parses(wrong)


def test_shortening_replaces_what_is_given_and_adds_only_what_is_known():
    given = ["finetune", "run", "--epochs", "20"]
    assert shortened(given, "--epochs 1 --rounds 2") == ["finetune", "run", "--epochs", "1"]


def test_a_file_is_shortened_by_its_keys_and_is_whole_otherwise():
    text = "[search]\nrounds = 4  # many\n"
    block = Block("page.md", 1, "toml", text, {"shortened": "search.rounds=1 finetune.epochs=0.1"})
    assert tomllib.loads(block.quick_text) == {"search": {"rounds": 1}, "finetune": {"epochs": 0.1}}
    assert Block("page.md", 1, "toml", text).quick_text == text


def test_what_needs_minutes_is_run_whole_and_what_few_have_is_not():
    minutes, gpu, plain = (
        Block("page.md", 1, "bash", "", notes) for notes in ({"needs": "minutes"}, {"needs": "gpu"}, {})
    )
    assert [block.runs(whole=True) for block in (minutes, gpu, plain)] == [True, False, True]
    assert [block.runs(whole=False) for block in (minutes, gpu, plain)] == [False, False, True]


def test_a_whole_block_is_run_by_programs_of_its_own_and_fails_with_what_they_say(tmp_path, capsys):
    text = "export WORD=there\npython -c 'import os, sys; print(os.environ[\"WORD\"]); sys.exit(1)'\n"
    with pytest.raises(AssertionError, match=r"page\.md:1: there"):
        run(Block("page.md", 1, "bash", text), tmp_path, whole=True)
    run(Block("page.md", 1, "bash", text, {"exit": "1"}), tmp_path, whole=True)
    assert "page.md:1: python -c" in capsys.readouterr().out
    assert "WORD" not in os.environ


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """What the pages speak of, and the tutorial's short run."""
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("page", [page for page in pages() if page != TUTORIAL])
def test_the_pages_blocks_run_in_order(world, page, tmp_path):
    runnable = [b for b in blocks(page) if b.language in ("bash", "python", "toml") and b.runs(whole=False)]
    if not runnable:
        return
    folder = tmp_path / "here"
    shutil.copytree(world, folder, symlinks=True)
    for block in runnable:
        run(block, folder)


def test_the_tutorial_ends_with_a_bundle_and_a_report(world):
    for name in ("run/front.json", "run/report.html", "bundle/model.onnx", "photos-run/front.json"):
        assert (world / name).stat().st_size > 0
    labels = json.loads((world / "photos-run" / "front.json").read_text())
    assert labels["data"] == "imagefolder:photos"


@pytest.mark.parametrize("block", [b for b in EVERY if b.language == "toml"], ids=str)
def test_every_toml_file_fits_what_it_is_for(block, monkeypatch):
    """The names that the examples of plug-ins bring are known."""
    monkeypatch.setenv(plugins.VARIABLE, str(ROOT / "examples" / "extend" / "surrogate.py"))
    plugins._load_files.cache_clear()
    value = tomllib.loads(block.text)
    fits = [model for model in (*WRITTEN.values(), SearchSettings) if _fits(model, value)]
    assert fits, f"{block}: no file of this kind"


def _fits(model, value) -> bool:
    try:
        parse(model, value, "block")
    except UserError:
        return False
    return True
