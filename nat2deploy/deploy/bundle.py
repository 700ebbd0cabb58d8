"""A bundle that was made before: open it, folder or zip, and check every file against the manifest."""

from __future__ import annotations

import os
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from nat2deploy.deploy.evidence import EVIDENCE_NAME, DeviceEvidence, read_evidence
from nat2deploy.deploy.manifest import MANIFEST_NAME, Manifest
from nat2deploy.deploy.zipped import unpack
from nat2deploy.errors import UserError
from nat2deploy.files import parse, read_json, sha256

OWN_NAMES = (MANIFEST_NAME, EVIDENCE_NAME)
"""What a manifest does not list: itself, and the evidence that is about it."""
_CACHE = "__pycache__"
_RESOURCES = "__MACOSX"  # what macOS packs beside a folder


class Bundle(AbstractContextManager["Bundle"]):
    """An open bundle; use it in ``with``, which removes the unpacked copy of a zip.

    Attributes:
        path: what was opened, for messages.
        folder: where its files lie.
        manifest: its manifest.
    """

    def __init__(self, path: Path, folder: Path, unpacked: tempfile.TemporaryDirectory[str] | None) -> None:
        self.path = path
        self.folder = folder
        self._unpacked = unpacked
        content = read_json(folder / MANIFEST_NAME, f"manifest of bundle {path},")
        what = f"bundle {path}: {MANIFEST_NAME}"
        if isinstance(content, dict) and content.get("schema_version") == 1:
            raise UserError(f"{what} is of schema_version 1, of before {EVIDENCE_NAME}; export it again")
        self.manifest = parse(Manifest, content, what)

    @property
    def model(self) -> Path:
        """Path of the model file."""
        return self.folder / self.manifest.model

    def check(self) -> None:
        """Check that the bundle holds the files of its manifest, unchanged, and no others.

        Raises:
            UserError: names the first file that is a link, extra, missing or changed; the manifest, too.
        """
        found = set(list_files(self.folder, f"bundle {self.path}"))
        for name in sorted(found - {*OWN_NAMES, *self.manifest.files}):
            raise UserError(f"bundle {self.path}: {name} is not in its manifest; remove it or export again")
        for name, expected in sorted(self.manifest.files.items()):
            if name not in found:
                raise UserError(f"bundle {self.path}: {name} is missing; export it again")
            if sha256(self.folder / name) != expected:
                raise UserError(f"bundle {self.path}: {name} is changed (hash differs); export it again")
        self.evidence()

    def evidence(self) -> tuple[DeviceEvidence, ...]:
        """Return what was measured of the bundle, here and on other devices.

        Raises:
            UserError: missing or changed, or the manifest is changed.
        """
        return read_evidence(self.folder, f"bundle {self.path}")

    def close(self) -> None:
        """Remove the unpacked copy of a zip; a folder is left alone."""
        if self._unpacked is not None:
            self._unpacked.cleanup()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_bundle(path: Path) -> Bundle:
    """Open a bundle; a zip is unpacked into a temporary folder first. Nothing but the manifest is checked.

    Raises:
        UserError: missing, not a folder or zip, a zip that is not safe to unpack, or no valid manifest.
    """
    if path.is_dir():
        return Bundle(path, path, None)
    unpacked = tempfile.TemporaryDirectory(prefix="nat2deploy-")
    try:
        unpack(path, Path(unpacked.name))
        return Bundle(path, _enclosed(Path(unpacked.name)), unpacked)
    except BaseException:
        unpacked.cleanup()
        raise


def _enclosed(folder: Path) -> Path:
    """Where an unpacked bundle lies: in its one folder, as file managers pack them, else in itself."""
    inside = [entry for entry in folder.iterdir() if entry.name != _RESOURCES]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def is_zip_name(path: Path) -> bool:
    """Whether a bundle of this name is a zip, and not a folder."""
    return path.suffix.lower() == ".zip"


def is_bundle_folder(folder: Path) -> bool:
    """Whether a folder looks like a bundle, also like one of another version or one that is damaged.

    Others have files of the same name, such as web apps.
    """
    try:
        content = read_json(folder / MANIFEST_NAME, "manifest")
    except UserError:
        return False
    return isinstance(content, dict) and {"schema_version", "network", "model", "files"} <= set(content)


def list_files(folder: Path, what: str) -> list[str]:
    """Return the relative paths of all files below ``folder``, sorted, without Python's caches.

    Raises:
        UserError: one of them is a link or no plain file; ``what`` starts the message.
    """
    names = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != _CACHE or Path(parent, name).is_symlink()]
        for entry in (Path(parent, name) for name in (*folders, *files)):
            name = entry.relative_to(folder).as_posix()
            if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                raise UserError(f"{what}: {name} is a link or no plain file; put the file itself there")
            if entry.is_file():
                names.append(name)
    return sorted(names)
