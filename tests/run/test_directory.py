"""A run directory by itself."""

import shutil

import pytest

from nat2deploy.errors import UserError
from nat2deploy.run.config import PipelineConfig, SearchConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.search.settings import SearchSettings


def test_other_settings_are_named_to_the_last_key(tmp_path):
    run = RunDirectory(tmp_path / "run")
    old = SearchConfig(supernet="w", data="digits", settings=SearchSettings(searcher="nsga3"))
    run.begin(old)
    run.begin(old)
    now = old.model_copy(update={"settings": SearchSettings(), "budgets": ("params<=1M",)})
    with pytest.raises(UserError, match=r"other settings \(budgets, settings.searcher\)"):
        run.begin(now)


def test_a_file_may_be_spelled_in_several_ways(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    run = RunDirectory(tmp_path / "run")
    old = SearchConfig(
        supernet=("w.safetensors", "v.safetensors"), data="imagefolder:photos", tables={"pi5": "pi.json"}
    )
    run.begin(old)
    stored = run.config_path.read_bytes()
    again = {
        "supernet": (str(tmp_path / "w.safetensors"), "./v.safetensors"),
        "data": f"imagefolder:{tmp_path}/photos/",
        "tables": {"pi5": "link/pi.json"},
    }
    run.begin(old.model_copy(update=again))
    assert run.config_path.read_bytes() == stored
    for key, value in {
        "supernet": ("w.safetensors",),
        "data": "cifar10:photos",
        "tables": {"pi5": "other/pi.json"},
        "start": "~nobody-of-that-name/run",
    }.items():
        with pytest.raises(UserError, match=rf"other settings \({key}"):
            run.begin(old.model_copy(update={key: value}))


def test_a_pipelines_own_files_may_have_been_elsewhere(tmp_path):
    old = SearchConfig(supernet="was/supernet.safetensors", data="digits", table="was/table.json")
    run = RunDirectory(tmp_path / "is" / "search")
    run.begin(old)
    now = {
        "supernet": str(tmp_path / "is" / "supernet.safetensors"),
        "table": str(tmp_path / "is" / "table.json"),
    }
    with pytest.raises(UserError, match=r"other settings \(supernet, table\)"):
        run.begin(old.model_copy(update=now))  # no pipeline
    RunDirectory(tmp_path / "pipeline").begin(PipelineConfig(data="digits"))
    shutil.copy(tmp_path / "pipeline" / "config.toml", tmp_path / "is")
    run.begin(old.model_copy(update=now))
    with pytest.raises(UserError, match=r"other settings \(table\)"):
        run.begin(old.model_copy(update=now | {"table": str(tmp_path / "is" / "other.json")}))


def test_a_pipelines_folder_is_no_searchs(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.begin(PipelineConfig(data="digits"))
    with pytest.raises(
        UserError, match=r"run holds another kind of run.*seed: unknown key.*choose another --out"
    ):
        run.begin(SearchConfig(supernet="w", data="digits"))


def test_a_pipelines_folder_read_for_its_search_says_where_that_is(tmp_path):
    RunDirectory(tmp_path).begin(PipelineConfig(data="digits"))
    search = RunDirectory(tmp_path / "search")
    search.begin(SearchConfig(supernet="w", data="digits"))
    with pytest.raises(UserError, match=rf"is a pipeline's folder; its search is {search.path}$"):
        RunDirectory(tmp_path).read_config(SearchConfig)
    assert RunDirectory(tmp_path).read_config(PipelineConfig).data == "digits"
    assert search.read_config(SearchConfig).supernet == "w"


def test_a_kill_while_the_settings_are_written_does_not_stop_the_next_beginning(tmp_path):
    (tmp_path / ".config.toml.ab12.tmp").write_text("half")
    (tmp_path / ".lock").touch()
    run, config = RunDirectory(tmp_path), SearchConfig(supernet="w", data="digits")
    run.begin(config)
    with run.locked():
        assert {path.name for path in tmp_path.iterdir()} == {".lock", "config.toml"}
    assert run.read_config(SearchConfig) == config


@pytest.mark.parametrize("name", ["notes.tmp", ".hidden", "photo.png"])
def test_a_folder_that_holds_something_else_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UserError, match="is not empty and not a run"):
        RunDirectory(tmp_path).begin(SearchConfig(supernet="w", data="digits"))


def test_a_run_that_is_gone_on_with_is_rid_of_what_a_kill_left(tmp_path):
    left, kept = tmp_path / "networks" / ".x.tmp", tmp_path / ".adaptation"
    left.parent.mkdir()
    left.touch()
    kept.touch()
    run = RunDirectory(tmp_path)
    with run.locked():
        assert not left.exists() and kept.exists()
        left.touch()
        with pytest.raises(UserError, match="in use by another process"), run.locked():
            pass
        assert left.exists(), "it may be what the other process writes"


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"cannot write .*file/run/\.lock: Not a directory"),
        RunDirectory(tmp_path / "file" / "run").locked(),
    ):
        pass
