"""The whole way from a search space to a certified latency table: blocks, networks, fit, certificate."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nat2deploy.clock_state import ClockState, WorkingClock, clock_changes
from nat2deploy.cost.activations import activation_bytes
from nat2deploy.cost.fitting import fit_table
from nat2deploy.cost.latency import BlockMedians
from nat2deploy.cost.network_choice import Network
from nat2deploy.cost.network_entry import NetworkEntry
from nat2deploy.cost.table import Entry, LatencyTable
from nat2deploy.measure.device import Device
from nat2deploy.measure.energy import said_once
from nat2deploy.measure.groups import Group
from nat2deploy.measure.interleave import Measurement, Progress
from nat2deploy.measure.partial_profile import (
    BlockChunk,
    NetworkChunk,
    NetworkLatency,
    PartialProfile,
    kept_aside,
    open_partial,
)
from nat2deploy.measure.plan import OVERHEAD, ProfilePlan, network_name
from nat2deploy.measure.time_needed import networks_remark
from nat2deploy.space.signature import BlockSignature
from nat2deploy.target import Fingerprint
from nat2deploy.version import __version__

_BLOCK_PROGRESS = 0.6

Size = Callable[[Sequence[BlockSignature]], float]


def profile_space(
    plan: ProfilePlan,
    device: Device,
    *,
    size: Size | None = None,
    partial: Path | None = None,
    save: Callable[[LatencyTable], None] | None = None,
    progress: Progress | None = None,
    remark: Callable[[str], None] | None = None,
    asks_load: bool = True,
) -> LatencyTable:
    """Measure every block of a plan's space on a device, calibrate on whole networks and certify on others.

    Blocks are measured in chunks, interleaved, each chunk beside the same reference workload by which chunks
    are made comparable. On a machine too noisy for a certificate the table comes without one, and
    ``remark`` is told why.

    Args:
        plan: what to measure.
        device: what measures it, for the plan's target.
        size: what the networks are spread over; by default the sum of their blocks' medians.
        partial: finished groups are kept here, and taken from here when an interrupted profile is run again
            with the same settings; removed at the end.
        save: given the table before anything is removed that an interrupted profile goes on from.
        progress: told the share done and a line of text.
        remark: told lines that a user should see: what the table could suffer from, or is begun anew for.
        asks_load: whether to ask how busy the machine is, which was kept busy itself where a backend was
            chosen just before.

    Raises:
        UserError: a space with too few networks, a target that the device cannot measure, or what ``save``
            raises.
    """
    tell = progress or silent
    say = remark or ignore
    plan.check_networks()
    here = device.fingerprint()
    done, word = open_partial(partial, plan.settings(here))
    for line in (
        device.warning() if asks_load else None,
        word,
        plan.blocks_remark() if device.measures_now else "",
    ):
        if line:
            say(line)
    _measure_blocks(plan, device, done, partial, _part(tell, 0.0, _BLOCK_PROGRESS))
    blocks = _merge(done.chunks)
    medians = BlockMedians(blocks.entries)
    networks = plan.choose_networks(
        size or (lambda network: sum(medians.median_ms(signature) for signature in network))
    )
    groups = plan.network_groups(done.profile, networks, device.memory_bytes(), done.elapsed_s)
    if device.measures_now:
        expected_ms = [sum(medians.median_ms(s) for s in network.signatures) for network in networks]
        left_s = sum(group.time_limit_s for group in groups)
        if line := networks_remark(expected_ms, plan.time_limit_s, left_s):
            say(line)
    whole = measure_networks(networks, groups, device, done, partial, _part(tell, _BLOCK_PROGRESS, 1.0))
    clocks = [*blocks.clocks, *whole.clocks]
    here = _at_work(here, clocks)
    table, why_not = _fit(plan, here, blocks, networks, whole)
    if why_not:
        say(why_not)
    if save is not None:
        save(table)
    if partial is not None:
        for path in (partial, kept_aside(partial)):
            path.unlink(missing_ok=True)
    device.finish(done.profile)
    tell(1.0, f"{len(table.entries)} blocks and {len(networks)} networks measured")
    return table


def _at_work(machine: Fingerprint, clocks: Sequence[WorkingClock]) -> Fingerprint:
    """The machine as it was at work, on the core and the GPU that were measured on."""
    if not clocks:
        return machine
    update: dict[str, Any] = clocks[-1].model_dump(include=set(ClockState.model_fields))
    gpu_mhz = next((clock.gpu_mhz for clock in reversed(clocks) if clock.gpu_mhz is not None), None)
    if machine.gpu is not None and gpu_mhz is not None:
        update["gpu"] = machine.gpu.model_copy(update={"clock_mhz": round(gpu_mhz)})
    return machine.model_copy(update=update)


def _fit(
    plan: ProfilePlan, here: Fingerprint, blocks: _Blocks, networks: Sequence[Network], whole: _Whole
) -> tuple[LatencyTable, str]:
    """Calibrate and certify; the word says why there is no certificate where there is none."""
    measured = [
        network_entry(network, one, "calibration" if index < plan.calibration_networks else "held-out")
        for index, (network, one) in enumerate(zip(networks, whole.measured, strict=True))
    ]
    table = LatencyTable(
        space=plan.space.name,
        space_fingerprint=plan.space.fingerprint,
        resolutions=plan.space.resolutions,
        widths=plan.space.widths,
        target=plan.target,
        fingerprint=here,
        nat2deploy=__version__,
        created=datetime.date.today(),
        seed=plan.seed,
        noise_floor=blocks.noise_floor,
        drift=max(blocks.drift, whole.drift),
        elapsed_s=blocks.elapsed_s + whole.elapsed_s,
        networks=tuple(measured),
        network_slowdown=whole.reference_ms / blocks.reference_ms,
        warmup_ms=plan.warmup_ms,
        clock_changes=tuple(clock_changes([*blocks.clocks, *whole.clocks])),
        energy=blocks.energy,
        entries={signature.key: blocks.entries[signature.key] for signature in plan.signatures},
    )
    return fit_table(table, plan.space, call_overhead_ms=blocks.call_overhead_ms, noise=whole.noise_floor)


@dataclass(frozen=True)
class _Blocks:
    """All blocks on one scale, and the machine while they were measured."""

    entries: dict[str, Entry]
    reference_ms: float
    call_overhead_ms: float
    noise_floor: float
    drift: float
    elapsed_s: float
    energy: str
    clocks: list[WorkingClock]


@dataclass(frozen=True)
class _Whole:
    """Measured networks, in order and all on one scale, and the machine meanwhile."""

    measured: list[NetworkLatency]
    reference_ms: float
    noise_floor: float
    drift: float
    elapsed_s: float
    clocks: list[WorkingClock]


def _measure_blocks(
    plan: ProfilePlan, device: Device, done: PartialProfile, partial: Path | None, tell: Progress
) -> None:
    """Measure the blocks that ``done`` lacks and add them to it, chunk by chunk."""
    # Saved before the first chunk, so that a device may recognise a chunk that this process never got.
    done.save(partial)
    total = len(plan.signatures)
    memory_bytes = device.memory_bytes()
    for chunk, group in plan.block_groups(done.profile, done.measured, lambda: done.elapsed_s, memory_bytes):
        begun = len(done.measured) / total
        found = device.measure(group, _part(tell, begun, begun + len(chunk) / total))
        done.chunks.append(_chunk(chunk, found))
        done.save(partial)


def _chunk(signatures: Sequence[BlockSignature], found: Measurement) -> BlockChunk:
    assert found.reference_ms is not None
    return BlockChunk(
        reference_ms=found.reference_ms,
        call_overhead_ms=found.summaries[OVERHEAD].median_ms,
        noise_floor=found.noise_floor,
        drift=found.drift,
        elapsed_s=found.elapsed_s,
        energy=found.energy_word,
        clocks=_clocks(found),
        entries={s.key: _entry(s, found) for s in signatures},
    )


def _clocks(found: Measurement) -> tuple[WorkingClock, ...]:
    return tuple(WorkingClock.model_validate(facts) for facts in found.clocks)


def _entry(signature: BlockSignature, found: Measurement) -> Entry:
    summary = found.summaries[signature.key]
    return Entry(
        **summary.latency,
        converged=found.converged[signature.key],
        macs=signature.macs,
        params=signature.params,
        activation_bytes=activation_bytes(signature),
        energy_mj=None if found.energy_mj is None else found.energy_mj[signature.key],
    )


def _merge(chunks: Sequence[BlockChunk]) -> _Blocks:
    """Put chunks on the scale of the median reference: the clock frequency differs from one to the next."""
    common_ms = float(np.median([chunk.reference_ms for chunk in chunks]))
    entries: dict[str, Entry] = {}
    for chunk in chunks:
        entries.update(chunk.scaled(common_ms / chunk.reference_ms))
    return _Blocks(
        entries,
        common_ms,
        call_overhead_ms=float(np.median([chunk.call_overhead_ms for chunk in chunks])),
        noise_floor=float(np.median([chunk.noise_floor for chunk in chunks])),
        drift=max(chunk.drift for chunk in chunks),
        elapsed_s=sum(chunk.elapsed_s for chunk in chunks),
        energy=said_once([chunk.energy for chunk in chunks if chunk.energy]),
        clocks=[clock for chunk in chunks for clock in chunk.clocks],
    )


def measure_networks(
    networks: Sequence[Network],
    groups: Sequence[Group],
    device: Device,
    done: PartialProfile,
    partial: Path | None,
    tell: Progress,
) -> _Whole:
    """Measure whole networks, group by group, but for the groups that ``done`` has; they are added to it."""
    chunks = []
    for index, group in enumerate(groups):
        chunk = done.network_chunk(group.candidates)
        if chunk is None:
            found = device.measure(group, _part(tell, index / len(groups), (index + 1) / len(groups)))
            chunk = _network_chunk(found)
            done.networks.append(chunk)
            done.save(partial)
        chunks.append(chunk)
    common_ms = float(np.median([chunk.reference_ms for chunk in chunks]))
    measured = {
        name: one.scaled(common_ms / chunk.reference_ms)
        for chunk in chunks
        for name, one in chunk.entries.items()
    }
    return _Whole(
        [measured[network_name(index, network)] for index, network in enumerate(networks)],
        common_ms,
        noise_floor=float(np.median([chunk.noise_floor for chunk in chunks])),
        drift=max(chunk.drift for chunk in chunks),
        elapsed_s=sum(chunk.elapsed_s for chunk in chunks),
        clocks=[clock for chunk in chunks for clock in chunk.clocks],
    )


def _network_chunk(found: Measurement) -> NetworkChunk:
    assert found.reference_ms is not None
    return NetworkChunk(
        reference_ms=found.reference_ms,
        noise_floor=found.noise_floor,
        drift=found.drift,
        elapsed_s=found.elapsed_s,
        clocks=_clocks(found),
        entries={
            name: NetworkLatency(**summary.latency, converged=found.converged[name])
            for name, summary in found.summaries.items()
        },
    )


def network_entry(
    network: Network, measured: NetworkLatency, role: Literal["calibration", "held-out"]
) -> NetworkEntry:
    """Return what a table holds of a measured network."""
    return NetworkEntry(
        architecture=network.architecture.to_json(),
        classes=network.classes,
        role=role,
        **measured.model_dump(),
    )


def _part(tell: Progress, start: float, end: float) -> Progress:
    """A progress whose 0 to 1 is ``start`` to ``end`` of another one's."""

    def part(share: float, text: str) -> None:
        tell(start + (end - start) * share, text)

    return part


def silent(share: float, text: str) -> None:
    """Ignore all progress."""


def ignore(line: str) -> None:
    """Ignore a remark."""
