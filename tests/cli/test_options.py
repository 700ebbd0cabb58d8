"""Options that several commands share."""

from types import SimpleNamespace

import pytest
import typer

from nat2deploy.cli import searching as command_of_search
from nat2deploy.cli.options import given_options, percentage, ssh_settings, tables, whole_numbers
from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.run import search as searching
from nat2deploy.run.finetune_config import FinetuneConfig
from nat2deploy.search.settings import SearchSettings


def test_a_single_table_and_several_by_name(tmp_path):
    assert tables(None) == tables([]) == (None, {})
    assert tables(["a.json"]) == ("a.json", {})
    assert tables(["pi5=a.json"]) == (None, {"pi5": "a.json"})
    assert tables(["pi5=a.json", "h200=b=c.json"]) == (None, {"pi5": "a.json", "h200": "b=c.json"})
    assert tables(["a.json", "b.json"]) == (("a.json", "b.json"), {})
    assert tables(["pi5=a.json", "pi5=b.json", "board=c.json"]) == (
        None,
        {"pi5": ("a.json", "b.json"), "board": "c.json"},
    )
    odd = tmp_path / "pi5=a.json"
    odd.write_text("{}")
    assert tables([str(odd)]) == (str(odd), {})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["pi5=a.json", "b.json"], "need a name each, such as --table pi5=b.json"),
        (["a b=a.json"], "--table a b=a.json: write NAME=FILE"),
        (["=a.json"], "write NAME=FILE"),
        (["pi5="], "write NAME=FILE"),
    ],
)
def test_tables_that_cannot_be_told_apart(given, says):
    with pytest.raises(typer.BadParameter, match=says):
        tables(given)


def test_percentages_and_whole_numbers():
    assert percentage("--x", "0.5%") == pytest.approx(0.005)
    assert whole_numbers("--sm", "86,120") == (86, 120)
    assert whole_numbers("--sm", None) is None


@pytest.mark.parametrize("text", ["0.5", "%", "-1%", "101%", "nan%", "half%"])
def test_what_is_no_percentage_is_refused(text):
    with pytest.raises(typer.BadParameter, match=r"such as 0\.5%"):
        percentage("--max-accuracy-drop", text)


def test_what_are_no_whole_numbers_is_refused():
    with pytest.raises(typer.BadParameter, match="--sm '86;120': write whole numbers"):
        whole_numbers("--sm", "86;120")


@pytest.mark.parametrize(
    ("written", "options", "counts"),
    [("seed = 5", (), 5), ("seed = 5", ("--seed", "0"), 0), ("rounds = 2", (), 0)],
)
def test_the_seed_of_a_settings_file_counts_unless_one_is_given(
    command, tmp_path, monkeypatch, written, options, counts
):
    seen = []

    def search(config, *_):
        seen.append(config.settings.seed)
        raise UserError("seen")

    monkeypatch.setattr(searching, "search", search)
    (tmp_path / "settings.toml").write_text(written)
    words = ("search", "--supernet", "w", "--data", "digits", "--out", tmp_path / "run", *options)
    code, _, error = command(*words, "--settings", tmp_path / "settings.toml")
    assert (code, seen) == (2, [counts]), error


@pytest.mark.parametrize("words", [("train", "--data", "digits"), ("search", "--data", "digits")])
def test_a_seed_beyond_what_generators_take_is_refused(command, tmp_path, words):
    code, _, error = command(*words, "--out", tmp_path / "run", "--seed", 2**63)
    assert code == 2 and "--seed" in error and "9223372036854775807" in error, error


@pytest.mark.parametrize("model", [SearchSettings, FinetuneConfig])
def test_a_seed_in_a_file_has_the_same_bounds(model):
    assert parse(model, {"seed": 2**63 - 1}, "file").seed == 2**63 - 1
    for seed in (-1, 2**63):
        with pytest.raises(UserError, match="seed"):
            parse(model, {"seed": seed}, "file")


