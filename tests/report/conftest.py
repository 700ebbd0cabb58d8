import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from made_runs import made_networks, write_pipeline


@pytest.fixture(scope="session")
def made() -> list[dict]:
    """Networks of a front; treat them as read-only."""
    return made_networks()


@pytest.fixture(scope="session")
def pipeline(made, tmp_path_factory) -> Path:
    """A whole pipeline's folder; treat it as read-only."""
    return write_pipeline(tmp_path_factory.mktemp("report") / "whole", made)
