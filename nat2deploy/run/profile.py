"""The front door of profiling."""

from __future__ import annotations

from pathlib import Path

from nat2deploy.cost.table import LatencyTable, load_table, save_table
from nat2deploy.errors import UserError
from nat2deploy.measure.device import LocalDevice
from nat2deploy.measure.plan import ProfilePlan
from nat2deploy.measure.profiler import profile_space
from nat2deploy.progress import Report, silent
from nat2deploy.run.config import ProfileConfig, SpaceConfig
from nat2deploy.space.search_space import load_space
from nat2deploy.target import Target


def profile(
    space_config: SpaceConfig,
    target: Target,
    config: ProfileConfig,
    out: Path,
    *,
    seed: int = 0,
    report: Report = silent,
) -> LatencyTable:
    """Measure every block of a space on this machine and write a calibrated, certified table to ``out``.

    Blocks that a killed profile had finished are not measured again.

    Raises:
        UserError: an input that cannot be used, or a machine too noisy to measure on.
    """
    space = load_space(space_config.name).restrict(resolutions=space_config.resolutions)
    if out.suffix != ".json":
        raise UserError(f"--out {out}: a latency table is a .json file; add that ending")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; name a .json file")
    plan = ProfilePlan(
        space,
        target,
        seed=seed,
        precision=config.precision,
        time_limit_s=config.time_limit_s,
        calibration_networks=config.calibration_networks,
        held_out_networks=config.held_out_networks,
        every_size=config.every_size,
    )
    table = profile_space(
        plan,
        LocalDevice(target),
        partial=out.with_name(f".{out.name}.partial"),
        progress=lambda share, text: report("profile", share, 1.0, text),
    )
    save_table(table, out)
    return table


def profile_once(
    space_config: SpaceConfig, target: Target, config: ProfileConfig, out: Path, *, seed: int, report: Report
) -> LatencyTable:
    """Return the table that ``config`` names, or the one at ``out``, or measure it.

    Raises:
        UserError: as ``profile``, or a table for another space or target.
    """
    path = Path(config.table) if config.table is not None else out
    if config.table is None and not out.exists():
        return profile(space_config, target, config, out, seed=seed, report=report)
    table = load_table(path)
    table.check_space(load_space(space_config.name).restrict(resolutions=space_config.resolutions))
    if table.target != target:
        raise UserError(f"table {path} is of target {table.target}, not {target}; profile that target")
    return table
