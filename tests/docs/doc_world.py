"""A folder that holds what the pages speak of, and doing there what their blocks say.

The suite runs blocks in its own process, shortened where they say how. Whole, each command is a program of its own, as
it is on the page.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from doc_blocks import ROOT, Block, blocks, of_nat2deploy, shortened
from PIL import Image
from sklearn.datasets import load_digits

from nat2deploy import plugins
from nat2deploy.cli import main
from nat2deploy.space.search_space import load_space
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, save_supernet
from nat2deploy.supernet.network import SuperNetwork

QUICK = """
population = 8
generations = 2
surrogates = ["bayesian-ridge"]
batch_size = 16
recalibration_images = 16
validation_images = 20
"""


TUTORIAL = "docs/tutorial.md"
"""The page that comes before all others."""


def make_world(folder: Path, *, whole: bool = False) -> Path:
    """Fill a folder with what the pages speak of, and do there what the tutorial says."""
    furnish(folder)
    for block in blocks(TUTORIAL):
        run(block, folder, whole=whole)
    return folder


def furnish(folder: Path) -> None:
    """Put there images, tables, a super-network, quick settings of a search, and the repository's programs."""
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
    for name in ("benchmarks", "examples"):
        (folder / name).symlink_to(ROOT / name)


def run(block: Block, folder: Path, *, whole: bool = False) -> None:
    """Do in ``folder`` what a block says, where that does not need more than there is."""
    if not block.runs(whole=whole):
        return
    if block.language == "toml":
        if name := block.notes.get("file"):
            (folder / name).write_text(block.text if whole else block.quick_text)
    elif block.language == "python":
        with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
            exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})
    elif block.language == "bash":
        with _exported(block):
            for words in block.commands:
                if words[0] != "export":
                    (_start if whole else _do)(block, words, folder)


@contextlib.contextmanager
def _exported(block: Block) -> Iterator[None]:
    """Set what the block exports, while it is run."""
    given = dict(words[1].split("=", 1) for words in block.commands if words[0] == "export")
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    plugins._load_files.cache_clear()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        plugins._load_files.cache_clear()


def _do(block: Block, words: list[str], folder: Path) -> None:
    arguments = of_nat2deploy(words)
    if arguments is None:
        line = [sys.executable, *words[1:]]
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
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


def _start(block: Block, words: list[str], folder: Path) -> None:
    """Run a command as a program, and say what it took."""
    arguments, place = of_nat2deploy(words), folder
    if arguments is not None:
        if _is_uncertified(arguments, folder):  # this machine is too noisy now, which is not the page's fault
            arguments = shortened(arguments, "--allow-uncertified")
        start = ["-m", "nat2deploy"]
        if words[0] == "torchrun":
            start = ["-m", "torch.distributed.run", *words[1 : words.index("nat2deploy") + 1]]
        line = [sys.executable, *start, *arguments]
    elif words[0] == "make":
        if "test" in words:  # CI's own command, which runs the suite
            return
        place, line = folder / "clone", words
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(place)], check=True)
    elif words[0] == "pip":  # the environment stays what it is
        line = [sys.executable, "-m", "pip", "install", "--dry-run", *words[2:]]
    else:
        line = [sys.executable, *words[1:]]
    environment = dict(os.environ) if words[0] == "make" else {**os.environ, "PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    done = subprocess.run(line, cwd=place, env=environment, capture_output=True, text=True, check=False)
    print(f"{block}: {shlex.join(words)}: {time.monotonic() - began:.0f} s", flush=True)
    allowed = {0, *map(int, block.notes.get("exit", "").split())}
    assert done.returncode in allowed and "Traceback" not in done.stderr, (
        f"{block}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    )


def _is_uncertified(arguments: list[str], folder: Path) -> bool:
    tables = [folder / b.rpartition("=")[2] for a, b in pairwise(arguments) if a == "--table"]
    return any(path.is_file() and json.loads(path.read_text())["certificate"] is None for path in tables)
