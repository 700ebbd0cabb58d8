"""The shipped profiles, each with the shipped tables that were measured on it."""

from __future__ import annotations

from dataclasses import dataclass

from nat2deploy.cost.table import load_table
from nat2deploy.shipped import shipped_files
from nat2deploy.target import Profile, load_profile


@dataclass(frozen=True)
class ShippedProfile:
    """A profile, and the names of the shipped tables of its target, on its kind of device."""

    profile: Profile
    tables: tuple[str, ...]


def shipped_profiles() -> list[ShippedProfile]:
    """Return all shipped profiles by name."""
    profiles = [load_profile(path) for path in shipped_files("profiles")]
    return [ShippedProfile(profile, shipped_tables(profile)) for profile in profiles]


def shipped_tables(profile: Profile) -> tuple[str, ...]:
    """Return the names of the shipped tables that were measured with a profile.

    A table's name ends with the profile's: targets do not tell a board's CPU from a server's.
    """
    return tuple(
        path.stem
        for path in shipped_files("latency_tables")
        if path.stem.endswith(f"-{profile.name}") and load_table(path).target == profile.target
    )
