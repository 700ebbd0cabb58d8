import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from whole_way import brief_measurements, write_config

from nat2deploy.run.config import SearchConfig, load_pipeline
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.pipeline import Outcome, run_pipeline


@pytest.fixture(scope="module", autouse=True)
def brief() -> Iterator[None]:
    """Nothing here asks how exact a latency is, and beside other tests none would settle before its limit."""
    with brief_measurements():
        yield


@pytest.fixture(scope="session")
def config_path(once) -> Path:
    return once("tiny-config", write_config)


@pytest.fixture(scope="session")
def outcome(config_path, once) -> Outcome:
    """The whole way, once for all workers and their tests of this folder; read-only."""

    def make(folder: Path) -> Outcome:
        with brief_measurements():
            return run_pipeline(load_pipeline(config_path), folder / "run")

    return once("whole-way-of-tests", make)


@pytest.fixture(scope="session")
def short_search(outcome) -> SearchConfig:
    """The search of the whole way, in one round."""
    held = RunDirectory(outcome.out / "search").read_config(SearchConfig)
    return held.model_copy(update={"settings": held.settings.model_copy(update={"rounds": 1})})
