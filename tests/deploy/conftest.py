"""One small bundle, exported once for all tests of bundles."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy_helpers import export_net

from nat2deploy.deploy.manifest import Manifest


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle; read only."""
    out = tmp_path_factory.mktemp("bundles") / "tiny"
    export_net(out)
    return out


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may spoil."""
    return Path(shutil.copytree(exported, tmp_path / "tiny"))


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Manifest]:
    """Export with other arguments, to a place of the test's own."""
    return lambda out=tmp_path / "out", **changes: export_net(out, **changes)
