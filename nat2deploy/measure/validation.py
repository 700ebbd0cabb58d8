"""A table's certificate, made anew by whole networks that are measured now."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress

import numpy as np

from nat2deploy.clock_state import clock_changes
from nat2deploy.cost.certificate import FEWEST_NETWORKS, Certificate
from nat2deploy.cost.coverage import check_space
from nat2deploy.cost.fitting import certify_networks
from nat2deploy.cost.latency import BlockLatency
from nat2deploy.cost.network_choice import choose_networks
from nat2deploy.cost.network_entry import NetworkEntry
from nat2deploy.cost.table import LatencyTable
from nat2deploy.errors import UserError
from nat2deploy.measure.device import Device, LocalDevice
from nat2deploy.measure.interleave import Progress
from nat2deploy.measure.partial_profile import PartialProfile
from nat2deploy.measure.plan import CLASS_LADDER, network_groups
from nat2deploy.measure.profiler import ignore, measure_networks, network_entry, silent
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.space.search_space import SearchSpace


def validate_table(
    table: LatencyTable,
    space: SearchSpace,
    *,
    networks: int = 50,
    seed: int = 1,
    precision: float = 0.005,
    time_limit_s: float = 60.0,
    progress: Progress | None = None,
    device: Device | None = None,
    remark: Callable[[str], None] | None = None,
) -> tuple[Certificate, list[NetworkEntry]]:
    """Certify a table anew: measure a fresh set of random networks on its machine, now.

    None of them is one that the table is calibrated on. Returns the certificate and its networks.

    Args:
        table: made on the same machine.
        space: the table's or one that it serves, with no other resolutions and widths.
        networks: how many to measure.
        seed: another one than the table's gives other networks.
        precision: wanted relative half width of each network's confidence interval.
        time_limit_s: seconds of measuring; compiling comes on top.
        progress: told the share done and a line of text.
        device: the table's machine; by default the one that this process runs on.
        remark: told lines that a user should see: what the networks could suffer from, and the table not.

    Raises:
        UserError: a table of another machine or space, too few networks, or too much noise to certify.
    """
    check_space(table, space)
    device = device or LocalDevice(table.target)
    here = device.fingerprint()
    if not table.fingerprint.same_machine(here):
        there, this = table.fingerprint.told_apart(here)
        raise UserError(
            f"the latency table was measured on {there}; this is {this}; validate it there, or profile this "
            "one"
        )
    say = remark or ignore
    for line in (device.warning(), *_other_libraries(table.fingerprint.libraries, here.libraries)):
        if line:
            say(line)
    rng = np.random.default_rng([seed, 2])
    latency = BlockLatency(table)
    chosen = choose_networks(
        space,
        latency.network_ms,
        rng,
        networks,
        most_classes=CLASS_LADDER[-1],
        exclude=_calibrated_on(table, space),
    )
    if len(chosen) < FEWEST_NETWORKS:
        raise UserError(
            f"space '{space.name}' has only {len(chosen)} networks that the table is not calibrated on; a "
            f"certificate needs {FEWEST_NETWORKS}"
        )
    groups = network_groups(
        chosen,
        profile=secrets.token_hex(8),
        seed=seed,
        precision=precision,
        time_limit_s=time_limit_s,
        batch=table.target.batch,
        memory_bytes=device.memory_bytes(),
        warmup_ms=table.warmup_ms,
    )
    nothing_kept = PartialProfile(settings={}, chunks=[])
    try:
        whole = measure_networks(chosen, groups, device, nothing_kept, None, progress or silent)
    finally:
        device.finish()
    for change in clock_changes(whole.clocks):
        say(f"while the networks were measured: {change}")
    found = [network_entry(n, m, "held-out") for n, m in zip(chosen, whole.measured, strict=True)]
    return certify_networks(table, space, found, noise=whole.noise_floor), found


def _other_libraries(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    changed = [
        f"{name} {then[name]}, now {now[name]}" for name in then if now.get(name, then[name]) != then[name]
    ]
    return [f"the table was measured with other versions: {'; '.join(changed)}"] if changed else []


def _calibrated_on(table: LatencyTable, space: SearchSpace) -> set[Architecture]:
    """The table's calibration networks, as far as they are of ``space``."""
    seen = set()
    for network in table.networks:
        if network.role == "calibration":
            with suppress(UserError):  # one of the table's own, larger space
                seen.add(parse_architecture(space, network.architecture))
    return seen
