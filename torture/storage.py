"""A full disk, and a folder that cannot be written to."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torture.commands import run
from torture.scenario import Bench, Found

_SIZES_KB = (4, 16, 60, 150, 250, 350, 450, 600, 800, 1000, 1200, 1500, 2000, 2500, 3000)
_ENOUGH_KB = 64_000


def full_disk(bench: Bench) -> Found:
    """Run on a small disk, which grows a little each time that it was full."""
    found = Found("full disk")
    with _disk(bench.folder / "disk", found) as disk:
        if disk is None:
            return found
        out = disk / "run"
        for size_kb in _SIZES_KB:
            _remount(disk, f"size={size_kb}k")
            ended = run(*bench.words(out))
            if ended.code == 0:
                break
            bench.check_refusal(ended, out, found)
            if found.problems:
                found.problems[-1] += f" (disk of {size_kb} kB)"
        _remount(disk, f"size={_ENOUGH_KB}k")
        bench.go_on(out, found)
    return found


def read_only(bench: Bench) -> Found:
    """Run where nothing can be written: before there is a run, in the middle of one, and after its end."""
    found = Found("read-only")
    with _disk(bench.folder / "disk", found) as disk:
        if disk is None:
            return found
        out = disk / "run"
        _remount(disk, f"size={_ENOUGH_KB}k,ro")
        bench.check_refusal(run(*bench.words(out)), out, found)
        _remount(disk, f"size={_ENOUGH_KB}k,rw")
        bench.check_refusal(run(*bench.words(out), fault="memory:3:0"), out, found)
        _remount(disk, f"size={_ENOUGH_KB}k,ro")
        bench.check_refusal(run(*bench.words(out)), out, found)
        _remount(disk, f"size={_ENOUGH_KB}k,rw")
        bench.go_on(out, found)
        _remount(disk, f"size={_ENOUGH_KB}k,ro")
        bench.check_refusal(run(*bench.words(out)), out, found)
    return found


@contextmanager
def _disk(place: Path, found: Found) -> Iterator[Path | None]:
    """A file system of its own at ``place``; None where this user may not mount one."""
    place.mkdir()
    try:
        mount = shutil.which("mount")
        if mount is None or os.geteuid() != 0 or _mount(f"size={_ENOUGH_KB}k", place) != 0:
            found.skipped = "mounting a small file system takes root"
            yield None
            return
        try:
            yield place
        finally:
            subprocess.run(["umount", "-l", str(place)], check=True)
    finally:
        place.rmdir()


def _mount(options: str, place: Path) -> int:
    words = ["mount", "-t", "tmpfs", "-o", options, "torture", str(place)]
    return subprocess.run(words, capture_output=True).returncode


def _remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)
