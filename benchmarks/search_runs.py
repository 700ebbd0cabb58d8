"""Runs of ``benchmarks/search.py`` in one small file: many core-hours that nobody needs to spend again."""

from __future__ import annotations

import ast
import hashlib
import json
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import nat2deploy
from nat2deploy.errors import UserError
from nat2deploy.files import write_atomic

SAID = ("setting", "method", "seed", "recipe", "code", "processor_s")


@lru_cache
def code_digest() -> str:
    """A hash of the code that searches are made of, whatever its comments and docstrings say."""
    package = Path(nat2deploy.__file__).parent
    files = [*(package / "search").rglob("*.py"), *(package / "space").rglob("*.py")]
    files.append(Path(__file__).with_name("search_methods.py"))
    found = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.parts[-2:]):
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                node.body = [part for part in node.body if not _is_text(part)]
        found.update(ast.unparse(tree).encode())
    return found.hexdigest()


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and type(node.value.value) is str
    )


def read_runs(path: Path) -> list[dict[str, Any]]:
    """The runs of a file, each as ``search.py`` writes it.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            said = json.loads(file["runs"].tobytes())
            genes, ends = file["genes"].astype(np.int64), np.cumsum(file["lengths"])
        parts = np.split(genes, ends[:-1])
        return [
            {**{name: run[name] for name in SAID}, "genes": part.tolist()}
            for run, part in zip(said, parts, strict=True)
        ]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: no file of searches' runs ({why}); make one with --store") from error


def write_runs(path: Path, runs: list[dict[str, Any]]) -> None:
    """Write runs, one at least, whose genes are all of one space.

    Raises:
        UserError: the file cannot be written.
    """
    said = json.dumps([{name: run[name] for name in SAID} for run in runs]).encode()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(
                file,
                runs=np.frombuffer(said, dtype=np.uint8),
                lengths=np.array([len(run["genes"]) for run in runs], dtype=np.int32),
                genes=np.concatenate([np.array(run["genes"], dtype=np.int16) for run in runs]),
            )

    write_atomic(path, write)


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both, the new one where setting, method and seed are the same."""

    def key(run: dict[str, Any]) -> tuple[str, str, int]:
        return run["setting"], run["method"], run["seed"]

    return [run for _, run in sorted({key(run): run for run in [*old, *new]}.items())]