@pytest.mark.parametrize(
    ("python", "options", "said"),
    [("env/bin/python", None, "--python"), ("python3", ["Port=22"], "--ssh-option")],
)
def test_how_to_reach_a_device_is_refused_for_this_machine(python, options, said):
    with pytest.raises(typer.BadParameter, match=rf"{said} is for --device ssh://...; leave it out for cpu"):
        ssh_settings("cpu", python, options)
    assert ssh_settings("ssh://pi@board", python, options) is not None
    assert ssh_settings("cpu", "python3", None) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("export r --out b --stages --expected-latency 5", "--expected-latency: '5': write a latency"),
        ("export r --out b --expected-latency 5ms", "and --confidence are for --stages; add that"),
        (
            "export r --out b --int8-layers faster --engine tensorrt",
            "--int8-layers faster is for onnxruntime",
        ),
        ("export r --out b --engine tensor", "--engine: Input should be 'onnxruntime'"),
        ("finetune r --method aep --prune speed", "--prune: no cost 'speed'"),
        ("finetune r --method aep --prune none --prune latency", "--prune: none and accuracy stand alone"),
        ("finetune r --prune latency", "--prune is for --method aep alone"),
        ("finetune r --device tpu", "--device: 'tpu': write cpu, cuda, or"),
        ("train --data digits --out w --width -1", "--width: Input should be greater than 0"),
        ("train --data digits --out w --resolutions 0", "--resolutions: Input should be greater"),
        (
            "search --data digits --supernet w --out r --resolutions 0",
            "--resolutions: Input should be greater",
        ),
        ("profile --out t.json --resolutions 0", "--resolutions: Input should be greater"),
        ("profile --out t.json --time-limit inf", "--time-limit: Input should be a finite number"),
        ("table kit --out k.zip --resolutions -28", "--resolutions: Input should be greater"),
        ("table kit --out k.zip --time-limit inf", "--time-limit: Input should be a finite number"),
        ("search --data digits --supernet w --out r --preset x", "--preset: Input should be 'ours'"),
        ("search --data digits --supernet w --out r --workers x", "--workers: 'x': write auto"),
    ],
)
def test_what_does_not_fit_is_told_by_its_option(command, words, said):
    code, _, error = command(*words.split())
    told = " ".join(error.split())
    assert code == 2 and said in told and told.startswith("error: --"), error


def test_options_that_exclude_each_other_are_told_by_their_names(command):
    words = "export r --out b --stages --expected-latency 5ms --stage-accuracy 90%"
    code, _, error = command(*words.split())
    assert (code, " ".join(error.split())) == (
        2,
        "error: export: give one of --expected-latency, --stage-accuracy and --stage-accuracy-drop",
    )


def test_a_file_is_told_by_its_keys(command, tmp_path):
    (tmp_path / "c.toml").write_text('data = "digits"\n[export]\nexpected_latency = "5ms"\n')
    code, _, error = command("run", tmp_path / "c.toml")
    told = " ".join(error.split())
    assert code == 2 and "c.toml: export: expected_latency, stage_accuracy," in told
    assert "confidence are for stages = true; add that" in told and "--" not in told


def test_a_settings_file_beside_options_is_told_by_its_keys(command, tmp_path):
    (tmp_path / "s.toml").write_text("rounds = 0")
    words = ("search", "--supernet", "w", "--data", "digits", "--out", tmp_path / "run")
    code, _, error = command(*words, "--settings", tmp_path / "s.toml")
    told = " ".join(error.split())
    assert code == 2 and f"search settings {tmp_path}/s.toml: rounds: Input should be greater" in told
    (tmp_path / "s.toml").write_text("rounds = true")
    code, _, error = command(*words, "--settings", tmp_path / "s.toml")
    assert code == 2 and "s.toml: rounds: Input should be a valid integer" in " ".join(error.split())


def test_a_stored_search_need_not_be_measured_again(command, tmp_path, monkeypatch):
    (tmp_path / "c.toml").write_text('data = "digits"\nsupernet = "w"\nmeasure = false\n')
    searched = []
    monkeypatch.setattr(
        command_of_search, "_search", lambda config, *_, **__: searched.append(config.measure)
    )
    for more in ((), ("--no-measure",), ("--measure",)):
        assert command("search", "--config", tmp_path / "c.toml", "--out", tmp_path / "r", *more)[0] == 0
    assert searched == [False, False, True]


def test_a_flag_that_is_off_is_told_as_it_was_typed():
    context = SimpleNamespace(
        params={"measure": False, "seed": 3},
        get_parameter_source=lambda name: SimpleNamespace(name="COMMANDLINE"),
    )
    assert given_options(context, ["measure", "seed"]) == ["--no-measure", "--seed"]
