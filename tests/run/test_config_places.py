"""``~`` in settings files means home, so a run is the same however its files were written."""

import pytest

from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.run.config import PipelineConfig, SearchConfig
from nat2deploy.run.directory import RunDirectory

SEARCH = {
    "data": "digits",
    "supernet": ["~/w.safetensors", "other/v.safetensors"],
    "start": "~/run",
    "space": {"name": "~/space.toml"},
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("space", "name", "~/space.toml"),
        ("profile", "table", "~/t.json"),
        ("profile", "tables", {"pi5": "~/t.json"}),
        ("profile", "tables", {"pi5": ["~/t.json", "~/u.json"]}),
        ("train", "supernet", "~/w.safetensors"),
        ("train", "supernet", ["~/w.safetensors", "~/v.safetensors"]),
        ("train", "start", "~/w.safetensors"),
        ("train", "curve", "~/curve"),
    ],
)
def test_each_path_of_a_pipeline(home, section, key, value):
    config = parse(PipelineConfig, {"data": "digits", section: {key: value}}, "config")
    held = config.model_dump(mode="json")[section][key]
    assert repr(held) == repr(value).replace("~", str(home))


@pytest.mark.parametrize("tables", [{"table": "~/t.json"}, {"tables": {"pi5": ["~/t.json", "u.json"]}}])
def test_a_search_goes_on_under_the_whole_path(home, tables):
    config = parse(SearchConfig, SEARCH | tables, "config")
    assert config.supernets == (str(home / "w.safetensors"), "other/v.safetensors")
    assert (config.start, config.space.name) == (str(home / "run"), str(home / "space.toml"))
    run = RunDirectory(home / "made")
    run.begin(config)
    assert "~" not in run.config_path.read_text()
    whole = {key: _whole(value, str(home)) for key, value in (SEARCH | tables).items()}
    run.begin(parse(SearchConfig, whole, "config"))


def test_a_run_that_holds_a_tilde_is_the_same(home):
    run = RunDirectory(home / "made")
    run.path.mkdir()
    run.config_path.write_text('data = "digits"\nsupernet = "~/w.safetensors"\n')
    run.begin(SearchConfig(data="digits", supernet=str(home / "w.safetensors")))


def test_a_home_of_nobody_is_bad_input():
    with pytest.raises(UserError, match="no home folder is known for '~nobody-of-that-name/w'"):
        parse(SearchConfig, SEARCH | {"supernet": "~nobody-of-that-name/w"}, "config")


def _whole(value, home):
    if isinstance(value, dict):
        return {key: _whole(each, home) for key, each in value.items()}
    return [_whole(each, home) for each in value] if isinstance(value, list) else value.replace("~", home)
