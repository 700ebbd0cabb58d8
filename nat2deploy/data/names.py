"""What a data set is called where others read it."""

from __future__ import annotations

import re


def shown_name(spec: str) -> str:
    """Return a data spec without the folders of this machine: ``imagefolder:photos``, ``cifar10``."""
    name, _, place = spec.partition(":")
    last = re.split(r"[\\/]", place.rstrip("\\/"))[-1]
    return f"{name}:{last}" if name == "imagefolder" and last not in ("", ".", "..", "~") else name
