"""Files that are never half written, and JSON or TOML that is read with one clear error."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from nat2deploy.errors import KeysError, UserError
from nat2deploy.nearest import error_hint

Model = TypeVar("Model", bound=BaseModel)

_Place = tuple[int | str, ...]

TEMPORARY = ".tmp"
"""How the names of hidden files end that nobody needs once the process has ended that wrote them."""


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it into place in one step.

    ``write`` raises OSError where the disk is full, as Python's own files do; what other libraries write
    themselves may raise anything.

    Raises:
        UserError: the folder cannot be written to, the disk is full, or ``path`` is a folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=TEMPORARY, dir=path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("r+b") as stream:  # Windows flushes none that is only read
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def cannot_write(path: Path, error: OSError) -> UserError:
    """What to say of a file that cannot be written."""
    room = "make room or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return UserError(f"cannot write {path}: {error.strerror or error}; {room}choose another place")


def check_writable(path: Path) -> None:
    """Check that a file can be made at ``path``, before the work that ends with it.

    Raises:
        UserError: as of ``write_atomic``.
    """
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; choose another place")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", suffix=TEMPORARY, dir=path.parent):
            pass
    except OSError as error:
        raise cannot_write(path, error) from error


def is_temporary(path: Path) -> bool:
    """Whether a file's name is one that atomic writing has until it is whole."""
    return path.name.startswith(".") and path.suffix == TEMPORARY


def remove_temporaries(folder: Path) -> None:
    """Remove what killed processes left of their atomic writing below ``folder``.

    Nobody else may be writing there; folders with a ``.lock`` of their own are left alone.
    """
    for path in folder.iterdir():
        if is_temporary(path):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        elif path.is_dir() and not path.is_symlink() and not (path / ".lock").exists():
            remove_temporaries(path)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path`` atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    write_atomic(path, lambda temporary: _write(temporary, content))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path`` atomically."""
    write_text(path, json.dumps(value, indent=1, sort_keys=False) + "\n")


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def read_text(path: Path, what: str) -> str:
    """Return the text of ``path``; ``what`` names the kind of file in the error.

    Raises:
        UserError: missing, unreadable or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"no {what} at {path}; check the path") from error
    except OSError as error:
        raise UserError(f"cannot read {what} {path}: {error.strerror or error}; name a file") from error
    except ValueError as error:  # not UTF-8, or a name that no system takes
        raise UserError(f"cannot read {what} {path}: {error}; name a text file in UTF-8") from error


