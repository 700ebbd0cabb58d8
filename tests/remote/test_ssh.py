"""Addresses and words that go into command lines, and what ssh's endings mean."""

import io
import itertools
import os
import time

import pytest

from nat2deploy.errors import UserError
from nat2deploy.remote import ssh
from nat2deploy.remote.ssh import ConnectionLost, SshAddress, SshConnection, SshSettings


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ssh://pi@pi4", SshAddress("pi4", "pi")),
        ("ssh://pi@192.168.1.7:2222", SshAddress("192.168.1.7", "pi", 2222)),
        ("ssh://board.local/", SshAddress("board.local")),
        ("ssh://root@[fe80::1]:22", SshAddress("fe80::1", "root", 22)),
        ("ssh://pi@[fe80::1%eth0]", SshAddress("fe80::1%eth0", "pi")),
        ("ssh://[fe80::1%enp3s0.10]:22", SshAddress("fe80::1%enp3s0.10", None, 22)),
    ],
)
def test_addresses(text, address):
    assert SshAddress.parse(text) == address
    assert SshAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        *("ssh://", "ssh:/a@b", "ssh://@b", "ssh://a@", "http://a@b", "ssh://a@b/folder", "ssh://a@b:x"),
        *("ssh://-oProxyCommand=x", "ssh://a@-b", "ssh://-a@b", "ssh://a@b -v", "ssh://a b@c", "ssh://a;b@c"),
        *(
            "ssh://a@$(id)",
            "ssh://a@b\n",
            "ssh://a@b`id`",
            "ssh://a:secret@b",
            "ssh://a@b:0",
            "ssh://a@b:65536",
            "ssh://a@[fe80::1%]",
            "ssh://a@[fe80::1%eth0;id]",
            "ssh://a@b%eth0",
        ),
    ],
)
def test_what_could_be_an_option_or_a_word_of_a_shell_is_no_address(text):
    with pytest.raises(UserError, match="write ssh://user@host"):
        SshAddress.parse(text)


@pytest.mark.parametrize("python", ["", "-c", "python3 -c", "a;b", "$(id)", "a\nb", "'a'", "a&b"])
def test_what_is_no_python(python):
    with pytest.raises(UserError, match="--python"):
        SshSettings(SshAddress("a"), python)


@pytest.mark.parametrize("option", ["", "-v", "Port", "=x", "Port =1", "Port=1\nUser=x"])
def test_what_is_no_option(option):
    with pytest.raises(UserError, match="KEY=VALUE"):
        SshSettings(SshAddress("a"), options=(option,))


def test_paths_and_plain_options_are_taken():
    SshSettings(SshAddress("a"), "~/venv/bin/python3.11", ("IdentityFile=/a b/key", "ProxyJump=x"))


class Ended:
    """A process that has printed and ended."""

    def __init__(self, words, code, out, err, stderr):
        self.words, self.code = words, code
        stderr.write(err)
        self.stdout = io.BytesIO(out)

    def wait(self):
        return self.code

    def kill(self):
        pass

    def communicate(self):
        return b"", b""


@pytest.fixture
def ssh_script(monkeypatch, tmp_path):
    """Puts a shell script in ssh's place."""

    def make(text):
        path = tmp_path / "ssh"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return make


@pytest.fixture
def ended(monkeypatch):
    """Lets ssh end with a code and words; returns the connection and its command lines."""
    lines = []

    def make(code, out=b"", err=b"", **settings):
        def start(words, *, stdin, stdout, stderr):
            lines.append(words)
            return Ended(words, code, out, err, stderr)

        monkeypatch.setattr(ssh.subprocess, "Popen", start)
        return SshConnection(SshSettings(SshAddress("board", "pi", 22), **settings))

    make.lines = lines
    return make


def test_the_command_line_cannot_ask_questions_and_ends_options(ended):
    assert ended(0, b'{"a": 1}\n', options=("Compression=yes",)).ask("true") == {"a": 1}
    (words,) = ended.lines
    assert words[0] == "ssh" and words[-3:] == ["--", "board", "true"]
    pairs = list(itertools.pairwise(words))
    for wanted in ("BatchMode=yes", "ConnectTimeout=10", "Compression=yes"):
        assert ("-o", wanted) in pairs
    assert ("-l", "pi") in pairs and ("-p", "22") in pairs


def test_what_is_asked_of_ssh_goes_before_what_is_asked_without(ended):
    ended(0, b"{}\n", options=("ConnectTimeout=60", "ServerAliveInterval=5")).ask("true")
    (words,) = ended.lines
    for option in ("ConnectTimeout", "ServerAliveInterval"):
        first, second = [word for word in words if word.startswith(option)]
        assert first in ("ConnectTimeout=60", "ServerAliveInterval=5") and second != first


def test_progress_is_told_when_it_comes(ssh_script):
    """Not when the next line comes: the other command may measure for minutes."""
    ssh_script('echo \'{"share": 0.0, "text": "waiting"}\'; sleep 1.5; echo \'{"result": 1}\'')
    began, heard = time.monotonic(), []
    answer = SshConnection(SshSettings(SshAddress("a"))).ask(
        "true", hear=lambda value: heard.append((value["text"], time.monotonic() - began))
    )
    assert answer == {"result": 1} and time.monotonic() - began >= 1.5
    ((text, after_s),) = heard
    assert text == "waiting" and after_s < 1.4


def test_progress_is_heard_and_the_last_object_is_the_answer(ended):
    out = b'Welcome!\n{"share": 0}\n[1]\n{"share": 1}\n{"result": 2}\nbye\n'
    heard = []
    assert ended(0, out).ask("true", hear=heard.append) == {"result": 2}
    assert heard == [{"share": 0}, {"share": 1}]


@pytest.mark.parametrize(
    ("code", "err", "kind", "words"),
    [
        (255, b"noise\nConnection reset by peer\n", ConnectionLost, "Connection reset by peer"),
        (255, b"Connection closed by remote host.\n", ConnectionLost, "Connection closed by remote host"),
        (255, b"", ConnectionLost, "ended without a word"),
        (-9, b"", ConnectionLost, "ended without a word"),
        (127, b"sh: 1: exec: python3: not found\n", UserError, "ssh://pi@board:22 has no `python3`"),
        (2, b"warning\nerror: no space left\n", UserError, "ssh://pi@board:22: no space left"),
        (2, b"sh: syntax\n", UserError, "measuring failed there: sh: syntax"),
        (1, b"Traceback\nValueError: \x1b[31mred\n", UserError, "failed there: ValueError:  [31mred"),
        (0, b"", UserError, "gave no answer; look at its login scripts"),
        (0, b"Traceback\nMemoryError\n", UserError, "the device gave no answer: MemoryError"),
        (
            2,
            b"tar: x: Cannot write: No space left on device\ntar: Exiting with failure status due to previous errors\n",
            UserError,
            "measuring failed there: tar: x: Cannot write: No space left on device",
        ),
        (127, b"sh: 1: tar: not found\n", UserError, "measuring failed there: sh: 1: tar: not found"),
    ],
)  # fmt: skip
def test_endings(ended, code, err, kind, words):
    with pytest.raises(kind) as caught:
        ended(code, err=err).ask("true")
    assert words in str(caught.value)


def test_no_ssh_here(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="no `ssh` on this machine"):
        SshConnection(SshSettings(SshAddress("a"))).ask("true")
