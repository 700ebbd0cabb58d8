"""``~`` means home in every path that a command takes, where the shell has left it as it was written."""

import json

import pytest
import typer

from nat2deploy.cli import main
from nat2deploy.cli.app import app
from nat2deploy.cli.commands import Commands
from nat2deploy.cli.options import tables
from nat2deploy.errors import UserError


@pytest.fixture
def home(tmp_path, monkeypatch, tiny_space_toml):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "home" / "tiny.toml").write_text(tiny_space_toml)
    return tmp_path / "home"


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr("sys.argv", ["nat2deploy", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    return run


def test_real_commands_read_and_write_at_home(run, home):
    words = ("--epochs", "0.01", "--resolutions", "16", "--curve=~/curve", "--json")
    code, _, error = run("train", "--space=~/tiny.toml", "--data", "digits", "--out=~/w.safetensors", *words)
    assert code == 0, error
    assert (home / "w.safetensors").is_file() and list((home / "curve").iterdir())
    code, shown, error = run("supernet", "info", "~/w.safetensors", "--json")
    assert code == 0 and json.loads(shown)["classes"] == 10, error
    assert not list((home.parent / "elsewhere").iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ("costs", "--arch", "{}", "--table=~/t.json"),
        ("costs", "--arch", "{}", "--table=pi5=~/t.json", "--table=nano=~/t.json"),
        ("table", "show", "~/t.json"),
        ("table", "merge", "~/t.json", "~/u.json", "--out=~/v.json"),
        ("report", "~/t.json"),
        ("bench", "~/t.json"),
        ("search", "--supernet=~/t.json", "--data", "digits", "--out=~/run"),
        ("search", "--supernet=~/t.json", "--data", "digits", "--out=~/run", "--table=pi5=~/t.json"),
        ("search", "--from=~/t.json", "--data", "digits", "--out=~/run"),
        ("run", "~/t.json"),
    ],
    ids=" ".join,
)
def test_a_path_that_is_missing_is_looked_for_at_home(run, home, words):
    architecture = '{"ks":[3,3],"e":[4,4],"d":[1,1],"r":16,"w":1.0}'
    space = ("--space=~/tiny.toml",) if words[0] == "costs" else ()
    code, _, error = run(*(architecture if word == "{}" else word for word in words), *space)
    assert code == 2 and str(home / "t.json") in error and "~" not in error, error


def test_what_is_on_another_device_stays_as_it_is(home):
    seen = {}
    group = Commands()

    @group.command()
    def look(
        python: str, ssh_option: list[str] = typer.Option([]), other: list[str] = typer.Option([])
    ) -> None:
        seen.update(python=python, ssh_option=ssh_option, other=other)

    words = ["~/env/bin/python", "--ssh-option", "~x", "--other", "~/x", "--other", "a~"]
    typer.main.get_command(group).main(words, standalone_mode=False)
    assert seen == {"python": "~/env/bin/python", "ssh_option": ["~x"], "other": [str(home / "x"), "a~"]}


def test_every_command_is_of_such_a_group():
    groups = [app, *(each.typer_instance for each in app.registered_groups)]
    assert len(groups) == 3 and all(isinstance(group, Commands) for group in groups)


def test_a_home_of_nobody(run, home):
    code, _, error = run("table", "show", "~nobody-of-that-name/t.json")
    assert code == 2 and error.startswith("error: no home folder is known for '~nobody-of-that-name/t.json'")
    with pytest.raises(UserError, match="no home folder is known"):
        tables(["pi5=~nobody-of-that-name/t.json"])
