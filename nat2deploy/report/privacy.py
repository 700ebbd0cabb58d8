"""Texts of a run without what is nobody else's business: folders of the machine, users, secrets."""

from __future__ import annotations

import re
from typing import Any

# A path that begins at the root or at home, or on a drive; its last part stays.
_POSIX = re.compile(r"(?<![\w.~/…:])(?:~[\w.-]*)?/(?:[^\s/'\"<>|,;:=]+/)*(?P<last>[^\s/'\"<>|,;:=]*)")
_AFTER_COLON = re.compile(
    r"(?<=[A-Za-z]:)(?:~[\w.-]*)?/(?!/)(?:[^\s/'\"<>|,;:=]+/)*(?P<last>[^\s/'\"<>|,;:=]*)"
)
_WHOLE = re.compile(
    r"(?P<kind>[\w-]+[:=])?(?:file://)?(?:[A-Za-z]:[\\/]|~?/(?!/))(?:.*[\\/])?(?P<last>[^\\/]*)", re.DOTALL
)
_DRIVE = re.compile(r"\b[A-Za-z]:[\\/](?:[^\s\\/'\"<>|,;]+[\\/])*(?P<last>[^\s\\/'\"<>|,;]*)")
_USER = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^\s/@'\"]+@", re.IGNORECASE)
_SECRET = re.compile(r"(?i)(pass(word|wd|phrase)?|secret|token|api_?key|credential|identityfile)")


def masked(text: str) -> str:
    """Return ``text`` with absolute paths cut to their last part, and users taken out of addresses."""
    text = text.replace("file:///", "/")
    text = _USER.sub(lambda m: f"{m['scheme']}…@", text)
    text = _DRIVE.sub(_last, text)
    text = _AFTER_COLON.sub(_last, text)
    return _POSIX.sub(_last, text)


def masked_settings(value: Any, key: str = "") -> Any:
    """Return settings, as TOML or JSON holds them, masked; what a telling key stands for is left out."""
    if _SECRET.search(key) and isinstance(value, str):
        return "…"
    if isinstance(value, str):
        name, equals, _ = value.partition("=")
        if equals and _SECRET.search(name):
            return f"{name}=…"
        whole = _WHOLE.fullmatch(value)  # a path with spaces, too
        return f"{whole['kind'] or ''}…/{whole['last']}" if whole else masked(value)
    if isinstance(value, dict):
        return {k: masked_settings(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [masked_settings(v, key) for v in value]
    return value


def _last(match: re.Match[str]) -> str:
    return f"…/{match['last']}" if match["last"] else match[0] if match[0] == "/" else "…"
