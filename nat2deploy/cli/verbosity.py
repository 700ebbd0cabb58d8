"""How much a command says on standard error: two options that every command has."""

from __future__ import annotations

import logging
from enum import Enum
from typing import Annotated

import typer

from nat2deploy.errors import UserError


class Verbosity(Enum):
    """``QUIET``: errors alone. ``VERBOSE``: each step, and where an error came from."""

    QUIET = logging.ERROR
    NORMAL = logging.WARNING
    VERBOSE = logging.INFO


_chosen = Verbosity.NORMAL

Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say each step, and where an error came from.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks, errors alone.")]


def verbosity() -> Verbosity:
    """What the command that runs was asked for."""
    return _chosen


def choose_verbosity(*, verbose: bool, quiet: bool) -> None:
    """Keep what was asked for; the package's log records follow it.

    Raises:
        UserError: both.
    """
    global _chosen
    if verbose and quiet:
        raise UserError("--verbose and --quiet do not go together; give one")
    _chosen = Verbosity.VERBOSE if verbose else Verbosity.QUIET if quiet else Verbosity.NORMAL
    logging.getLogger("nat2deploy").setLevel(_chosen.value)


def remark(text: str) -> None:
    """Say something on standard error that is neither result nor error."""
    if _chosen is not Verbosity.QUIET:
        typer.echo(text, err=True)