def read_json(path: Path, what: str) -> Any:
    """Parse the JSON file ``path``.

    Raises:
        UserError: missing or not JSON.
    """
    try:
        return json.loads(read_text(path, what))
    except (ValueError, RecursionError) as error:  # ValueError: a number too long, too
        raise UserError(f"{what} {path} is not JSON ({error}); make it again") from error


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Parse the TOML file ``path``.

    Raises:
        UserError: missing or not TOML.
    """
    try:
        # The mark of byte order is what editors of Windows put first.
        return tomllib.loads(read_text(path, what).removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what} {path} is not TOML ({error}); mend that line") from error


def parse_toml(model: type[Model], path: Path, what: str) -> Model:
    """Read the TOML file ``path`` as a pydantic ``model``; no value is taken for one of another type.

    Raises:
        UserError: as of ``read_toml`` and ``parse``.
    """
    return parse(model, read_toml(path, what), f"{what} {path}", exact=True)


def parse(
    model: type[Model],
    value: Any,
    what: str,
    options: Mapping[str, str] = MappingProxyType({}),
    *,
    exact: bool = False,
) -> Model:
    """Validate ``value`` against a pydantic ``model``; ``what`` says where the value came from.

    ``options`` are those of a command line by key, such as ``--batch-size``: an error then names them.
    ``exact``: of what people write, where ``"3"`` and ``true`` are no numbers, and ``1`` is not true.

    Raises:
        UserError: the first thing that does not fit, with its place; of an unknown key or word the nearest
            that there is.
    """
    try:
        found = model.model_validate(value)
    except ValidationError as error:
        errors = _causes(error.errors(), value)
        # An unknown key first: where it stands for one that is missing, it says more.
        first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        text = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            text = "unknown key"
        hint = error_hint(model, first)
        where = _place(first, what, options)
        cause = first.get("ctx", {}).get("error")
        if options and isinstance(cause, KeysError):
            text = cause.as_options(options)
            where = "" if text.startswith("--") else where
        raise UserError(f"{where}{text}{f'; {hint}' if hint else ''}{more}") from error
    except UnicodeEncodeError as error:  # a lone surrogate: JSON can name it, and a file's name hold it
        raise UserError(f"{what}: a text in it is no valid Unicode; write it anew") from error
    if exact and (wrong := next(_taken_for_another(value, found), None)) is not None:
        place, kind = wrong
        raise UserError(f"{_at(place, what, options)}Input should be a valid {kind}")
    return found


def _causes(errors: list[ErrorDetails], written: Any) -> list[ErrorDetails]:
    """One error a fault, each at a place that is in what was written.

    Of a value that is of none of several types pydantic tells what each would want, at a place that names the
    type: the one that fits best stays. A list is too short, too, where what is wrong in it was left out.
    """
    inside = {one["loc"][:-1] for one in errors}
    found: dict[_Place, ErrorDetails] = {}
    for one in errors:
        if one["type"] == "too_short" and one["loc"] in inside:
            continue
        place, of_types = _written_place(one["loc"], written)
        other = found.get(of_types)
        if other is None or _fit(one, place) > _fit(other, other["loc"]):
            found[of_types] = {**one, "loc": place}
    return list(found.values())


def _fit(error: ErrorDetails, place: _Place) -> tuple[int, bool]:
    """How near what was written is to the type whose error this is."""
    return len(place), not error["type"].endswith("_type")


def _written_place(place: _Place, written: Any) -> tuple[_Place, _Place]:
    """A place without names of types, and the place of the value that they are of; else the place again."""
    found: list[str | int] = []
    of_types: _Place | None = None
    for part in place:
        if isinstance(written, dict):
            found.append(part)
            written = written.get(part)
        elif isinstance(written, list | tuple) and isinstance(part, int):
            found.append(part)
            written = written[part] if part < len(written) else None
        elif of_types is None:
            of_types = tuple(found)
    return tuple(found), tuple(found) if of_types is None else of_types


def _taken_for_another(written: Any, found: Any, place: _Place = ()) -> Iterator[tuple[_Place, str]]:
    """Where pydantic made a number or a truth of what was written as something else, and of which kind.

    Its strict mode would not take a list for a tuple either.
    """
    if isinstance(found, BaseModel) and isinstance(written, dict):
        found = {key: getattr(found, key, None) for key in written}
    if isinstance(written, dict) and isinstance(found, dict):
        for key, value in written.items():
            yield from _taken_for_another(value, found.get(key), (*place, key))
    elif isinstance(written, list) and isinstance(found, list | tuple) and len(written) == len(found):
        for index, pair in enumerate(zip(written, found, strict=True)):
            yield from _taken_for_another(*pair, (*place, index))
    elif isinstance(found, bool):
        if not isinstance(written, bool):
            yield place, "boolean"
    elif isinstance(found, int | float) and (
        isinstance(written, bool) or not isinstance(written, int | float)
    ):
        yield place, "integer" if isinstance(found, int) else "number"


def _place(error: ErrorDetails, what: str, options: Mapping[str, str]) -> str:
    """What stands before the words of an error: the option, or the file and the key."""
    return _at(error["loc"], what, options)


def _at(place: _Place, what: str, options: Mapping[str, str]) -> str:
    if place and place[0] in options:
        return f"{options[str(place[0])]}: "
    key = ".".join(str(part) for part in place)
    return f"{what}: {key}: " if key else f"{what}: " if options else f"{what}: top level: "


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
