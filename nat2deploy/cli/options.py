"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nat2deploy.data.places import at_home
from nat2deploy.search.budget import is_target_name
from nat2deploy.seed import LARGEST_SEED
from nat2deploy.shipped import exists

if TYPE_CHECKING:
    from nat2deploy.remote.ssh import SshSettings

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Space = Annotated[
    str, typer.Option("--space", help="nano, ofa-mbv3, ofav2-mbv3; a variant such as nano-ee-d; a .toml.")
]
Resolutions = Annotated[
    str | None, typer.Option("--resolutions", help="Use only these of the space, such as 28,32.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="Drives everything random.")]
Interval = Annotated[
    float, typer.Option(min=0.001, max=0.5, help="Wanted relative half width of confidence intervals.")
]
_TOO_LARGE = 10**9
TimeLimit = Annotated[float, typer.Option(min=5, help="Seconds of measuring, six tenths of them for blocks.")]
Threads = Annotated[int, typer.Option(min=1, help="Processor threads that networks run in.")]
Calibration = Annotated[int, typer.Option(min=4, max=10_000, help="Whole networks to calibrate on.")]
HeldOut = Annotated[int, typer.Option(min=4, max=10_000, help="Whole networks for the certificate.")]
EverySize = Annotated[
    int, typer.Option(min=1, help="Measure blocks at every N-th input size only, and interpolate the others.")
]
PYTHON = "python3"
Python = Annotated[str, typer.Option("--python", help="Python on an ssh device, a name or a path.")]
SshOption = Annotated[
    list[str] | None,
    typer.Option("--ssh-option", help="KEY=VALUE for ssh's -o, beside those of ~/.ssh/config."),
]
DATA = typer.Option(
    "--data", help="digits, fashion-mnist, cifar10, cifar100 (each also NAME:FOLDER), imagefolder:PATH."
)
Data = Annotated[str, DATA]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a search.")]
Network = Annotated[str, typer.Option("--network", help="A network's id in the front, or best.")]
Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="auto|N|ray|ray://HOST:PORT",
        help="Judge in N processes of this machine (auto: once they pay), or on a Ray cluster; "
        "the result is the same.",
    ),
]

Files = str | tuple[str, ...]
Tables = Annotated[
    list[str] | None,
    typer.Option(
        "--table",
        metavar="[NAME=]FILE",
        help="A latency table; for several targets repeated, each with its name: --table pi5=a.json; for "
        "several precisions of one target, to choose from, with the same name or none.",
    ),
]


def tables(given: list[str] | None) -> tuple[Files | None, dict[str, Files]]:
    """Read ``a.json``, or several ``pi5=a.json``: those without a name, and those by name.

    Several of one name, or without any, are of one target's precisions.

    Raises:
        typer.BadParameter: some with a name and some without.
        UserError: a home folder of nobody.
    """
    named: dict[str, list[str]] = {}
    unnamed: list[str] = []
    for word in given or ():
        name, equals, path = word.partition("=")
        if not equals or exists(Path(word)):
            unnamed.append(word)
        elif not is_target_name(name) or not path:
            raise typer.BadParameter(
                f"--table {word}: write NAME=FILE, with a name of letters, digits, - and _"
            )
        else:
            named.setdefault(name, []).append(at_home(path))
    if unnamed and named:
        raise typer.BadParameter(
            f"--table {unnamed[0]}: several tables need a name each, such as --table pi5={unnamed[0]}"
        )
    return (_files(unnamed) if unnamed else None), {name: _files(paths) for name, paths in named.items()}


def _files(paths: list[str]) -> Files:
    return paths[0] if len(paths) == 1 else tuple(paths)


def ssh_settings(device: str, python: str, options: list[str] | None) -> SshSettings | None:
    """Return how to reach an ssh device; None for a device of this machine.

    Raises:
        UserError: an address, a Python or an option that is none.
        typer.BadParameter: a Python or options, and no device that is reached by ssh.
    """
    from nat2deploy.remote.ssh import SshAddress, SshSettings

    if not device.startswith("ssh:"):
        for option, given in (("--python", python != PYTHON), ("--ssh-option", bool(options))):
            if given:
                raise typer.BadParameter(f"{option} is for --device ssh://...; leave it out for {device}")
        return None
    return SshSettings(SshAddress.parse(device), python, tuple(options or ()))


_ANYWAY = ("config_file", "as_json", "verbose", "quiet")  # the option itself, and what all commands have


def only_with(context: typer.Context, option: str, *allowed: str) -> None:
    """Refuse what is given beside an option that says everything.

    Args:
        context: of the command that is run.
        option: such as ``--config``.
        allowed: names of the parameters that may stand beside it, and beside what every command has.

    Raises:
        typer.BadParameter: names the others.
    """
    may_stand = {*allowed, *_ANYWAY}
    given = given_options(context, [name for name in context.params if name not in may_stand])
    if given:
        raise typer.BadParameter(f"{option} says everything; leave out {', '.join(given)}")


def option_names(keys: Iterable[str], **others: str) -> dict[str, str]:
    """Return options such as ``--batch-size`` by the keys of the settings that they give.

    Args:
        keys: spelled as their options.
        others: by key, options of another name.
    """
    return {key: f"--{key.replace('_', '-')}" for key in keys} | others


SPACE_OPTIONS = option_names(("resolutions",), name="--space")
"""Of the settings that a space is given by."""


def given_options(context: typer.Context, names: Iterable[str]) -> list[str]:
    """Return which of a command's parameters are on the command line, as options such as ``--batch``."""
    return [
        f"--{'no-' if context.params.get(name) is False else ''}{name.replace('_', '-')}"
        for name in names
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]


def resolutions(text: str | None) -> tuple[int, ...] | None:
    """Read ``28,32``.

    Raises:
        typer.BadParameter: something else.
    """
    return whole_numbers("--resolutions", text, "28,32")


def whole_numbers(option: str, text: str | None, example: str = "86,89") -> tuple[int, ...] | None:
    """Read whole numbers with commas between them.

    Raises:
        typer.BadParameter: something else.
    """
    if text is None:
        return None
    try:
        found = tuple(int(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or max(map(abs, found)) >= _TOO_LARGE:
        raise typer.BadParameter(
            f"{option} '{text[:80]}': write whole numbers with commas, such as {example}"
        )
    return found


def percentage(option: str, text: str) -> float:
    """Read ``0.5%`` as a share, 0.005.

    Raises:
        typer.BadParameter: something else.
    """
    try:
        if text.endswith("%") and 0 <= (share := float(text[:-1]) / 100) <= 1:
            return share
    except ValueError:
        pass
    raise typer.BadParameter(f"{option} '{text}': write a percentage, such as 0.5%")
