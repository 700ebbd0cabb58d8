"""Latency tables after they were made: validated, compared, merged, drawn."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from nat2deploy.cli.render_table import print_validation
from nat2deploy.cost.fitting import certify_networks, predict_networks
from nat2deploy.cost.table import load_table, save_table
from nat2deploy.errors import UserError
from nat2deploy.run import tables
from nat2deploy.run.config import load_pipeline
from nat2deploy.run.tables import diff, merge, plot, validate
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import load_space


@pytest.fixture
def own(outcome, tmp_path):
    """A copy of the pipeline's table, and the file of its space."""
    path = tmp_path / "t.json"
    shutil.copy(outcome.out / "table.json", path)
    return path, str(load_pipeline(outcome.out / "config.toml").space.name)


@pytest.fixture
def measured(monkeypatch):
    """Stand in for the clock only: fresh networks whose latency is ``slower`` than the table says."""
    told = {"slower": 1.0, "seed": None}

    def validate_table(table, space, *, networks, seed, time_limit_s, progress, device, remark):
        told["seed"], told["asked"], told["space"] = seed, networks, space
        held_out = told.get("networks") or [n for n in table.networks if n.role == "held-out"]
        predicted = predict_networks(table, space, held_out)
        found = [
            n.model_copy(update=dict.fromkeys(NAMES, told["slower"] * float(ms)))
            for n, ms in zip(held_out, predicted, strict=True)
        ]
        return certify_networks(table, space, found, noise=0.001), found

    monkeypatch.setattr("nat2deploy.run.tables.validate_table", validate_table)
    return told


NAMES = ("median_ms", "p95_ms", "p99_ms", "ci_low_ms", "ci_high_ms")


def test_a_table_that_holds_gets_the_fresh_certificate(own, measured):
    path, space = own
    before = load_table(path)
    found = validate(path, space_name=space, networks=8, seed=9)
    after = load_table(path)
    assert not found.contradicted and measured["seed"] == 9
    assert after.network_noise == found.fresh.noise
    assert after.certificate == found.fresh and found.fresh.mape == pytest.approx(0, abs=1e-9)
    assert [n for n in after.networks if n.role == "calibration"] == [
        n for n in before.networks if n.role == "calibration"
    ]
    assert after.entries == before.entries and after.calibration == before.calibration
    assert found.before == before.certificate


def test_a_contradicted_table_is_left_as_it_is(own, measured):
    path, space = own
    validate(path, space_name=space, seed=9)
    held = path.read_bytes()
    measured["slower"] = 1.3
    found = validate(path, space_name=space, seed=10)
    assert found.contradicted and found.fresh.bias == pytest.approx(1 / 1.3 - 1, abs=1e-6)
    assert path.read_bytes() == held


def test_networks_of_a_space_that_the_table_serves_leave_it_as_it_is(own, measured, tmp_path):
    path, space = own
    smaller = tmp_path / "smaller.toml"
    text = Path(space).read_text()
    assert "depths = [1, 2]" in text
    smaller.write_text(text.replace("depths = [1, 2]", "depths = [1]"))
    drawn = random_architectures(IntegerEncoding(load_space(str(smaller))), np.random.default_rng(0), 8)
    one = load_table(path).networks[0]
    measured["networks"] = [one.model_copy(update={"architecture": a.to_json()}) for a in drawn]
    before = path.read_bytes()
    found = validate(path, space_name=str(smaller), networks=8, seed=9)
    assert not found.contradicted and not found.updated and path.read_bytes() == before


def test_fewer_fresh_networks_replace_no_certificate_but_may_contradict_it(own, measured, capsys):
    path, space = own
    validate(path, space_name=space, seed=9)
    held = path.read_bytes()
    networks = [n for n in load_table(path).networks if n.role == "held-out"]
    measured["networks"] = networks[:4]
    found = validate(path, space_name=space, networks=4, seed=10)
    assert not found.contradicted and not found.updated and path.read_bytes() == held
    print_validation(found, path, as_json=False)
    said = " ".join(capsys.readouterr().out.split())
    assert f"keeps its certificate of {len(networks)}; --networks {len(networks)} would replace it" in said
    measured["slower"] = 1.3
    assert validate(path, space_name=space, networks=4, seed=10).contradicted
    assert path.read_bytes() == held


