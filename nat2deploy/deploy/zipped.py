"""Folders as .zip files: written the same byte for byte, and read without trusting a word of them."""

from __future__ import annotations

import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path

from nat2deploy.deploy.manifest import check_relative
from nat2deploy.errors import UserError

MAX_FILES = 1000
MAX_BYTES = 4 << 30
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time that the format can hold
_UNIX = 3


def pack(folder: Path, path: Path, *, deflate: bool = False) -> None:
    """Write all files below ``folder`` to the zip ``path``: sorted, with fixed times and permissions.

    Stored without compression by default: weights hardly shrink, and deflated bytes differ between versions
    of zlib.
    """
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = _UNIX
            entry.compress_type = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.file_size = (folder / name).stat().st_size
            with (folder / name).open("rb") as source, archive.open(entry, "w") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)


def unpack(path: Path, folder: Path) -> None:
    """Unpack the zip ``path`` into the empty ``folder``.

    Raises:
        UserError: not a zip, damaged, encrypted, too large, or with an entry that is a link, is there twice
            or would land outside the folder.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in _checked(archive.infolist(), path):
                place = folder / entry.filename
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, place.open("xb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
    except FileNotFoundError as error:
        raise UserError(f"no bundle at {path}; check the path") from error
    except (
        zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, RuntimeError, ValueError
    ) as error:  # fmt: skip
        raise UserError(f"bundle {path} is not a zip that can be read ({error}); export it again") from error


def _checked(entries: list[zipfile.ZipInfo], path: Path) -> list[zipfile.ZipInfo]:
    """Return the entries that are files, when all can be unpacked safely."""
    if len(entries) > MAX_FILES or sum(entry.file_size for entry in entries) > MAX_BYTES:
        raise UserError(f"bundle {path} is larger than any bundle; check where it comes from")
    # A zip that was cut off may end with a zip that lay in it, such as the reference.
    if min((entry.header_offset for entry in entries), default=0) != 0:
        raise UserError(f"bundle {path} is not a zip that can be read (it is cut off); copy it again")
    seen: set[str] = set()
    for entry in entries:
        name = entry.orig_filename
        kind = stat.S_IFMT(entry.external_attr >> 16)
        try:
            check_relative(name.removesuffix("/"))
        except ValueError as error:
            raise UserError(f"bundle {path}: {error}; check where it comes from") from error
        if kind not in (0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG):
            raise UserError(f"bundle {path}: {name} is a link or a device; check where it comes from")
        if name.casefold() in seen:  # also where the file system takes Run.py and run.py for one
            raise UserError(f"bundle {path}: {name} is there twice; check where it comes from")
        seen.add(name.casefold())
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(f"bundle {path}: {name} is packed in an unknown way; zip it again with deflate")
    return [entry for entry in entries if not entry.is_dir()]
