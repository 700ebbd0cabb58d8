"""The front doors of profiling a device without ssh: make a kit, import what it measured."""

from __future__ import annotations

from pathlib import Path

from nat2deploy.cost.table import LatencyTable, save_table
from nat2deploy.errors import UserError
from nat2deploy.measure.profiler import profile_space
from nat2deploy.progress import Report, remarks, silent
from nat2deploy.remote.kit import KitDevice, macs, read_kit, read_result, write_kit
from nat2deploy.run.config import ProfileConfig, SpaceConfig
from nat2deploy.run.profile import check_table_path, make_plan
from nat2deploy.target import Target


def make_kit(
    space_config: SpaceConfig,
    target: Target,
    config: ProfileConfig,
    out: Path,
    *,
    seed: int = 0,
    power_mode: str = "",
    report: Report = silent,
) -> None:
    """Write a zip that measures a space on any device with Python, numpy and onnxruntime.

    ``power_mode``, in words for people, is what the device must be set to; the kit's README says it.

    Raises:
        UserError: an input that cannot be used, or a place that cannot be written to.
    """
    plan = make_plan(space_config, target, config, seed)
    if out.suffix.lower() != ".zip":
        raise UserError(f"--out {out}: a kit is a .zip file; add that ending")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; name a .zip file")
    write_kit(plan, out, lambda share, text: report("kit", share, 1.0, text), power_mode=power_mode)


def import_result(result: Path, kit: Path, out: Path, *, report: Report = silent) -> LatencyTable:
    """Calibrate and certify what a device brought back for a kit, and write the table to ``out``.

    Raises:
        UserError: a kit or a result that cannot be read, or that do not belong together.
    """
    check_table_path(out)
    packed = read_kit(kit)
    table = profile_space(
        packed.plan,
        KitDevice(packed, read_result(result, packed)),
        size=macs,
        progress=lambda share, text: report("import", share, 1.0, text),
        remark=remarks(report),
    )
    save_table(table, out)
    return table