def test_two_validations_at_once_keep_the_certificate_of_more_networks(own, measured, monkeypatch):
    path, space = own
    stand_in = tables.validate_table

    def while_another_one_ends(table, *given, **options):
        more = table.certificate.model_copy(update={"networks": 80})
        save_table(table.model_copy(update={"certificate": more}), path)
        return stand_in(table, *given, **options)

    validate(path, space_name=space, seed=9)
    monkeypatch.setattr(tables, "validate_table", while_another_one_ends)
    found = validate(path, space_name=space, seed=10)
    assert not found.updated and found.before.networks == load_table(path).certificate.networks == 80

    def while_it_is_made_anew(table, *given, **options):
        save_table(table.model_copy(update={"seed": table.seed + 7}), path)
        return stand_in(table, *given, **options)

    monkeypatch.setattr(tables, "validate_table", while_it_is_made_anew)
    with pytest.raises(UserError, match="was made anew meanwhile, and is left as it is"):
        validate(path, space_name=space, seed=11)
    assert load_table(path).certificate.networks == 80


def test_as_many_networks_as_the_certificate_is_of_are_measured(own, measured):
    path, space = own
    validate(path, space_name=space, seed=9)
    assert measured["asked"] == 50
    table = load_table(path)
    larger = table.certificate.model_copy(update={"networks": 70})
    save_table(table.model_copy(update={"certificate": larger}), path)
    validate(path, space_name=space, seed=9)
    assert measured["asked"] == 70


def test_a_space_is_cut_to_what_the_table_has(own, measured, tmp_path):
    path, space = own
    text = Path(space).read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("resolutions = ")]
    resolutions = load_table(path).resolutions
    more = tmp_path / "more.toml"
    more.write_text(text.replace(line, f"resolutions = {[*resolutions, 96]}"))
    found = validate(path, space_name=str(more), networks=8, seed=9)
    assert measured["space"].resolutions == resolutions and found.updated
    part = tmp_path / "part.toml"
    part.write_text(text.replace(line, f"resolutions = {[resolutions[0], 96]}"))
    one = load_table(path).networks[0]
    cut = load_space(space).restrict(resolutions=resolutions[:1])
    drawn = random_architectures(IntegerEncoding(cut), np.random.default_rng(0), 8)
    measured["networks"] = [one.model_copy(update={"architecture": a.to_json()}) for a in drawn]
    before = path.read_bytes()
    found = validate(path, space_name=str(part), networks=8, seed=9)
    assert measured["space"].resolutions == resolutions[:1]
    assert found.updated == (len(resolutions) == 1)
    assert len(resolutions) == 1 or path.read_bytes() == before


def test_two_per_cent_are_never_a_contradiction(own, measured):
    path, space = own
    validate(path, space_name=space, seed=9)  # certified to next to nothing
    measured["slower"] = 1.015
    assert not validate(path, space_name=space, seed=10).contradicted
    measured["slower"] = 1.5
    assert validate(path, space_name=space, seed=11).contradicted


def test_the_tables_own_seed_is_refused(own, measured):
    path, space = own
    with pytest.raises(UserError, match="is the table's own"):
        validate(path, space_name=space, seed=load_table(path).seed)
    assert measured["seed"] is None


def test_a_space_of_ones_own_must_be_named(own):
    path, space = own
    with pytest.raises(UserError, match=r"space 'tiny', no preset; give --space FILE\.toml"):
        diff(path, path)
    with pytest.raises(UserError, match="of space 'tiny'"):
        diff(path, path, space_name="nano")
    found = diff(path, path, space_name=space)
    assert found.block_ratio == found.network_ratio == 1


def test_merging_with_itself_changes_no_prediction(own, tmp_path):
    path, space = own
    merged = merge([path, path], tmp_path / "m.json", space_name=space)
    assert load_table(tmp_path / "m.json") == merged
    assert merged.entries == load_table(path).entries
    assert merged.networks == load_table(path).networks  # none counts twice
    assert merged.calibration.networks == load_table(path).calibration.networks
    with pytest.raises(UserError, match=r"a \.json file"):
        merge([path, path], tmp_path / "m.txt", space_name=space)


def test_a_picture_of_it(own, tmp_path):
    path, space = own
    plot(path, tmp_path / "p.png", space_name=space)
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_for_real(own):
    """The clock, too: on a busy machine it may find too much noise to certify, and says so."""
    path, space = own
    before = load_table(path)
    try:
        found = validate(path, space_name=space, networks=8, seed=9, time_limit_s=2)
    except UserError as error:
        assert "noise" in str(error)
        assert load_table(path) == before
    else:
        assert found.fresh.networks == 8
        assert found.contradicted == (load_table(path) == before)


def test_a_shipped_table_is_not_written_to(tmp_path, monkeypatch, measured):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="name a copy"):
        validate(Path("nano-x86-1-thread"), seed=9)
    assert measured["seed"] is None
