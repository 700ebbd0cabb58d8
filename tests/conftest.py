"""What all tests share: one torch thread, hypothesis without deadlines, a small space with every choice."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from nat2deploy.space.search_space import SearchSpace, load_space

# Networks in tests are tiny: a second thread gains nothing, and costs much where tests share the cores.
torch.set_num_threads(1)

settings.register_profile(
    "nat2deploy",
    deadline=None,
    max_examples=50,
    derandomize="CI" in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("nat2deploy")


def pytest_collection_modifyitems(items):
    """Skip tests marked ``gpu`` where PyTorch sees none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="PyTorch sees no GPU here"))


# Three kernels, an expansion of 1 beside broken ones, squeeze-and-excite on and off, equal neighbours.
TINY = """
name = "tiny"
resolutions = [16, 24]
widths = [0.5, 1.0]
kernels = [3, 5, 7]
expansions = [1, 2.5, 4]
depths = [1, 2, 3]

[stem]
channels = 16
stride = 2
activation = "hswish"

[first_block]
channels = 16
kernel = 3
activation = "relu"

[[stages]]
channels = 16
stride = 1
se = true
activation = "hswish"

[[stages]]
channels = 24
stride = 2
se = false
activation = "relu"

[head]
expansion = 2
features = 3
activation = "hswish"
"""


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds the package, the profiles and the tests."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def tiny_space_toml() -> str:
    """The text of a user's own space."""
    return TINY


@pytest.fixture(scope="session")
def tiny_space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    """A user's own space, read from its file."""
    path = tmp_path_factory.mktemp("space") / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return load_space(str(path))
