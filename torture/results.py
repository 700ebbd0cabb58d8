"""What a pipeline left: its result, whatever happened to it, and what must not be there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.files import sha256

RESULT = (
    "supernet.safetensors",
    "search/archive.jsonl",
    "search/front.json",
    "search/history.json",
    "search/supernet.safetensors",
    "search/networks/*/network.safetensors",
    "search/networks/*/finetune.json",
    "bundle/*",
    "bundle/runner/*",
)
"""Files that follow from the configuration alone."""
_OWN = (
    *(".lock", ".adaptation", ".supernet.safetensors.training", ".phase1", ".phase2"),
    ".table.json.partial",
)
"""Hidden files that an unfinished run may hold beside those of a writing that was killed."""


def result_of(run: Path) -> dict[str, str]:
    """The hash of each file of the result, by its name."""
    found = (path for pattern in RESULT for path in run.glob(pattern) if path.is_file())
    return {str(path.relative_to(run)): sha256(path) for path in found}


def differences(result: dict[str, str], undisturbed: dict[str, str]) -> list[str]:
    """What a result has otherwise than that of the undisturbed run."""
    found = []
    for name in sorted(result.keys() | undisturbed.keys()):
        if result.get(name) != undisturbed.get(name):
            what = "is missing" if name not in result else "differs" if name in undisturbed else "is new"
            found.append(f"{name} {what}")
    return found


def half_written(run: Path) -> list[str]:
    """Files under their final names that are not whole, or hold weights that are no numbers."""
    return [f"{path.relative_to(run)}: {what}" for path in _files(run) if (what := _fault(path))]


def leftovers(run: Path, *, finished: bool) -> list[str]:
    """Hidden files and folders that nobody will use again."""
    own = _OWN[:1] if finished else _OWN
    found = [path for path in run.rglob(".*") if path.name not in own]
    return [f"{path.relative_to(run)} is left" for path in found]


def _files(run: Path) -> Iterator[Path]:
    for path in sorted(run.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(run).parts):
            yield path


def _fault(path: Path) -> str:
    try:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            data = path.read_bytes()
            for line in data[: data.rfind(b"\n") + 1].splitlines():
                json.loads(line)
        elif path.suffix == ".safetensors":
            if not all(bool(torch.isfinite(tensor).all()) for tensor in load_file(path).values()):
                return "weights that are not finite"
        elif path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".html" and not path.read_text().rstrip().endswith("</html>"):
            return "no whole page"
        elif path.name == "run.py":
            with open_bundle(path.parent):
                pass
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
