"""--profile: a target by its name or from a file, which decides what other options would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nat2deploy.cli.options import given_options
from nat2deploy.cli.verbosity import remark

if TYPE_CHECKING:
    from nat2deploy.target import Profile

ProfileFile = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        help="A target, whole, by name (see `nat2deploy profiles`) or from a file.",
    ),
]


def chosen_profile(context: typer.Context, path: Path, *decided: str) -> Profile:
    """Read the profile that ``path`` names.

    Args:
        context: of the command that is run.
        path: a file, or a shipped profile's name.
        decided: names of the command's parameters that the profile decides on.

    Raises:
        UserError: no such profile, or a field that does not fit.
        typer.BadParameter: one of ``decided`` was given, too.
    """
    from nat2deploy.target import load_profile

    given = given_options(context, decided)
    if given:
        raise typer.BadParameter(f"--profile decides on {', '.join(given)}; leave out the one or the other")
    return load_profile(path)


def remark_on(profile: Profile) -> None:
    """Say the mode that the device must be in, and that nobody of us has measured the target, if so."""
    from nat2deploy.run.profiles import shipped_tables

    if profile.power_mode:
        remark(f"profile {profile.name}: power mode: {profile.power_mode}")
    if not shipped_tables(profile):
        remark(f"profile {profile.name}: no table of ours was measured on this target")
