"""``--help`` says what every argument and option is, whole, and the defaults that it names are true."""

import re

import pytest
import typer
from typer.testing import CliRunner

from nat2deploy.cli.app import app
from nat2deploy.run.finetune_config import FinetuneConfig
from nat2deploy.search.settings import SearchSettings


def leaves(command, path=()):
    children = getattr(command, "commands", None)
    if children is None:
        return [(path, command)]
    return [leaf for name, child in children.items() for leaf in leaves(child, (*path, name))]


COMMANDS = leaves(typer.main.get_command(app))


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])
def test_every_argument_and_option_is_described_and_printed_whole(path, command):
    printed = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "400"}).output
    bare = re.sub(r"[\s│╭╮╰╯─]", "", printed)
    for parameter in command.params:
        assert parameter.help, parameter.name
        assert re.sub(r"\s", "", parameter.help) in bare, parameter.help


@pytest.mark.parametrize(("name", "model"), [("finetune", FinetuneConfig), ("search", SearchSettings)])
def test_defaults_in_words_are_those_of_the_settings(name, model):
    (command,) = (command for path, command in COMMANDS if path == (name,))
    said = {}
    for parameter in command.params:
        found = re.search(r" \(([^() ]+)\)$", parameter.help)
        if found:
            said["devices" if parameter.name == "device" else parameter.name] = found.group(1)
    assert len(said) >= 4
    for key, word in said.items():
        default = model.model_fields[key].default
        first = default[0] if isinstance(default, tuple) else default
        assert word == ("yes" if first is True else str(first).removesuffix(".0")), key
