"""The front door of profiling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nat2deploy.cost.coverage import check_space
from nat2deploy.cost.doubts import doubts
from nat2deploy.cost.table import LatencyTable, load_table, save_table
from nat2deploy.errors import UserError
from nat2deploy.locks import holding
from nat2deploy.measure.backends import BackendChoice, BackendLatency, choose_backend
from nat2deploy.measure.device import Device, LocalDevice
from nat2deploy.measure.partial_profile import partial_target
from nat2deploy.measure.plan import ProfilePlan
from nat2deploy.measure.profiler import profile_space
from nat2deploy.progress import Report, remarks, silent
from nat2deploy.remote.ssh import SshAddress, SshSettings
from nat2deploy.remote.ssh_device import SshDevice
from nat2deploy.run.config import ProfileConfig, SpaceConfig
from nat2deploy.space.search_space import SearchSpace, load_space
from nat2deploy.target import Target

_SHARE_FOR_CHOICE = 0.1


def fastest_backend(
    space_config: SpaceConfig,
    targets: Sequence[Target],
    config: ProfileConfig,
    out: Path,
    *,
    seed: int = 0,
    report: Report = silent,
) -> BackendChoice:
    """Measure a few networks of a space on each target, to profile the fastest one into ``out``.

    A tenth of the profile's time limit is measured for. Where a killed profile of one of them left
    finished blocks, that one goes on.

    Raises:
        UserError: an input that cannot be used, or no backend that runs the networks here.
    """
    space = _space(space_config)
    check_table_path(out)
    if targets and (warning := LocalDevice(targets[0]).warning()):
        remarks(report)(warning)
    before = partial_target(_partial(out), space, targets)
    if before is not None:
        reason = "its interrupted profile goes on; another --out chooses anew"
        return BackendChoice((BackendLatency(before, 1.0),), reason, {})
    return choose_backend(
        space,
        targets,
        seed=seed,
        time_limit_s=_SHARE_FOR_CHOICE * config.time_limit_s,
        progress=lambda share, text: report("choose a backend", share, 1.0, text),
    )


def profile(
    space_config: SpaceConfig,
    target: Target,
    config: ProfileConfig,
    out: Path,
    *,
    seed: int = 0,
    ssh: SshSettings | None = None,
    report: Report = silent,
    asks_load: bool = True,
) -> LatencyTable:
    """Measure every block of a space on a machine and write a calibrated, certified table to ``out``.

    The machine is this one, or with ``ssh`` another. What a killed profile had finished, in groups of blocks
    and of networks, is not measured again. Without ``asks_load`` it is taken to be known how busy the machine
    is.

    Raises:
        UserError: an input that cannot be used, a machine that cannot be reached or cannot measure, or an
            ``out`` that another process measures for.
    """
    plan = make_plan(space_config, target, config, seed)
    check_table_path(out)
    device = measuring_device(target, ssh, report)
    busy = f"{out} is being measured by another process; wait for it, or choose another --out"
    with holding(out.with_name(f".{out.name}.lock"), busy):
        return profile_space(
            plan,
            device,
            partial=_partial(out),
            save=lambda table: save_table(table, out),
            progress=lambda share, text: report("profile", share, 1.0, text),
            remark=remarks(report),
            asks_load=asks_load,
        )


def measuring_device(target: Target, ssh: SshSettings | None, report: Report) -> Device:
    """Return what measures for a target: this machine, or with ``ssh`` another.

    Raises:
        UserError: a target that cannot be measured there.
    """
    if ssh is None:
        return LocalDevice(target)
    return SshDevice(ssh, target, say=remarks(report))


def make_plan(space_config: SpaceConfig, target: Target, config: ProfileConfig, seed: int) -> ProfilePlan:
    """Put a plan together from what a user wrote.

    Raises:
        UserError: no such space, a resolution that it has not, or too few networks.
    """
    return ProfilePlan(
        _space(space_config),
        target,
        seed=seed,
        precision=config.precision,
        time_limit_s=config.time_limit_s,
        calibration_networks=config.calibration_networks,
        held_out_networks=config.held_out_networks,
        every_size=config.every_size,
        warmup_ms=config.warmup_ms,
    )


def check_table_path(out: Path) -> None:
    """Check that a table can be written to ``out``, before the work.

    Raises:
        UserError: another ending than .json, or a folder.
    """
    if out.suffix != ".json":
        raise UserError(f"--out {out}: a latency table is a .json file; add that ending")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; name a .json file")


def profile_once(
    space_config: SpaceConfig, target: Target, config: ProfileConfig, out: Path, *, seed: int, report: Report
) -> LatencyTable:
    """Return the table that ``config`` names, or the one at ``out``, or measure it.

    Raises:
        UserError: as ``profile``, or a table for another space or target.
    """
    path = Path(config.table) if config.table is not None else out
    if config.table is None and not out.exists():
        ssh = None
        if config.device != "cpu":
            ssh = SshSettings(SshAddress.parse(config.device), config.python, config.ssh_options)
        measured = profile(space_config, target, config, out, seed=seed, ssh=ssh, report=report)
        for doubt in doubts(measured):
            remarks(report)(doubt)
        return measured
    table = load_table(path)
    check_space(table, _space(space_config))
    if table.target != target:
        raise UserError(f"table {path} is of target {table.target}, not {target}; profile that target")
    return table


def _space(config: SpaceConfig) -> SearchSpace:
    return load_space(config.name).restrict(resolutions=config.resolutions)


def _partial(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial")
