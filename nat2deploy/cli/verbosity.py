"""How much a command says on standard error: two options that every command has."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any

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


class Commands(typer.Typer):
    """A group of commands, each of which takes ``--verbose`` and ``--quiet`` beside its own options."""

    def command(  # type: ignore[override]  # its options are typer's, of whatever version
        self, *words: Any, **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a command as typer does."""
        register = super().command(*words, **options)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            register(_with_verbosity(function))
            return function

        return decorate


def _with_verbosity(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*words: Any, verbose: bool, quiet: bool, **options: Any) -> Any:
        choose_verbosity(verbose=verbose, quiet=quiet)
        return function(*words, **options)

    signature = inspect.signature(function, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("verbose", Verbose), ("quiet", Quiet))
    ]
    parameters = [*signature.parameters.values(), *added]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
