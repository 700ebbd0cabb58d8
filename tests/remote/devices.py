"""Other machines for tests: Pythons with few packages, and an sshd on loopback."""

import getpass
import os
import shutil
import socket
import subprocess
import time
import venv
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

SSHD = Path("/usr/sbin/sshd")


def make_python(folder: Path, *packages: str) -> Path:
    """A Python that has only these packages, taken from the installed ones, so that no network is needed."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    for package in packages:
        distribution = metadata.distribution(package)
        for name in {path.parts[0] for path in distribution.files or () if path.parts[0] != ".."}:
            (site / name).symlink_to(Path(distribution.locate_file(name)).resolve())
    return folder / "bin" / "python"


def make_old_python(path: Path, python: Path) -> Path:
    """A Python that says that it is 3.8."""
    code = (
        "import runpy, sys; sys.version_info = (3, 8, 1); sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    path.write_text(f'#!/bin/sh\nexec {python} -c "{code}" "$@"\n')
    path.chmod(0o755)
    return path


def bare_environment() -> dict[str, str]:
    """The environment without what would lead a Python to this package."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


@dataclass
class Sshd:
    """A running sshd whose sessions begin in ``home``."""

    port: int
    process: subprocess.Popen[bytes]
    home: Path
    options: tuple[str, ...]
    config: Path

    @property
    def address(self) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    def cut(self) -> int:
        """Kill the processes that serve connections, and return how many there were."""
        serving = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue  # it has just ended
            if parent == self.process.pid:
                serving.append(int(stat.parent.name))
        for process in serving:
            os.kill(process, 9)
        return len(serving)

    def vanish(self) -> None:
        """End it and its connections at once, as when a device loses its power."""
        self.process.kill()
        self.cut()
        self.process.wait()

    def come_back(self) -> None:
        """Start it again, as it was."""
        self.process = _launch(self.config, self.port)


def start_sshd(folder: Path) -> Sshd:
    """Start an sshd as the current user, or skip the test and say why."""
    if not SSHD.exists() or shutil.which("ssh") is None:
        pytest.skip("no OpenSSH server and client here")
    if os.getuid() == 0:  # as Debian's service does
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(words, check=True)
    home = folder / "home"
    home.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        f'ForceCommand cd {home} && eval "$SSH_ORIGINAL_COMMAND"\n'
    )
    key = (folder / "host.pub").read_text().split()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {key[0]} {key[1]}\n")
    try:
        process = _launch(folder / "config", port)
    except RuntimeError as error:
        if "privilege separation directory" not in str(error):
            raise
        pytest.skip(str(error))  # which only root can make
    options = (
        f"IdentityFile={folder}/user",
        "IdentitiesOnly=yes",
        f"UserKnownHostsFile={folder}/known",
        "GlobalKnownHostsFile=none",
    )
    return Sshd(port, process, home, options, folder / "config")


def _launch(config: Path, port: int) -> subprocess.Popen[bytes]:
    """Start an sshd and wait until it listens.

    Raises:
        RuntimeError: it does not, and why.
    """
    log = config.with_name("log")
    with log.open("wb") as stream:
        process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(config)], stderr=stream)
    deadline = time.monotonic() + 20
    while True:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return process
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"sshd does not start: {log.read_text().strip()}")
        time.sleep(0.05)
