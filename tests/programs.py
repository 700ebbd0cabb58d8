"""Programs that tests start and kill: processes of their own, forked from one that has done the long imports."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Self

import nat2deploy

# Five seconds of processor time a program. Nothing of the command line, which reads the environment.
_IMPORTS = ["nat2deploy.run.finetune", "nat2deploy.run.search", "nat2deploy.run.train"]


class Program:
    """A Python program that runs, in the current environment with ``changes``; ended with its context.

    It is killed and waited for as any other, but it ends without the interpreter's own end: what a program
    prints or does there has to be tested with one that is started by itself.

    Args:
        words: ``-m`` and a module, or a file; then its arguments.
        folder: where what it prints goes, to ``stdout`` and ``stderr``.
        changes: of the environment.
    """

    def __init__(self, *words: object, folder: Path, changes: Mapping[str, str] | None = None) -> None:
        environment = {**os.environ, **(changes or {})}
        started = [str(word) for word in words]
        self.folder = folder
        given = (started, environment, str(Path.cwd()), str(folder), nat2deploy.__file__)
        self._process = _context().Process(target=_run, args=given)
        self._process.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.join()

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()

    def wait(self, timeout_s: float = 60.0) -> int:
        """Wait for its end; returns its exit code.

        Raises:
            TimeoutError: it still runs; it is killed.
        """
        self._process.join(timeout_s)
        code = self._process.exitcode
        if code is None:
            self.kill()
            raise TimeoutError(f"still running after {timeout_s:g} s")
        return code

    def printed(self) -> tuple[str, str]:
        """What it printed, and its errors."""
        out, error = ((self.folder / name).read_text() for name in ("stdout", "stderr"))
        return out, error


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTS)
    return context


def _run(words: list[str], environment: Mapping[str, str], folder: str, prints: str, package: str) -> None:
    assert nat2deploy.__file__ == package, f"{package} is tested, not {nat2deploy.__file__}"
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(Path(prints) / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    sys.argv = words[1:] if words[0] == "-m" else words
    if words[0] == "-m":
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")
