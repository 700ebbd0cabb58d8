"""Super-networks with weights and statistics that show every mistake: nothing is zero, one or identity."""

from collections.abc import Callable

import pytest
import torch
from supernet_shake import shake

from nat2deploy.space.search_space import SearchSpace
from nat2deploy.supernet.network import SuperNetwork


@pytest.fixture
def make_supernet() -> Callable[..., SuperNetwork]:
    """Build a shaken super-network in evaluation mode from a seed."""

    def make(space: SearchSpace, width: float = 1.0, classes: int = 10, seed: int = 0) -> SuperNetwork:
        torch.manual_seed(seed)
        supernet = SuperNetwork(space, width, classes)
        shake(supernet, seed)
        return supernet.eval()

    return make
