"""Writing a bundle in one step: all of it or nothing, and never over something that is not a bundle."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from nat2deploy.deploy.bundle import (
    OWN_NAMES,
    Bundle,
    is_bundle_folder,
    is_zip_name,
    list_files,
    open_bundle,
)
from nat2deploy.deploy.evidence import DeviceEvidence, with_newer, write_evidence
from nat2deploy.deploy.manifest import MANIFEST_NAME, Manifest
from nat2deploy.deploy.zipped import pack
from nat2deploy.errors import UserError
from nat2deploy.files import TEMPORARY, sha256, write_atomic, write_text


def write_bundle(
    out: Path, manifest: Manifest, fill: Callable[[Path], None], measured: Sequence[DeviceEvidence] = ()
) -> Manifest:
    """Write a bundle to the folder ``out``, or to a zip where the name ends in ``.zip``.

    It is built in a temporary folder beside ``out`` and moved into place when it is whole. A bundle that was
    there is replaced; when the process is killed between the two moves that this takes, the old one lies
    beside as ``.NAME.old-*`` until the next one is written.

    Args:
        out: the place.
        manifest: its ``files`` are replaced by the hashes of what ``fill`` wrote.
        fill: writes all files but manifest and evidence into the folder it is given.
        measured: the evidence.

    Returns:
        The manifest as written.

    Raises:
        UserError: ``out`` is something else than a bundle, or cannot be written to (a full disk, too).
    """
    check_replaceable(out)
    write = _write_zip if is_zip_name(out) else _write_folder
    written = []

    def build(folder: Path) -> None:
        written.append(_build(folder, manifest, fill))
        write_evidence(folder, measured)

    try:
        write(out.absolute(), build)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}; choose another place") from error
    return written[0]


def add_evidence(measured: Bundle, fresh: DeviceEvidence) -> None:
    """Add what a device showed of an open bundle to its evidence, in the folder or in the zip, in one step.

    The bundle is read anew: measuring took a while, in which others may have added theirs.

    Raises:
        UserError: the place cannot be written to, or holds another bundle now.
    """
    with open_bundle(measured.path) as bundle:
        if bundle.manifest != measured.manifest:
            raise UserError(f"bundle {measured.path} was exported anew meanwhile; verify that one, too")
        write_evidence(bundle.folder, with_newer(bundle.evidence(), fresh))
        if bundle.path.is_file():
            write_atomic(bundle.path, lambda temporary: pack(bundle.folder, temporary))


def check_replaceable(out: Path) -> None:
    """Check that ``out`` is free, an empty folder, or a bundle of the same form with no files of others.

    Nor may it lie within a bundle, which a file more would break.

    Raises:
        UserError: it is something else; nothing is ever deleted that is not a bundle's.
    """
    zipped = is_zip_name(out)
    if out.is_symlink():
        raise UserError(f"{out} is a link; name the place itself")
    for parent in Path(os.path.realpath(out)).parents:
        if is_bundle_folder(parent):
            raise UserError(f"{out} lies within the bundle {parent}; choose a place outside of it")
    if not out.exists() or (not zipped and out.is_dir() and not any(out.iterdir())):
        return
    if out.is_dir() == zipped:
        kind = "folder" if zipped else "file"
        raise UserError(f"{out} is a {kind}; choose another name (.zip for a zip, none for a folder)")
    try:
        others = _of_others(out)
    except UserError as error:
        raise UserError(f"{out} exists and is not a bundle; choose another place") from error
    if others:
        raise UserError(
            f"{out} holds {others[0]}, which is not the bundle's; move it or choose another place"
        )


def _of_others(out: Path) -> list[str]:
    """What a bundle holds that is not its own.

    Raises:
        UserError: it is no bundle.
    """
    with open_bundle(out) as bundle:
        own = {*OWN_NAMES, *bundle.manifest.files}
        return [name for name in list_files(bundle.folder, str(out)) if name not in own]


def _write_zip(out: Path, build: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(prefix="nat2deploy-") as name:
        build(Path(name))
        write_atomic(out, lambda temporary: pack(Path(name), temporary))


def _write_folder(out: Path, build: Callable[[Path], None]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=TEMPORARY, dir=out.parent))
    try:
        build(temporary)
        # As files that are written atomically have them, whatever umask says.
        for path in (temporary, *temporary.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        check_replaceable(out)
        _swap(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _build(folder: Path, manifest: Manifest, fill: Callable[[Path], None]) -> Manifest:
    fill(folder)
    hashes = {name: sha256(folder / name) for name in list_files(folder, "the new bundle")}
    # Validated again, because a copy is not.
    whole = Manifest.model_validate({**dict(manifest), "files": hashes})
    write_text(folder / MANIFEST_NAME, whole.model_dump_json(indent=1) + "\n")
    return whole


def _swap(temporary: Path, out: Path) -> None:
    """Move ``temporary`` to ``out``; a folder that is there moves away first and then goes."""
    olds = f".{out.name}.old-"
    if out.exists():
        old = Path(tempfile.mkdtemp(prefix=olds, dir=out.parent))
        out.replace(old)
        try:
            temporary.replace(out)
        except BaseException:
            old.replace(out)
            raise
        shutil.rmtree(old, ignore_errors=True)  # the new one is in place, so nothing may fail any more
    else:
        temporary.replace(out)
    for path in out.parent.iterdir():
        if path.name.startswith(olds) and _is_left_over(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_left_over(path: Path) -> bool:
    """Whether it is a bundle that a killed process moved away, and nothing of others."""
    try:
        return path.is_dir() and not path.is_symlink() and not _of_others(path)
    except (UserError, OSError):
        return False
