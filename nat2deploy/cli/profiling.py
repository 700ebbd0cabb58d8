"""The settings of a profile from a command's options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nat2deploy.cli.options import SPACE_OPTIONS, resolutions

if TYPE_CHECKING:
    from nat2deploy.run.config import ProfileConfig, SpaceConfig


def profiled_space(space: str, resolution_list: str | None) -> SpaceConfig:
    """Return the space that ``--space`` and ``--resolutions`` name.

    Raises:
        UserError: names the option that does not fit.
    """
    from nat2deploy.files import parse
    from nat2deploy.run.config import SpaceConfig

    place = {"name": space, "resolutions": resolutions(resolution_list)}
    return parse(SpaceConfig, place, "space", SPACE_OPTIONS)


def profile_config(
    *,
    interval: float,
    time_limit: float,
    calibration: int,
    held_out: int,
    every_size: int,
    warmup_ms: float | None,
) -> ProfileConfig:
    """Return the settings that options of these names give; ``warmup_ms`` is a profile's, if there is one.

    Raises:
        UserError: names the option that does not fit.
    """
    from nat2deploy.files import parse
    from nat2deploy.run.config import ProfileConfig

    options = {
        "precision": "--interval",
        "time_limit_s": "--time-limit",
        "calibration_networks": "--calibration",
        "held_out_networks": "--held-out",
        "every_size": "--every-size",
    }
    values = (interval, time_limit, calibration, held_out, every_size)
    given = {**dict(zip(options, values, strict=True)), "warmup_ms": warmup_ms or 0.0}
    return parse(ProfileConfig, given, "profile", options)
