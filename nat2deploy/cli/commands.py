"""What every command has beside its own parameters."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from nat2deploy.cli.verbosity import Quiet, Verbose, choose_verbosity
from nat2deploy.data.places import at_home
from nat2deploy.errors import UserError

# Of an ssh device, whose home is another.
_ELSEWHERE = ("python", "ssh_option")


class Commands(typer.Typer):
    """A group of commands: each takes ``--verbose`` and ``--quiet``, and ``~`` where the shell leaves it."""

    def command(  # type: ignore[override]  # its options are typer's, of whatever version
        self, *words: Any, **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a command as typer does."""
        register = super().command(*words, **options)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            register(_complete(function))
            return function

        return decorate


def _complete(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*words: Any, verbose: bool, quiet: bool, **options: Any) -> Any:
        choose_verbosity(verbose=verbose, quiet=quiet)
        for name, value in options.items():
            if isinstance(value, float) and not math.isfinite(value):  # a range lets nan through
                raise UserError(f"--{name.replace('_', '-')}: Input should be a finite number")
        at_home = {key: each if key in _ELSEWHERE else _at_home(each) for key, each in options.items()}
        return function(*words, **at_home)

    signature = inspect.signature(function, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("verbose", Verbose), ("quiet", Quiet))
    ]
    parameters = [*signature.parameters.values(), *added]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _at_home(value: Any) -> Any:
    """A path, or several, with ``~`` resolved, which shells leave in ``--out=~/x``; else the value."""
    if isinstance(value, list | tuple):
        return type(value)(map(_at_home, value))
    return type(value)(at_home(str(value))) if isinstance(value, Path | str) else value
