"""Every code block of README and the documentation does what it says.

Commands are parsed by the real application, all of them; those without need of hardware or minutes are run, in order, in
a folder that holds what the pages speak of. The tutorial's short run is made once, and each page goes on from it.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from doc_blocks import LANGUAGES, ROOT, Block, blocks, check_parses, of_nat2deploy, pages, shortened
from PIL import Image
from sklearn.datasets import load_digits

from nat2deploy import plugins
from nat2deploy.cli import main
from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.run.schema import WRITTEN
from nat2deploy.search.settings import SearchSettings
from nat2deploy.space.search_space import load_space
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, save_supernet
from nat2deploy.supernet.network import SuperNetwork

TUTORIAL = "docs/tutorial.md"
EVERY = [block for page in pages() for block in blocks(page)]
COMMANDS = [(block, words) for block in EVERY if block.language == "bash" for words in block.commands]
QUICK = """
population = 8
generations = 2
surrogates = ["bayesian-ridge"]
batch_size = 16
recalibration_images = 16
validation_images = 20
"""
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


@pytest.mark.parametrize(("block", "words"), COMMANDS, ids=lambda value: str(value)[:60])
def test_every_command_parses(block, words):
    arguments = of_nat2deploy(words)
    if arguments is None:
        assert words[0] in OTHER_PROGRAMS, f"{block}: {words[0]}"
        assert "needs" in block.notes or words[0] == "python", f"{block}: say what it needs"
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


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """What the pages speak of: images, tables, a super-network, and the tutorial's short run."""
    folder = tmp_path_factory.mktemp("world")
    digits = load_digits()
    for index in range(60):
        place = folder / "photos" / ("cat", "dog")[index % 2] / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture = digits.images[digits.target == index % 2][index // 2]
        Image.fromarray((picture * 15).astype("uint8")).convert("RGB").resize((32, 32)).save(place)
    shutil.copy(folder / "photos" / "cat" / "0.png", folder / "image.png")
    (folder / "quick.toml").write_text(QUICK)
    tables = ROOT / "latency_tables"
    for name, shipped in {"table": "", "a": "", "b": "", "fp32": "", "int8": "-int8"}.items():
        shutil.copy(tables / f"nano-ee-d-28-32px-x86-1-thread{shipped}.json", folder / f"{name}.json")
    torch.manual_seed(0)
    supernet = SuperNetwork(load_space("nano-ee-d").restrict(resolutions=(28,)), 1.0, 10)
    labels = tuple("0123456789")
    info = SuperNetworkInfo(space=supernet.space, width=1.0, classes=10, data="digits", labels=labels)
    save_supernet(folder / "w.safetensors", supernet, info)
    for block in blocks(TUTORIAL):
        run(block, folder)
    return folder


def run(block: Block, folder: Path) -> None:
    """Do in ``folder`` what a block says."""
    if "needs" in block.notes:
        return
    if block.language == "toml":
        write_toml(block, folder)
    elif block.language == "python":
        with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
            exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})
    elif block.language == "bash":
        for words in block.commands:
            arguments = of_nat2deploy(words)
            if arguments is None:
                done = subprocess.run(
                    [sys.executable, *words[1:]], cwd=folder, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"{block}: {done.stderr}"
            else:
                call(block, shortened(arguments, block.notes.get("shortened", "")), folder)


def call(block: Block, arguments: list[str], folder: Path) -> str:
    """Run nat2deploy in this process; most of a new one's seconds go to importing libraries."""
    printed, told = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["nat2deploy", *arguments]
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(told):
            main()
    except SystemExit as end:
        assert not end.code, f"{block}: {' '.join(arguments)}: {told.getvalue()[-500:]}"
    finally:
        sys.argv = before
    return printed.getvalue()


def write_toml(block: Block, folder: Path) -> None:
    """Write the block's file, where it is one."""
    name = block.notes.get("file")
    if name is not None:
        (folder / name).write_text(block.text)


@pytest.mark.parametrize("page", [page for page in pages() if page != TUTORIAL])
def test_the_pages_blocks_run_in_order(world, page, tmp_path):
    runnable = [
        b for b in blocks(page) if b.language in ("bash", "python", "toml") and "needs" not in b.notes
    ]
    if not runnable:
        return
    folder = tmp_path / "here"
    shutil.copytree(world, folder)
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
