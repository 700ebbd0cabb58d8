import json

import pytest
from whole_way import TINY_SPACE

from nat2deploy.errors import UserError
from nat2deploy.measure import plan, prepared
from nat2deploy.measure.interleave import measure_interleaved
from nat2deploy.run import profile as profiling
from nat2deploy.run.config import ProfileConfig, SpaceConfig
from nat2deploy.run.profile import fastest_backend, profile
from nat2deploy.target import Target

CONFIG = ProfileConfig(precision=0.5, time_limit_s=2, calibration_networks=8, held_out_networks=8)
TARGETS = [Target(), Target(backend="torch")]


@pytest.fixture
def space(tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY_SPACE)
    return SpaceConfig(name=str(tmp_path / "tiny.toml"), resolutions=(16,))


def test_a_killed_profile_goes_on_with_the_backend_that_it_chose(space, tmp_path, monkeypatch):
    out = tmp_path / "table.json"
    calls = []

    def killed_later(*arguments, **settings):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure_interleaved(*arguments, **settings)

    monkeypatch.setattr(plan, "_BLOCKS_AT_ONCE", 10)
    monkeypatch.setattr(prepared, "measure_interleaved", killed_later)
    with pytest.raises(KeyboardInterrupt):
        profile(space, TARGETS[1], CONFIG, out)
    monkeypatch.setattr(profiling, "choose_backend", None)  # nothing is to be measured
    choice = fastest_backend(space, TARGETS, CONFIG, out)
    assert choice.fastest == TARGETS[1]
    assert choice.reason == "chosen before the interruption"


def test_what_cannot_be_written_is_said_before_anything_is_measured(space, tmp_path, monkeypatch):
    monkeypatch.setattr(profiling, "choose_backend", None)
    with pytest.raises(UserError, match="add that ending"):
        fastest_backend(space, TARGETS, CONFIG, tmp_path / "table.txt")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        fastest_backend(space, TARGETS, CONFIG, tmp_path / "folder.json")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_table_of_real_measurements(space, tmp_path, precision):
    target = Target(precision=precision)
    table = profile(space, target, CONFIG, tmp_path / "table.json")
    assert table.target == target
    assert json.loads((tmp_path / "table.json").read_text())["target"]["precision"] == precision
    assert all(entry.median_ms > 0 for entry in table.entries.values())
    assert table.calibration is not None
