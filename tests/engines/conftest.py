import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from int8_helpers import Trained, train_on_digits


@pytest.fixture(scope="session")
def trained(tiny_space) -> Trained:
    """A small network that tells digits apart; read only."""
    return train_on_digits(tiny_space)
