"""A table that was measured on another machine, such as a board behind ssh: nothing is measured here for it."""

import pytest

from nat2deploy.cost.table import load_table, save_table
from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.verify import verify_bundle
from nat2deploy.engines.cores import available_cores
from nat2deploy.run.config import ExportConfig
from nat2deploy.run.export import export
from nat2deploy.run.search import search


@pytest.mark.slow
def test_its_networks_are_searched_and_exported_but_not_measured(outcome, short_search, tmp_path):
    table = load_table(outcome.out / "table.json")
    threads = available_cores() + 1
    board = table.fingerprint.model_copy(update={"cpu": "A board", "cores": threads})
    target = table.target.model_copy(update={"threads": threads})
    save_table(table.model_copy(update={"fingerprint": board, "target": target}), tmp_path / "board.json")
    front = search(short_search.model_copy(update={"table": str(tmp_path / "board.json")}), tmp_path / "run")
    assert front.note == "this machine is not the table's, so nothing was measured here"
    assert front.networks and all(network.measured is None for network in front.networks)

    manifest = export(tmp_path / "run", ExportConfig(), tmp_path / "bundle")
    assert manifest.target == target
    assert manifest.costs.latency_ms > 0
    with open_bundle(tmp_path / "bundle") as bundle:
        assert bundle.evidence() == ()
    found = verify_bundle(tmp_path / "bundle", seed=0)
    assert found.ok and found.latency is None
    with open_bundle(outcome.bundle) as bundle:
        assert len(bundle.evidence()) == 1
