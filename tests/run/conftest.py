import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from whole_way import write_config

from nat2deploy.run.config import load_pipeline
from nat2deploy.run.pipeline import Outcome, run_pipeline


@pytest.fixture(scope="session")
def config_path(tmp_path_factory) -> Path:
    return write_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="session")
def outcome(config_path, tmp_path_factory) -> Outcome:
    """The whole way, once for all tests of this folder; treat it as read-only."""
    return run_pipeline(load_pipeline(config_path), tmp_path_factory.mktemp("whole") / "run")
