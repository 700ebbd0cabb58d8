"""Who judges is no part of a run: it is checked, handed on, and never stored."""

from __future__ import annotations

import pytest

from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.run.config import PipelineConfig, SearchConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.pipeline import _search_config


def search_config(workers: object) -> SearchConfig:
    return parse(SearchConfig, {"supernet": "s", "data": "digits", "workers": workers}, "search")


@pytest.mark.parametrize("given", ["auto", 1, 16, "2", "ray", "ray://head:10001"])
def test_numbers_and_clusters_are_taken(given):
    assert search_config(given).workers == str(given)


@pytest.mark.parametrize("given", [0, -1, "0", "two", "ray:", "ray://", "", True, 2.5, 10_000])
def test_anything_else_is_refused_in_one_line(given):
    with pytest.raises(UserError, match=r"search: workers: .*write auto, a number of processes, ray, or ray"):
        search_config(given)


def test_a_run_goes_on_with_other_workers(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.begin(search_config(2))
    run.begin(search_config("ray"))
    assert "workers" not in run.config_path.read_text()
    assert run.read_config(SearchConfig).workers == "auto"


def test_a_pipeline_hands_them_to_its_search(tmp_path):
    config = parse(PipelineConfig, {"data": "digits", "workers": 3}, "config")
    assert _search_config(config, "s.safetensors", tmp_path / "table.json").workers == "3"
