"""What one process holds no other one takes, and nothing is held by one that ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nat2deploy.errors import UserError
from nat2deploy.locks import holding

HOLD = """
import sys, time
from pathlib import Path
from nat2deploy.locks import holding
with holding(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_told_until_the_holder_is_killed(tmp_path):
    lock = tmp_path / "new folder" / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, lock], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=r"^it is busy$"), holding(lock, "it is busy"):
            pass
        holder.kill()
    with holding(lock, "it is busy"):
        assert lock.exists()
    assert not lock.exists()


@pytest.mark.parametrize("keep", [False, True])
def test_an_error_lets_go(tmp_path, keep):
    lock = tmp_path / "lock"
    with pytest.raises(ZeroDivisionError), holding(lock, "busy", keep=keep):
        raise ZeroDivisionError
    assert lock.exists() is keep
    with holding(lock, "busy"):
        pass


def test_a_lock_that_its_holder_removed_meanwhile_locks_nobody_out_and_is_made_anew(tmp_path, monkeypatch):
    """Opened before the holder removed it, locked after: the next one would make another file."""
    lock, opened = tmp_path / "lock", []
    plain = Path.open

    def open_late(path, *given):
        stream = plain(path, *given)
        if not opened:
            lock.unlink()
        opened.append(os.fstat(stream.fileno()).st_ino)
        return stream

    monkeypatch.setattr(Path, "open", open_late)
    with holding(lock, "busy"):
        assert len(opened) == 2
        with pytest.raises(UserError, match="busy"), holding(lock, "busy"):
            pass


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/lock"), holding(tmp_path / "file" / "lock", ""):
        pass
