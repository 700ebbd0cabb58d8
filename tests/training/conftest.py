"""A small search space, and the digits that come with scikit-learn."""

from __future__ import annotations

import pytest
import torch

from nat2deploy.data.load import load_data
from nat2deploy.data.sets import ImageData
from nat2deploy.space.search_space import FirstBlockSpec, HeadSpec, SearchSpace, StageSpec, StemSpec


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def space() -> SearchSpace:
    """Two stages of one or two layers, with squeeze-and-excite in the second."""
    return SearchSpace(
        name="tiny",
        resolutions=(8, 16),
        widths=(1.0,),
        kernels=(3, 5),
        expansions=(2.0, 3.0),
        depths=(1, 2),
        stem=StemSpec(channels=8, stride=2, activation="hswish"),
        first_block=FirstBlockSpec(channels=8, kernel=3, activation="relu"),
        stages=(
            StageSpec(channels=8, stride=1, se=False, activation="relu"),
            StageSpec(channels=16, stride=2, se=True, activation="hswish"),
        ),
        head=HeadSpec(expansion=2, features=2, activation="hswish"),
    )


@pytest.fixture(scope="session")
def digits() -> ImageData:
    """A hundred training digits; all of validation and test."""
    return load_data("digits", seed=0, base_resolution=16, max_train=100)


class Killed(BaseException):
    """Stands for what ends a process at any moment; nothing may catch it."""


@pytest.fixture
def killed() -> type[BaseException]:
    return Killed
