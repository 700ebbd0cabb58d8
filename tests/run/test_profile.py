import json

import pytest
from whole_way import TINY_SPACE

from nat2deploy.errors import UserError
from nat2deploy.measure import plan, prepared
from nat2deploy.measure.interleave import measure_interleaved
from nat2deploy.progress import REMARK
from nat2deploy.run import profile as profiling
from nat2deploy.run.config import ProfileConfig, SpaceConfig
from nat2deploy.run.profile import fastest_backend, make_plan, profile, profile_once
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
    assert choice.reason == "its interrupted profile goes on; another --out chooses anew"


def test_what_cannot_be_written_is_said_before_anything_is_measured(space, tmp_path, monkeypatch):
    monkeypatch.setattr(profiling, "choose_backend", None)
    with pytest.raises(UserError, match="add that ending"):
        fastest_backend(space, TARGETS, CONFIG, tmp_path / "table.txt")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        fastest_backend(space, TARGETS, CONFIG, tmp_path / "folder.json")


def test_fifty_networks_are_held_out_by_default_and_the_warm_up_is_the_configs(space):
    assert make_plan(space, Target(), ProfileConfig(), 0).held_out_networks == 50
    assert make_plan(space, Target(), ProfileConfig(), 0).warmup_ms == 0
    assert make_plan(space, Target(), ProfileConfig(warmup_ms=20), 0).warmup_ms == 20


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_table_of_real_measurements(space, tmp_path, precision):
    target = Target(precision=precision)
    table = profile(space, target, CONFIG, tmp_path / "table.json")
    assert table.target == target
    assert json.loads((tmp_path / "table.json").read_text())["target"]["precision"] == precision
    assert all(entry.median_ms > 0 for entry in table.entries.values())
    assert table.calibration is not None


def test_a_pipeline_is_told_what_is_doubtful_about_its_table(space, tmp_path):
    """A precision that is never reached."""
    said = []
    never = CONFIG.model_copy(update={"precision": 1e-9, "time_limit_s": 1.0})
    profile_once(
        space, Target(), never, tmp_path / "table.json", seed=0,
        report=lambda stage, done, total, detail="": said.append((stage, detail)),
    )  # fmt: skip
    remarks = [text for stage, text in said if stage == REMARK]
    assert any("blocks and 16 of 16 networks did not settle within the time" in text for text in remarks)


def test_a_changed_time_limit_that_costs_what_was_measured_is_remarked_on(space, tmp_path, monkeypatch):
    out, said = tmp_path / "table.json", []

    def full(table, path):
        raise UserError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(profiling, "save_table", full)
        with pytest.raises(UserError, match="no room"):
            profile(space, Target(), CONFIG, out)
    assert [path.name for path in tmp_path.iterdir() if "table" in path.name] == [".table.json.partial"]
    longer = CONFIG.model_copy(update={"time_limit_s": 2.5})

    def report(stage, done, total, detail=""):
        said.append((stage, detail))

    profile(space, Target(), longer, out, report=report)
    partial = tmp_path / ".table.json.partial"
    assert (REMARK, f"beginning anew: {partial} is of another time limit s; it waits beside it") in said
    assert [path.name for path in tmp_path.iterdir() if "table" in path.name] == [out.name]


def test_one_profile_at_a_time_measures_for_a_table(space, tmp_path, monkeypatch):
    out = tmp_path / "table.json"

    def meanwhile(*_, **__):
        profile(space, Target(), CONFIG, out)

    monkeypatch.setattr(profiling, "profile_space", meanwhile)
    with pytest.raises(UserError, match=r"table\.json is being measured by another process; wait for it"):
        profile(space, Target(), CONFIG, out)
    assert not list(tmp_path.glob(".table*"))
