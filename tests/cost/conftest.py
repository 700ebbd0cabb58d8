import pytest
from cost_tables import make_table

from nat2deploy.cost.table import LatencyTable
from nat2deploy.space.search_space import load_space


@pytest.fixture(scope="session")
def nano():
    return load_space("nano").restrict(resolutions=(28, 32))


@pytest.fixture(scope="session")
def table(nano) -> LatencyTable:
    return make_table(nano)
