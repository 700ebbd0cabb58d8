"""A device that is measured through ssh: the agent and the models go there, results come back."""

from __future__ import annotations

import hashlib
import io
import secrets
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nat2deploy.agent.job import JOB_FILE, JOBS, MODELS
from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.measure.device import Device
from nat2deploy.measure.groups import Group
from nat2deploy.measure.interleave import Measurement, Progress
from nat2deploy.remote.agent_file import agent_source
from nat2deploy.remote.answers import ProbeAnswer, ProgressAnswer, group_measurement, parse_result
from nat2deploy.remote.packing import StagedModel, check_target, write_job, write_model_job
from nat2deploy.remote.ssh import ConnectionLost, SshConnection, SshSettings
from nat2deploy.target import Fingerprint, Target

FOLDER = ".cache/nat2deploy"
"""Where everything lies on a device, below the home folder, where ssh begins."""
_WAITS_S = (1.0, 5.0, 30.0)  # before the connection is tried again
_EXPORTING, _SENDING = 0.2, 0.3


class SshDevice(Device):
    """A device with ssh, Python 3.9 or newer, numpy and onnxruntime.

    Args:
        settings: how to reach it.
        target: what candidates are compiled for; its backend must be ONNX Runtime.
        say: told in one line when a connection was lost.
        waits_s: seconds to wait before each new try.

    Raises:
        UserError: another backend.
    """

    def __init__(
        self,
        settings: SshSettings,
        target: Target,
        *,
        say: Callable[[str], None],
        waits_s: tuple[float, ...] = _WAITS_S,
    ) -> None:
        check_target(target)
        self.target = target
        self._settings = settings
        self._connection = SshConnection(settings)
        self._say = say
        self._waits_s = waits_s
        self._probe: ProbeAnswer | None = None
        self._agent = agent_source().encode()
        self._program = f"{FOLDER}/measure-{hashlib.sha256(self._agent).hexdigest()[:16]}.py"
        self._profile: str | None = None

    def fingerprint(self) -> Fingerprint:
        """Bring the agent to the device and describe it.

        Raises:
            UserError: it cannot be reached, or its Python is missing, too old or lacks a module.
        """
        return self._probed().machine

    def warning(self) -> str | None:
        """Return a line of warning when the device is busy, else None."""
        return self._probed().warning

    def memory_bytes(self) -> int | None:
        """Return the device's memory."""
        return self._probed().memory_bytes

    def _probed(self) -> ProbeAnswer:
        if self._probe is None:
            part = f"{self._program}.{secrets.token_hex(4)}"  # another command may be bringing it, too
            brought = f"mkdir -p {FOLDER} && cat > {part} && mv -f {part} {self._program}"
            command = f"{brought} || {{ rm -f {part}; exit 1; }}; "
            with tempfile.TemporaryFile() as agent:
                agent.write(self._agent)
                agent.seek(0)
                try:
                    answer = self._connection.ask(command + self._call("--probe", FOLDER), send=agent)
                except ConnectionLost as error:
                    raise UserError(
                        f"cannot reach {self._settings.address}: {error}; it must work with `ssh` first, "
                        "without a password"
                    ) from None
            probe = parse(ProbeAnswer, answer, f"answer of {self._settings.address}")
            if self.target.threads > probe.machine.cores:
                raise UserError(
                    f"threads: {self.target.threads} asked for, {self._settings.address} has "
                    f"{probe.machine.cores} cores; use fewer"
                )
            self._probe = probe
        return self._probe

    def _measure(self, group: Group, progress: Progress) -> Measurement:
        with tempfile.TemporaryDirectory(prefix="nat2deploy-") as name:
            folder = Path(name)
            identity = write_job(
                folder,
                self.target,
                [group],
                progress=lambda share, text: progress(_EXPORTING * share, text),
            )
            return self._run_job(folder, identity, group.name, group.profile, progress)

    def measure_model(
        self,
        model: Path | StagedModel,
        name: str,
        profile: str,
        *,
        seed: int,
        time_limit_s: float,
        progress: Progress,
    ) -> Measurement:
        """Measure ONNX files that were exported for the target.

        Args:
            model: the file, or stages, of which what is run up to each exit is measured.
            name: of the group; as of ``write_model_job``.
            profile: as of ``Group``.
            seed: of the input.
            time_limit_s: seconds of measuring.
            progress: told the share done and a line of text.

        Raises:
            UserError: as ``measure``.
        """
        with tempfile.TemporaryDirectory(prefix="nat2deploy-") as folder:
            identity = write_model_job(
                Path(folder), self.target, model, name, profile, seed=seed, time_limit_s=time_limit_s
            )
            return self._run_job(Path(folder), identity, name, profile, progress)

    def _run_job(
        self, folder: Path, identity: str, name: str, profile: str, progress: Progress
    ) -> Measurement:
        """Have the device measure the job in ``folder``, over as many connections as it takes."""
        machine = self.fingerprint()
        self._profile = profile
        place = f"{FOLDER}/{JOBS}/{profile}/{identity[:32]}"
        for wait_s in (*self._waits_s, None):
            try:
                answer = self._try(folder, place, name, progress)
                break
            except ConnectionLost as error:
                if wait_s is None:
                    raise UserError(
                        f"connection to {self._settings.address} lost {len(self._waits_s) + 1} times "
                        f"({error}); give the same command again, a profile goes on where it was"
                    ) from None
                self._say(f"{self._settings.address}: {error}; trying {name} again")
                time.sleep(wait_s)
        result = parse_result(answer.get("result"), f"results of {self._settings.address}")
        if not result.machine.same_machine(machine):
            before, now = machine.told_apart(result.machine)
            raise UserError(f"{self._settings.address} was {before}, and is now {now}; profile again")
        return group_measurement(result, identity, name)

    def _try(self, folder: Path, place: str, label: str, progress: Progress) -> dict[str, Any]:
        """Ask for the job's results; send the job first if the device has it not."""

        def hear(value: dict[str, Any]) -> None:
            said = parse(ProgressAnswer, value, f"answer of {self._settings.address}")
            progress(_SENDING + (1 - _SENDING) * said.share, said.text)

        answer = self._connection.ask(self._call("--follow", place), hear=hear)
        if answer.get("missing") is True:
            progress(_EXPORTING, f"{label}: sending")
            with tempfile.TemporaryFile() as packed:
                _pack(folder, packed)
                packed.seek(0)
                self._connection.ask(self._call("--receive", place), send=packed)
            answer = self._connection.ask(self._call("--follow", place), hear=hear)
        return answer

    def finish(self, profile: str | None = None) -> None:
        """Remove the profile's jobs from the device; the agent stays."""
        profile = profile or self._profile
        if profile is None:
            return
        try:
            self._connection.ask(f"rm -rf {FOLDER}/{JOBS}/{profile} && echo '{{}}'")
        except (ConnectionLost, UserError) as error:
            self._say(f"{FOLDER}/{JOBS}/{profile} is left on the device: {error}")

    def _call(self, option: str, place: str) -> str:
        # exec, so that the agent itself hears of the end of the connection and no shell lives on.
        return f"exec {self._settings.python} {self._program} {option} {place}"


def _pack(folder: Path, packed: Any) -> None:
    """Write a job as a compressed tar, ``job.json`` last: where that has arrived, all has."""
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for path in (*sorted((folder / MODELS).iterdir()), folder / JOB_FILE):
            content = path.read_bytes()
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
