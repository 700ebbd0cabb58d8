"""What the tests of the data sets share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def bare_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with an empty home, cache and working folder; returns the folder that holds them."""
    for name in ("home", "cache", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("NAT2DEPLOY_DATA", raising=False)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path
