"""What MkDocs asks while it builds: pages that are made of the code, and links that leave the site."""

from __future__ import annotations

import json
import posixpath
import re
from typing import Any

import typer

from nat2deploy.cli.app import app
from nat2deploy.run.schema import schemas

_LINK = re.compile(r"\[([^\]]*)\]\(((?:\.\./)*)([^):#\s]+)\)")
_HIDDEN = {"--install-completion", "--show-completion", "--help"}


def on_page_markdown(markdown: str, *, page: Any, files: Any, **_: Any) -> str:
    """Fill the reference pages, and turn links to files of the repository into their paths."""
    if page.file.src_uri == "reference/commands.md":
        markdown = f"{markdown}\n\n{commands()}"
    if page.file.src_uri == "reference/configuration.md":
        markdown = f"{markdown}\n\n{keys()}"
    folder = posixpath.dirname(f"docs/{page.file.src_uri}")
    known = {f"docs/{uri}" for uri in files.src_uris}

    def inside(match: re.Match[str]) -> str:
        place = posixpath.normpath(posixpath.join(folder, match[2] + match[3]))
        if place in known or place.startswith("docs/"):
            return match[0]
        return f"`{place}`" if match[1].strip("`") == match[3] else f"{match[1]} (`{place}`)"

    return _LINK.sub(inside, markdown)


def commands() -> str:
    """The reference of the command line: every command with its arguments and options."""
    root = typer.main.get_command(app)
    return "\n".join(_command(root, "nat2deploy"))


def _command(command: Any, name: str) -> list[str]:
    nested = getattr(command, "commands", {})
    lines = [] if name == "nat2deploy" else [f"## {name}", ""]
    lines += [_text(command.help), ""]
    rows = [_row(one) for one in command.params if not _HIDDEN & set(one.opts)]
    if rows:
        lines += ["| argument or option | default | what |", "|---|---|---|", *rows, ""]
    for inner, one in nested.items():
        lines += _command(one, f"{name} {inner}")
    return lines


def _row(one: Any) -> str:
    words = (
        [*one.opts, *one.secondary_opts]
        if one.param_type_name == "option"
        else [one.metavar or one.name.upper()]
    )
    default = (
        ""
        if one.default is None or one.default is False or one.default == () or callable(one.default)
        else f"`{one.default}`"
    )
    if one.required:
        default = "required"
    what = getattr(one, "help", None) or ""
    if getattr(one, "multiple", False) and "repeat" not in what:
        what = f"{what} Repeatable.".strip()
    return f"| {', '.join(f'`{word}`' for word in words)} | {default} | {_cell(what)} |"


def keys() -> str:
    """The reference of a pipeline's TOML: every table with its keys."""
    schema = json.loads(schemas()["config.schema.json"])
    lines = ["## Top level", "", *_keys(schema)]
    for name, part in schema["properties"].items():
        if "$ref" in part:
            table = schema["$defs"][part["$ref"].rsplit("/", 1)[-1]]
            lines += [f"## [{name}]", "", _text(table.get("description")), "", *_keys(table)]
    return "\n".join(lines)


def _keys(schema: dict[str, Any]) -> list[str]:
    lines = ["| key | values | default | what |", "|---|---|---|---|"]
    for name, part in schema["properties"].items():
        if "$ref" not in part:
            default = "required" if "default" not in part else _default(part["default"])
            what = _cell(part.get("description", ""))
            lines.append(f"| `{name}` | {_values(part)} | {default} | {what} |")
    return [*lines, ""]


def _default(value: Any) -> str:
    return "" if value in (None, {}, []) else f"`{json.dumps(value)}`"


def _values(part: dict[str, Any]) -> str:
    if "anyOf" in part:
        return " or ".join(dict.fromkeys(_values(p) for p in part["anyOf"] if p.get("type") != "null"))
    if "enum" in part:
        return ", ".join(f"`{json.dumps(value)}`" for value in part["enum"])
    if "examples" in part:  # plug-ins add to them
        return ", ".join(f"`{json.dumps(value)}`" for value in part["examples"])
    if part.get("type") == "array":
        return f"list of {_values(part.get('items', {}))}"
    if part.get("type") == "object":
        return "table"
    words = [{"integer": "whole number"}.get(part.get("type", ""), part.get("type", "any"))]
    for key, sign in (
        ("minimum", "≥"),
        ("exclusiveMinimum", ">"),
        ("maximum", "≤"),
        ("exclusiveMaximum", "<"),
    ):
        words += [f"{sign} {part[key]:g}"] if key in part else []
    return " ".join(words)


def _text(text: str | None) -> str:
    return (text or "").replace("``", "`").replace("\f", "").strip()


def _cell(text: str) -> str:
    return " ".join(_text(text).split()).replace("|", "\\|")
