"""A job on disk: a folder with models and what to measure of them, and the results so far beside it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
import time
import zlib
from pathlib import Path
from typing import IO, Any

from nat2deploy.errors import UserError
from nat2deploy.machine import lasting_facts

JOB_FILE = "job.json"
RESULT_FILE = "result.json"
MODELS = "models"
JOBS = "jobs"
"""Where a device that is driven from elsewhere keeps jobs: ``jobs/PROFILE/JOB``."""
FORM = 1
"""Version of the two files' form."""
_PROFILE = re.compile("[0-9a-f]{16}")
_MONTH_S = 30 * 24 * 3600.0
_MEMBER = re.compile(rf"{re.escape(JOB_FILE)}|{MODELS}/[0-9a-f]{{64}}\.onnx")


class Job:
    """A job's folder.

    ``job.json`` holds the form, threads, batch, precision, the reference model, and groups of candidates,
    each with a name and its model's SHA-256, or those of the ``stages`` of a network with early exits. The
    job's identity is the SHA-256 of that file.

    Args:
        folder: holds ``job.json`` and ``models/``.

    Raises:
        UserError: no job there, or one of another form.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            text = (folder / JOB_FILE).read_bytes()
            self.fields: dict[str, Any] = json.loads(text)
            form = self.fields["form"]
        except FileNotFoundError:
            raise UserError(f"no {JOB_FILE} in {folder}; unpack the whole kit") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{folder / JOB_FILE} cannot be read ({error}); copy it again") from None
        if form != FORM:
            raise UserError(f"{folder / JOB_FILE} has form {form}, not {FORM}; copy both files again")
        self.identity = hashlib.sha256(text).hexdigest()

    def model(self, digest: str) -> bytes:
        """Return a model's bytes.

        Raises:
            UserError: missing, or not what was packed.
        """
        path = self.folder / MODELS / f"{digest}.onnx"
        try:
            model = path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}; copy the job again") from None
        if hashlib.sha256(model).hexdigest() != digest:
            raise UserError(f"{path} was damaged on its way; copy the job again")
        return model

    def results(self, machine: dict[str, Any]) -> dict[str, Any]:
        """Return the groups that this machine has measured for this job, by name."""
        try:
            found = json.loads((self.folder / RESULT_FILE).read_bytes())
            same = lasting_facts(found["machine"]) == lasting_facts(machine)
            if found["job"] == self.identity and same:
                return dict(found["groups"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass  # nothing yet, or nothing of use
        return {}

    def save(self, machine: dict[str, Any], groups: dict[str, Any]) -> dict[str, Any]:
        """Write the results so far, in one step, and return them.

        Raises:
            UserError: the place cannot be written to.
        """
        result = {"form": FORM, "job": self.identity, "machine": machine, "groups": groups}
        write(self.folder / RESULT_FILE, (json.dumps(result, indent=1) + "\n").encode())
        return result


def write(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or not there, also after a power cut.

    Raises:
        UserError: the place cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; free some space or permit it") from None


def forget_old(jobs: Path) -> None:
    """Remove the jobs of profiles that nobody has gone on with for a month."""
    for folder in jobs.glob("*"):
        try:
            if _PROFILE.fullmatch(folder.name) and time.time() - folder.stat().st_mtime > _MONTH_S:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            pass  # another program was faster


def receive(stream: IO[bytes], folder: Path) -> None:
    """Unpack the compressed tar ``stream`` of a job into ``folder``.

    ``job.json`` comes last, so that a job that was cut off counts as missing.

    Raises:
        UserError: not a job, cut off, or no room for it.
    """
    try:
        (folder / MODELS).mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=stream, mode="r|gz") as archive:
            for member in archive:
                source = archive.extractfile(member) if member.isfile() else None
                if source is None or not _MEMBER.fullmatch(member.name):
                    raise UserError(f"{member.name} is no part of a job")
                write(folder / member.name, source.read())
        if not (folder / JOB_FILE).exists():
            raise UserError(f"the job ended without its {JOB_FILE}")
    except (tarfile.TarError, EOFError, zlib.error, TypeError, ValueError) as error:  # tarfile's own, too
        raise UserError(f"the job was cut off: {error}") from None
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; free some space or permit it") from None
