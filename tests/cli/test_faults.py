"""What the machine refuses is one line on standard error, and what is a fault of ours is not hidden."""

import errno
import sys

import pytest
import torch

from nat2deploy.cli import app as application
from nat2deploy.cli import main


@pytest.fixture
def failing(monkeypatch, capsys):
    """What runs a command that raises an error, and returns the exit code and what was said."""

    def run(error):
        def command(**_):
            raise error

        monkeypatch.setattr(application, "app", command)
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_disks_and_folders_that_refuse(failing, number):
    code, said = failing(OSError(number, "the system's word", "/some/place"))
    assert code == 2
    assert said == "error: /some/place: the system's word; make room, or choose another place\n"


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP])
def test_paths_that_cannot_be(failing, number):
    code, said = failing(OSError(number, "the system's word", "/some/place"))
    assert code == 2
    assert said == "error: /some/place: the system's word; choose another path\n"
    _, said = failing(OSError(number, "the system's word", "x" * 5000))
    assert said.count("\n") == 1 and len(said) < 300


@pytest.mark.parametrize(
    "arguments",
    [
        ("table", "show", "{}"),
        ("report", "{}"),
        ("export", "{}"),
        ("verify", "{}"),
        ("bench", "{}.onnx"),
        ("run", "{}.toml"),
        ("search", "--supernet", "{}", "--data", "digits", "--out", "o"),
        ("search", "--supernet", "nano-ee-d-fashion-mnist", "--data", "imagefolder:{}", "--out", "o"),
        ("search", "--supernet", "nano-ee-d-fashion-mnist", "--data", "digits", "--out", "{}"),
        ("train", "--space", "{}", "--data", "digits", "--out", "o"),
        ("profile", "--space", "nano", "--out", "{}"),
        ("profile", "--profile", "{}"),
    ],
    ids=lambda words: "-".join(words)[:40],
)
@pytest.mark.parametrize("place", ["long", "inside-a-file"])
def test_a_path_that_cannot_be_is_one_line(tmp_path, monkeypatch, capsys, arguments, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    name = "n" * 300 if place == "long" else "file/below"
    with pytest.raises(SystemExit) as end:
        monkeypatch.setattr("sys.argv", ["nat2deploy", *(word.format(name) for word in arguments)])
        main()
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.startswith("error: ") and said.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_memory_that_runs_out(failing):
    for short in (lambda: bytearray(1 << 60), lambda: torch.empty(1 << 60, dtype=torch.uint8)):
        with pytest.raises((MemoryError, RuntimeError)) as caught:
            short()
        code, said = failing(caught.value)
        assert code == 2
        assert said.startswith("error: memory ran out") and said.count("\n") == 1


@pytest.mark.parametrize("error", [OSError(errno.EBADF, "bad"), RuntimeError("no reason"), ValueError("x")])
def test_faults_of_ours_keep_their_traceback(monkeypatch, error):
    def command(**_):
        raise error

    monkeypatch.setattr(application, "app", command)
    with pytest.raises(type(error)):
        main()


def test_interrupted_while_its_modules_load(monkeypatch, capsys):
    class Interrupting:
        def find_spec(self, name, *_):
            if name == "nat2deploy.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "nat2deploy.cli.app")
    monkeypatch.setattr("sys.meta_path", [Interrupting(), *sys.meta_path])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    assert capsys.readouterr().err == ""


def test_interrupted_again_while_the_first_time_is_told(failing, monkeypatch):
    def print_(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(application, "print", print_, raising=False)
    assert failing(KeyboardInterrupt())[0] == 130
