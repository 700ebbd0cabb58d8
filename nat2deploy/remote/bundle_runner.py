"""A bundle's own runner on an ssh device; its answers are trusted no more than a device's other words."""

from __future__ import annotations

import secrets
import tarfile
import tempfile
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from nat2deploy.cost.measured import Milliseconds
from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.remote.ssh import ConnectionLost, SshConnection, SshSettings
from nat2deploy.remote.ssh_device import FOLDER

Share = Annotated[float, Field(ge=0, le=1)]


class CheckAnswer(BaseModel):
    """What ``--check`` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: Annotated[int, Field(ge=1)]
    max_difference: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    top1_agreement: Share
    ok: bool


class BenchAnswer(BaseModel):
    """What ``--bench`` says, as far as it is told on."""

    model_config = ConfigDict(frozen=True)

    median_ms: Milliseconds
    p95_ms: Milliseconds


class RunnerAnswer(BaseModel):
    """The object that ``run.py --check --json`` prints, with ``--bench`` where that was asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: CheckAnswer
    bench: BenchAnswer | None = None


def run_bundle(settings: SshSettings, folder: Path, identity: str, *, bench: bool) -> RunnerAnswer:
    """Copy a bundle to a device, have its runner check it there, and remove the copy.

    Args:
        settings: how to reach the device.
        folder: the bundle's files, checked.
        identity: 16 or more hexadecimal digits that tell the bundle; its folder's name there begins with it.
        bench: have the runner time it, too.

    Raises:
        UserError: the device cannot be reached, or the runner does not run there.
    """
    bundles = f"{FOLDER}/bundles"
    place = f"{bundles}/{identity}-{secrets.token_hex(4)}"  # another verification may be at work
    words = "--check --bench --json" if bench else "--check --json"
    # Copies go however it ends; those of a device that was switched off meanwhile, a day later. The runner's
    # exit code 1 is a check that failed: its words are the answer.
    command = (
        f"trap 'rm -rf {place}' EXIT; trap 'exit 1' HUP INT TERM; "
        f"find {bundles} -mindepth 1 -maxdepth 1 -mtime +0 -exec rm -rf {{}} + 2>/dev/null; "
        f"mkdir -p {place} && tar -xzf - -C {place} && "
        f"{{ {settings.python} {place}/run.py {words}; code=$?; [ $code -le 1 ] || exit $code; }}"
    )
    try:
        with tempfile.TemporaryFile() as packed:
            with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
                archive.add(folder, ".", filter=_plain)
            packed.seek(0)
            answer = SshConnection(settings).ask(command, send=packed)
    except ConnectionLost as error:
        raise UserError(
            f"no connection to {settings.address}, or one that was lost ({error}); it must work with `ssh` "
            "first, without a password; then verify it again"
        ) from None
    return parse(RunnerAnswer, answer, f"answer of {settings.address}")


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out caches, and whose the files are here."""
    if Path(entry.name).name == "__pycache__":
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
