"""A kit for a device without ssh: a zip with the agent and a job, and the results that come back from it."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from nat2deploy.agent.job import JOB_FILE, RESULT_FILE
from nat2deploy.deploy.zipped import pack
from nat2deploy.errors import UserError
from nat2deploy.files import check_writable, parse, read_json, write_atomic, write_text
from nat2deploy.measure.device import Device
from nat2deploy.measure.groups import Group
from nat2deploy.measure.interleave import Measurement, Progress
from nat2deploy.measure.plan import ProfilePlan
from nat2deploy.remote.agent_file import agent_source
from nat2deploy.remote.answers import ResultAnswer, group_measurement, parse_result
from nat2deploy.remote.packing import check_target, write_job
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.space.signature import BlockSignature
from nat2deploy.target import Fingerprint, Target
from nat2deploy.version import __version__

AGENT = "measure.py"
_PROFILE = "0" * 16  # a kit's results are its own: they are never looked for by the name of a profile
_MEMORY_BYTES = 1 << 30  # of a device that nobody has seen yet
_MOST_BYTES = 64 << 20

_README = """Measure networks on this device for nat2deploy: {what}.

Needed: Python 3.9 or newer, numpy and onnxruntime (`python3 -m pip install numpy onnxruntime`).
{power_mode}
1. Unpack all of this zip into one folder on the device.
2. Stop other work there, and run in that folder: python3 {agent}
   It takes about {minutes} min beside loading the models. Stopped, it goes on when it is started again.
3. Bring {result} back to the machine where this kit was made, and there:
   nat2deploy table import {result} --kit {kit} --out table.json
"""


class KitSettings(BaseModel):
    """The plan that a kit was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    space: SearchSpace
    target: Target
    seed: Annotated[int, Field(ge=0)]
    precision: Annotated[float, Field(gt=0, le=0.5)]
    time_limit_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    calibration_networks: Annotated[int, Field(ge=1)]
    held_out_networks: Annotated[int, Field(ge=1)]
    every_size: Annotated[int, Field(ge=1)]
    warmup_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @classmethod
    def of(cls, plan: ProfilePlan) -> KitSettings:
        """The settings of a plan."""
        names = cls.model_fields.keys() - {"version"}
        return cls(version=__version__, **{name: getattr(plan, name) for name in names})

    def plan(self) -> ProfilePlan:
        """The plan again.

        Raises:
            UserError: too few networks.
        """
        names = type(self).model_fields.keys() - {"version"}
        return ProfilePlan(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Kit:
    """A kit that was read: its job's identity (a SHA-256) and its plan."""

    identity: str
    plan: ProfilePlan


def macs(signatures: Sequence[BlockSignature]) -> float:
    """What a kit's networks are spread over: nothing is measured yet when they are chosen."""
    return math.fsum(signature.macs for signature in signatures)


def write_kit(plan: ProfilePlan, out: Path, progress: Progress, *, power_mode: str = "") -> None:
    """Write the zip ``out``: the agent, every block and the chosen networks as ONNX files, and a README.

    ``power_mode`` is what the README says that the device must be set to.

    Raises:
        UserError: another backend than ONNX Runtime, a space with too few networks, or a place that cannot
            be written to.
    """
    check_target(plan.target)
    check_writable(out)  # now, not after every block is exported
    networks = plan.choose_networks(macs)
    groups = _block_groups(plan)
    blocks_s = math.fsum(group.time_limit_s for group in groups)
    groups += plan.network_groups(_PROFILE, networks, _MEMORY_BYTES, blocks_s)
    with tempfile.TemporaryDirectory(prefix="nat2deploy-") as name:
        folder = Path(name)
        settings = KitSettings.of(plan).model_dump(mode="json")
        write_job(folder, plan.target, groups, settings=settings, progress=progress)
        write_text(folder / AGENT, agent_source())
        readme = _README.format(
            what=f"space {plan.space.name}, {plan.target}",
            agent=AGENT,
            result=RESULT_FILE,
            kit=shlex.quote(out.name),
            minutes=math.ceil(plan.time_limit_s / 60),
            power_mode=f"Power mode of the device: {' '.join(power_mode.split())}.\n" if power_mode else "",
        )
        write_text(folder / "README.txt", readme)
        write_atomic(out, lambda temporary: pack(folder, temporary, deflate=True))


def _block_groups(plan: ProfilePlan) -> list[Group]:
    """All block groups, each with its even share of the time: nobody knows yet how much the others leave."""
    groups: list[Group] = []

    def taken_s() -> float:
        return math.fsum(group.time_limit_s for group in groups)

    for _, group in plan.block_groups(_PROFILE, (), taken_s, _MEMORY_BYTES):
        groups.append(group)
    return groups


def read_kit(path: Path) -> Kit:
    """Read what a kit is of.

    Raises:
        UserError: no kit, or one of another version of this package.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(JOB_FILE) as stream:
            text = stream.read(_MOST_BYTES)
        settings = json.loads(text)["settings"]
    except FileNotFoundError as error:
        raise UserError(f"no kit at {path}; check the path") from error
    except (
        zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, LookupError, TypeError, ValueError
    ) as error:  # fmt: skip
        raise UserError(f"{path} is no kit ({error}); make one with `nat2deploy table kit`") from error
    version = settings.get("version") if isinstance(settings, dict) else None
    if version != __version__:
        raise UserError(
            f"kit {path} was made by nat2deploy {str(version)[:20]}, this is {__version__}; "
            "import its results with that version"
        )
    plan = parse(KitSettings, settings, f"kit {path}").plan()
    return Kit(hashlib.sha256(text).hexdigest(), plan)


def read_result(path: Path, kit: Kit) -> ResultAnswer:
    """Read what a device brought back for a kit.

    Raises:
        UserError: missing, too large, not JSON, a field that does not fit, or of another kit.
    """
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        raise UserError(f"result {path} is larger than any; check where it comes from")
    value: Any = read_json(path, "result")
    result = parse_result(value, f"result {path}")
    if result.job != kit.identity:
        raise UserError(f"result {path} is of another kit; give the kit that was unpacked on the device")
    return result


class KitDevice(Device):
    """The device that has measured a kit, by what it brought back.

    Args:
        kit: the kit.
        result: of the kit.
    """

    measures_now = False

    def __init__(self, kit: Kit, result: ResultAnswer) -> None:
        self._kit = kit
        self._result = result

    def fingerprint(self) -> Fingerprint:
        """Describe the device."""
        return self._result.machine

    def memory_bytes(self) -> int | None:
        """Return what the kit was made for."""
        return _MEMORY_BYTES

    def _measure(self, group: Group, progress: Progress) -> Measurement:
        return group_measurement(self._result, self._kit.identity, group.name)
