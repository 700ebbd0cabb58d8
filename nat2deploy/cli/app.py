"""The application: its commands, and what an error looks like."""

from __future__ import annotations

import errno
import re
import sys
import traceback
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from nat2deploy.cli import (
    checking,
    deploying,
    finetuning,
    kits,
    measuring,
    reporting,
    searching,
    tables,
    whole_way,
)
from nat2deploy.cli.commands import Commands
from nat2deploy.cli.verbosity import Verbosity, verbosity
from nat2deploy.errors import UserError, out_of_memory
from nat2deploy.launch import launched
from nat2deploy.version import __version__

# What typer raises for a wrong option; its class has lived in different packages.
_UsageError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

# The exit code after Ctrl-C, by the shells' convention; some versions of typer return it, others raise.
_INTERRUPTED = 130

# A word too many, which may be the name of another command's.
_EXTRA = re.compile(r"unexpected extra argument(?:\(s\))? \(([^)]*)\)")

# What is wrong with disks and folders, not with this program.
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG)

_LONGEST = 200

# What is wrong with a path that was given.
_PATHS = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)

app = Commands(
    name="nat2deploy",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (measuring, tables, kits, searching, finetuning, deploying, reporting, whole_way, checking):
    group.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Fit a vision network to a device: profile it, search within budgets, deploy with evidence."""
    if launched().size > 1 and context.invoked_subcommand != "train":
        raise UserError(
            f"several processes share the work of `train` alone; start `{context.invoked_subcommand}` "
            "without torchrun"
        )


def main() -> None:
    """Run the command line; bad input gives one line on stderr and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        _fail(str(error))
    except _UsageError as error:
        text = _told(error)
        if not text:  # its help was printed instead
            raise SystemExit(2) from None
        _fail(text)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(0) from None
    except OSError as error:
        if error.errno not in (*_STORAGE, *_PATHS):
            raise
        way = "choose another path" if error.errno in _PATHS else "make room, or choose another place"
        _fail(f"{_shortened(error.filename)}: {error.strerror}; {way}")
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        _fail("memory ran out; use fewer workers or smaller batches, or close other programs, and try again")
    if code == _INTERRUPTED and launched().is_first:
        print("stopped; the same command goes on where it was", file=sys.stderr)
    raise SystemExit(code if isinstance(code, int) else 0)


def _told(error: Any) -> str:
    """What is wrong with the command line, and where options and commands are listed if it does not say."""
    text: str = error.format_message().removeprefix("Invalid value: ")
    missing = hasattr(error, "param_type") or not isinstance(error, typer.BadParameter)
    context = getattr(error, "ctx", None)
    if not text or not missing or context is None or "Did you mean" in text or "Possible options" in text:
        return text
    extra = _EXTRA.search(text)
    for path, name in _subcommands(context.find_root()) if extra else ():
        if extra and name == extra.group(1):
            return f"{text.rstrip('.')}; did you mean `{path}`?"
    return f"{text.rstrip('.')}; see `{context.command_path} --help`"


def _shortened(path: Any) -> str:
    """A file's path for a message: a name of thousands of letters would fill the screen."""
    name = str(path or "a file")
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."


def _subcommands(root: Any) -> Iterator[tuple[str, str]]:
    """Each command of a group of commands: how it is called, and its own name."""
    for group, command in root.command.commands.items():
        for name in getattr(command, "commands", ()):
            yield f"{root.command_path} {group} {name}", name


def _fail(message: str) -> None:
    launch = launched()
    if verbosity() is Verbosity.VERBOSE:
        traceback.print_exc()
    where = "" if launch.is_first else f" in process {launch.rank}"
    print(f"error{where}: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)
