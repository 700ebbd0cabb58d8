"""Measured networks in a table's file."""

import pytest
from cost_tables import make_measured_table, make_networks
from pydantic import ValidationError

from nat2deploy.cost.network_entry import NetworkEntry
from nat2deploy.cost.table import load_table, save_table
from nat2deploy.errors import UserError
from nat2deploy.space.search_space import load_space


def test_a_table_keeps_them_in_its_file(nano, tmp_path):
    table = make_measured_table(nano)
    save_table(table, tmp_path / "t.json")
    assert load_table(tmp_path / "t.json") == table


def test_their_order_of_figures_is_checked(nano):
    (entry,) = make_networks(nano, 1, "held-out", 0)
    for change in ({"ci_low_ms": 99.0}, {"p95_ms": entry.p99_ms * 2}, {"median_ms": -1.0}, {"role": "x"}):
        with pytest.raises(ValidationError):
            NetworkEntry.model_validate({**entry.model_dump(), **change})


def test_an_architecture_of_another_space_is_refused(nano):
    (entry,) = make_networks(nano, 1, "held-out", 0)
    with pytest.raises(UserError):
        entry.signatures(load_space("ofa-mbv3"))
