"""Write docs/licences.md: what each package that nat2deploy depends on is licensed under.

    python tools/licences.py

Names come from pyproject.toml, licences from the metadata of the packages that are installed; those that are
not keep what the file said before.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "licences.md"
_OURS = "nat2deploy"
_ROW = re.compile(r"^\| `(?P<name>[^`]+)` \| (?P<use>[^|]*) \| (?P<licence>[^|]*) \|$", re.MULTILINE)
_HEAD = """# Licences of what nat2deploy uses

nat2deploy is MIT. It ships one file of others, `nat2deploy/report/assets/plotly-basic.min.js`: Plotly.js,
MIT, its licence beside it. All else is installed by pip; what those packages depend on in turn is in their
own metadata. A bundle holds nothing of them: its runner is nat2deploy's.

This page is written by `python tools/licences.py`.

| package | used for | licence |
|---|---|---|
"""


def dependencies() -> dict[str, str]:
    """Each package that pyproject.toml names, and what it is for: the package itself, or an extra."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    found: dict[str, list[str]] = {}
    for use, wanted in {
        "nat2deploy itself": project["dependencies"],
        **project["optional-dependencies"],
    }.items():
        for requirement in wanted:
            name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()
            if name != _OURS:
                found.setdefault(name, []).append(use)
    return {name: ", ".join(uses) for name, uses in sorted(found.items())}


def listed() -> dict[str, tuple[str, str]]:
    """What the page says: each package's use and licence."""
    rows = _ROW.finditer(PAGE.read_text()) if PAGE.exists() else ()
    return {row["name"]: (row["use"], row["licence"]) for row in rows}


def licence_of(name: str) -> str | None:
    """The licence that an installed package states, None where it is not installed or states none."""
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    expression = about.get("License-Expression")
    if expression:
        return expression
    stated = about.get("License") or ""
    line = stated.strip().splitlines()[0].strip() if stated.strip() else ""
    short = line if len(line) <= 40 and not line.startswith("Copyright") else ""
    classifiers = (c for c in about.get_all("Classifier", []) if c.startswith("License :: "))
    named = (classifier.rsplit(" :: ", 1)[-1] for classifier in classifiers)
    return short or ", ".join(name for name in named if name != "OSI Approved") or None


def main() -> int:
    """Write the page; returns 1 where a licence is not known."""
    before, rows, unknown = listed(), [], []
    for name, use in dependencies().items():
        licence = licence_of(name) or before.get(name, ("", ""))[1]
        if not licence:
            unknown.append(name)
        rows.append(f"| `{name}` | {use} | {licence or 'not known'} |")
    PAGE.write_text(_HEAD + "\n".join(rows) + "\n")
    if unknown:
        print(f"no licence is known of {', '.join(unknown)}; install it and try again", file=sys.stderr)
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
