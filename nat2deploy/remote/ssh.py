"""Commands on another machine through the system's ssh: an address, a connection, and what goes wrong."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from nat2deploy.errors import UserError

_ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z_][A-Za-z0-9_.-]{0,63})@)?"
    r"(?:(?P<host>[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?)|\[(?P<v6>[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9_.-]{1,32})?)\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)
_PYTHON = re.compile(r"[A-Za-z0-9_~/.][A-Za-z0-9_~/.+-]{0,254}")
_OPTION = re.compile(r"[A-Za-z][A-Za-z0-9]*=[^\x00-\x1f]+")
_OPTIONS = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=15", "ServerAliveCountMax=4")
_LAST_OF_TAR = re.compile(r"tar: .*exiting( now| with failure status).*", re.IGNORECASE)  # says nothing more
_LONGEST_LINE = 16 << 20
_AGENT_ERROR = "error: "
_SILENT_END = "it ended without a word; does the device lack memory?"
_SSH_FAILED, _NOT_FOUND, _AGENT_REFUSED = 255, (126, 127), 2

Hear = Callable[[dict[str, Any]], None]


class ConnectionLost(Exception):
    """The connection could not be made, or ended in the middle; the text says what ssh said."""


@dataclass(frozen=True)
class SshAddress:
    """Where to: ``user`` and ``port`` are ssh's own choice when not given."""

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> SshAddress:
        """Read ``ssh://[user@]host[:port]``; nothing in it can be taken for an option or a word of a shell.

        Raises:
            UserError: anything else.
        """
        found = _ADDRESS.fullmatch(text)
        port = int(found["port"]) if found is not None and found["port"] else None
        if found is None or port == 0 or (port or 0) > 65535:
            raise UserError(f"device '{text}' is no address; write ssh://user@host or ssh://user@host:port")
        return cls(found["host"] or found["v6"], found["user"], port)

    def __str__(self) -> str:
        """The form that ``parse`` reads."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = "" if self.user is None else f"{self.user}@"
        return f"ssh://{user}{host}" + ("" if self.port is None else f":{self.port}")


@dataclass(frozen=True)
class SshSettings:
    """How to reach a device and its Python.

    Attributes:
        address: of the device.
        python: a name or path of Python there.
        options: ``KEY=VALUE`` as ssh's ``-o`` takes them; keys, hosts and identities are best kept in
            ssh's own configuration.

    Raises:
        UserError: a Python or an option that is none.
    """

    address: SshAddress
    python: str = "python3"
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the words that go into command lines."""
        if not _PYTHON.fullmatch(self.python):
            raise UserError(f"--python '{self.python}' is no name or path of a Python; write such as python3")
        for option in self.options:
            if not _OPTION.fullmatch(option):
                raise UserError(f"--ssh-option '{option}': write KEY=VALUE, as `ssh -o` takes it")


class SshConnection:
    """Runs commands on a device, each in a connection of its own.

    Args:
        settings: where to, and ssh's options.
    """

    def __init__(self, settings: SshSettings) -> None:
        self.settings = settings

    def ask(self, command: str, *, send: IO[bytes] | None = None, hear: Hear | None = None) -> dict[str, Any]:
        """Run ``command`` and return the last JSON object that it prints, but for those that tell a share.

        Args:
            command: for the device's shell; made of checked words.
            send: becomes its standard input; without it that stays open until the command ends.
            hear: told each JSON object with a ``share`` of the work, as it comes.

        Raises:
            ConnectionLost: no connection, or one that ended in the middle.
            UserError: the device has no such Python, or the agent refused or failed.
        """
        last: dict[str, Any] | None = None
        with tempfile.TemporaryFile() as errors:
            process = self._start(command, send, errors)
            try:
                assert process.stdout is not None
                while line := process.stdout.readline(_LONGEST_LINE):
                    value = _json_object(line)  # a login script may print other lines
                    if value is not None and hear is not None and "share" in value:
                        hear(value)
                    elif value is not None:
                        last = value
                code = process.wait()
            finally:
                process.kill()  # nothing happens where it has ended
                process.communicate()
            errors.seek(0)
            said = errors.read().decode(errors="replace").splitlines()
        said = [line.strip() for line in said if line.strip() and not _LAST_OF_TAR.fullmatch(line.strip())]
        self._check(code, said)
        if last is None:
            why = f": {printable(said[-1])}" if said else "; look at its login scripts"
            raise UserError(f"{self.settings.address}: the device gave no answer{why}")
        return last

    def _start(self, command: str, send: IO[bytes] | None, errors: IO[bytes]) -> subprocess.Popen[bytes]:
        address = self.settings.address
        words = ["ssh", "-T"]
        for option in (*self.settings.options, *_OPTIONS):  # of two for the same, ssh takes the first
            words += ["-o", option]
        if address.port is not None:
            words += ["-p", str(address.port)]
        if address.user is not None:
            words += ["-l", address.user]
        try:
            return subprocess.Popen(
                [*words, "--", address.host, command],
                stdin=subprocess.PIPE if send is None else send,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        except FileNotFoundError:
            raise UserError("no `ssh` on this machine; install OpenSSH's client") from None

    def _check(self, code: int, said: list[str]) -> None:
        if code == 0:
            return
        address, python = self.settings.address, self.settings.python
        last = printable(said[-1]) if said else f"exit code {code}"
        if code == _SSH_FAILED or code < 0:
            raise ConnectionLost(last.rstrip(".") if said else _SILENT_END)
        if code in _NOT_FOUND and (not said or python.rpartition("/")[2] in last):
            raise UserError(f"{address} has no `{python}` ({last}); name its Python with --python")
        refused = [line for line in said if line.startswith(_AGENT_ERROR)]
        if code == _AGENT_REFUSED and refused:
            raise UserError(f"{address}: {printable(refused[-1][len(_AGENT_ERROR) :])}")
        raise UserError(f"{address}: measuring failed there: {last}")


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def printable(text: str) -> str:
    """Return a device's words on one line, without what a terminal would obey; 400 characters at most."""
    return "".join(character if character.isprintable() else " " for character in text)[:400]
