"""Running nat2deploy as a user does, with a fault inside or without, and what it must look like.

Commands are forked from a process that has imported everything: they start at once, and what a kill hits is
their work. One thread computes in each.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from nat2deploy.cli import main
from torture.injected import inject

REPOSITORY = Path(__file__).parents[1]
TIMEOUT_S = 600
_LOADED_LATE = (
    "nat2deploy.run.pipeline", "nat2deploy.run.profile", "nat2deploy.cli.render",
    "nat2deploy.deploy.runner.program", "torch._dynamo", "torch.onnx", "onnx", "onnxruntime", "torchvision",
    "sklearn.datasets", "sklearn.ensemble", "sklearn.linear_model", "sklearn.model_selection",
    "pymoo.optimize", "pymoo.algorithms.moo.nsga2", "pymoo.util.ref_dirs", "matplotlib.figure",
    "matplotlib.backends.backend_agg", "jinja2", "fvcore.nn",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, negative for a signal, and its standard error."""

    code: int
    said: str

    @property
    def error(self) -> str:
        """The last line of standard error."""
        lines = self.said.strip().splitlines()
        return lines[-1] if lines else ""


@dataclass
class Command:
    """A command that runs in a process of its own; its standard error goes to the file ``said``."""

    process: int
    said: Path
    code: int | None = None

    @classmethod
    def start(cls, *arguments: str, said: Path, fault: str = "none") -> Command:
        """Start a command; ``fault`` is one of ``torture.injected``, with its numbers behind colons."""
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if process == 0:
            _become(arguments, said, fault)
        return cls(process, said)

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        if self.code is None:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, timeout_s: float = TIMEOUT_S) -> bool:
        """Wait for some seconds; whether it has ended."""
        deadline = time.monotonic() + timeout_s
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.code is not None

    def kill(self) -> None:
        """SIGKILL, to this process and none that it started."""
        os.kill(self.process, signal.SIGKILL)
        self.wait()

    def end(self) -> Ended:
        """Wait for the end; a command that does not end is killed, and says so by its exit code."""
        if not self.wait():
            self.kill()
        assert self.code is not None
        return Ended(self.code, self.said.read_text())


def import_everything() -> None:
    """Import what the commands load when they need it, so that the processes forked from this one have it."""
    for name in _LOADED_LATE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def run(*arguments: str, fault: str = "none") -> Ended:
    """Run a command to its end."""
    with tempfile.TemporaryDirectory(prefix="torture-said-") as folder:
        return Command.start(*arguments, said=Path(folder) / "said", fault=fault).end()


def _become(arguments: tuple[str, ...], said: Path, fault: str) -> None:
    """In the forked process: be that command, and end as it does."""
    code = 1
    try:
        os.setsid()
        for path, stream in ((os.devnull, 1), (said, 2)):
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(opened, stream)
            os.close(opened)
        inject(fault)
        sys.argv = ["nat2deploy", *arguments]
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def faults_of_refusal(ended: Ended) -> list[str]:
    """What is wrong with the way in which a command gave up: one line of error and exit code 2 are right."""
    found = []
    if ended.code != 2:
        found.append(f"exit code {ended.code}, not 2: {ended.error}")
    if "Traceback" in ended.said:
        found.append(f"a traceback: {ended.error}")
    errors = [line for line in ended.said.splitlines() if line.startswith("error")]
    if len(errors) != 1:
        found.append(f"{len(errors)} lines of error, not 1")
    return found
