"""Runs of ``benchmarks/search.py`` in one small file: many core-hours that nobody needs to spend again."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import tokenize
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import nat2deploy
from nat2deploy.errors import UserError
from nat2deploy.files import write_atomic

SAID = ("setting", "method", "seed", "recipe", "code", "processor_s")
_DAMAGED = (zipfile.BadZipFile, zlib.error)


@lru_cache
def code_digest() -> str:
    """A hash of the code that searches are made of, whatever its comments and docstrings say."""
    package = Path(nat2deploy.__file__).parent
    files = [*(package / "search").rglob("*.py"), *(package / "space").rglob("*.py")]
    files.append(Path(__file__).with_name("search_methods.py"))
    found = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.parts[-2:]):
        found.update(without_words(path.read_text(encoding="utf-8")).encode())
    return found.hexdigest()


def without_words(source: str) -> str:
    """Python source without comments, docstrings and empty lines, the same in every version of Python."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def read_runs(path: Path) -> list[dict[str, Any]]:
    """The runs of a file, each as ``search.py`` writes it.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            said = json.loads(file["runs"].tobytes())
            genes, ends = file["genes"].astype(np.int64), np.cumsum(file["lengths"])
            passes = file["passes"].astype(np.int64)
        parts = zip(said, *(np.split(rows, ends[:-1]) for rows in (genes, passes)), strict=True)
        return [
            {**{name: run[name] for name in SAID}, "genes": found.tolist(), "passes": at.tolist()}
            for run, found, at in parts
        ]
    except (OSError, EOFError, ValueError, KeyError, TypeError, NotImplementedError, *_DAMAGED) as error:
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
                passes=np.concatenate([np.array(run["passes"], dtype=np.int32) for run in runs]),
            )

    write_atomic(path, write)


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both, the new one where the recipe is the same, in the order of what they are runs of."""
    runs = {run["recipe"]: run for run in [*old, *new]}.values()
    return sorted(runs, key=lambda run: (run["setting"], run["method"], run["seed"], run["recipe"]))
