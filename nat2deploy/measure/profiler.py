"""The whole way from a search space to a certified latency table: blocks, networks, fit, certificate."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nat2deploy.cost.activations import activation_bytes
from nat2deploy.cost.calibration import MeasuredNetwork, calibrate
from nat2deploy.cost.certificate import FEWEST_NETWORKS, Certificate, certify
from nat2deploy.cost.latency import BlockLatency, BlockMedians
from nat2deploy.cost.network_choice import Network, choose_networks
from nat2deploy.cost.table import Entry, LatencyTable
from nat2deploy.errors import UserError
from nat2deploy.measure.environment import load_warning, pinned_threads
from nat2deploy.measure.interleave import Measurement, Progress, measure_interleaved
from nat2deploy.measure.networks import reference_workload
from nat2deploy.measure.partial_profile import BlockChunk, PartialProfile, open_partial
from nat2deploy.measure.statistics import Summary
from nat2deploy.measure.workloads import prepare_block, prepare_network, prepare_nothing
from nat2deploy.space.lowering import every_signature
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.space.signature import BlockSignature
from nat2deploy.target import Target, fingerprint
from nat2deploy.version import __version__

CLASS_LADDER = (2, 10, 100, 1000)
"""Class counts that classifiers are measured at."""
# Engines alive at once: enough that interleaving spreads drift, few enough for the memory of an edge device.
_BLOCKS_AT_ONCE = 80
_NETWORKS_AT_ONCE = 64
_BLOCK_SHARE = 0.6
_OVERHEAD = "call overhead"


def profile_space(
    space: SearchSpace,
    target: Target,
    *,
    seed: int = 0,
    precision: float = 0.01,
    time_limit_s: float = 300.0,
    calibration_networks: int = 24,
    held_out_networks: int = 20,
    partial: Path | None = None,
    progress: Progress | None = None,
) -> LatencyTable:
    """Measure every block of ``space`` on ``target``, calibrate on whole networks and certify on others.

    Blocks are measured in chunks, interleaved, each chunk beside the same reference workload by which chunks
    are made comparable. On a machine too noisy for a certificate the table comes without one, and
    ``progress`` is told why.

    Args:
        space: its resolutions and widths are what the table covers.
        target: backend, precision, threads and batch, as deployed.
        seed: of the visiting orders, the weights and the networks.
        precision: wanted relative half width of each block's confidence interval; half of it for networks.
        time_limit_s: seconds of measuring, six tenths of them for blocks; compiling comes on top.
        calibration_networks: whole networks that the calibration is fitted to.
        held_out_networks: whole networks, others, that the certificate is of.
        partial: finished chunks are kept here, and taken from here when an interrupted profile is run again
            with the same settings; removed at the end.
        progress: told the share done and a line of text.

    Raises:
        UserError: too few networks, a space with too few, or a target that this machine cannot measure.
    """
    tell = progress or _silent
    if min(calibration_networks, held_out_networks) < FEWEST_NETWORKS:
        raise UserError(
            f"calibration and certificate need {FEWEST_NETWORKS} networks each or more, "
            f"not {calibration_networks} and {held_out_networks}; ask for more"
        )
    signatures = list(every_signature(space, CLASS_LADDER))
    done, word = open_partial(partial, _settings(space, target, seed, precision, time_limit_s))
    for line in (load_warning(), word):
        if line:
            tell(0.0, line)
    blocks_s = time_limit_s * _BLOCK_SHARE
    _measure_blocks(signatures, done, target, seed, precision, blocks_s, partial, _part(tell, 0.0, 0.6))
    blocks = _merge(done.chunks)
    medians = BlockMedians(blocks.entries)

    rng = np.random.default_rng([seed, 1])
    networks = choose_networks(
        space,
        lambda network: sum(medians.median_ms(signature) for signature in network),
        rng,
        calibration_networks + held_out_networks,
        most_classes=CLASS_LADDER[-1],
    )
    if len(networks) < calibration_networks + held_out_networks:
        raise UserError(
            f"space '{space.name}' has only {len(networks)} networks to measure, not "
            f"{calibration_networks + held_out_networks}; ask for fewer"
        )
    whole = _measure_networks(
        networks, target, seed, precision / 2, time_limit_s - blocks_s, _part(tell, 0.6, 1.0)
    )
    calibration = calibrate(
        [
            MeasuredNetwork(
                network.signatures, [medians.median_ms(s) for s in network.signatures], summary.median_ms
            )
            for network, summary in zip(
                networks[:calibration_networks], whole.summaries[:calibration_networks], strict=True
            )
        ],
        blocks.call_overhead_ms,
    )
    table = LatencyTable(
        space=space.name,
        space_fingerprint=space.fingerprint,
        resolutions=space.resolutions,
        widths=space.widths,
        target=target,
        fingerprint=fingerprint(),
        nat2deploy=__version__,
        created=datetime.date.today(),
        seed=seed,
        noise_floor=blocks.noise_floor,
        drift=blocks.drift,
        elapsed_s=blocks.elapsed_s + whole.elapsed_s,
        calibration=calibration,
        entries={signature.key: blocks.entries[signature.key] for signature in signatures},
    )
    word = f"{len(table.entries)} blocks and {len(networks)} networks measured"
    try:
        held_out = slice(calibration_networks, None)
        certificate = _certify(table, networks[held_out], whole.summaries[held_out], whole.noise_floor)
        table = table.model_copy(update={"certificate": certificate})
    except UserError as error:
        word = str(error)
    if partial is not None:
        partial.unlink(missing_ok=True)
    tell(1.0, word)
    return table


def validate_table(
    table: LatencyTable,
    space: SearchSpace,
    *,
    networks: int = 20,
    seed: int = 1,
    precision: float = 0.005,
    time_limit_s: float = 60.0,
    progress: Progress | None = None,
) -> Certificate:
    """Certify a table anew: measure a fresh set of random networks on this machine, now.

    Args:
        table: made on this machine.
        space: the table's, with no other resolutions and widths.
        networks: how many to measure.
        seed: another one than the table's gives other networks.
        precision: wanted relative half width of each network's confidence interval.
        time_limit_s: seconds of measuring; compiling comes on top.
        progress: told the share done and a line of text.

    Raises:
        UserError: a table of another machine or space, too few networks, or too much noise to certify.
    """
    table.check_space(space)
    here = fingerprint()
    if not table.fingerprint.same_machine(here):
        raise UserError(
            f"the latency table was measured on {table.fingerprint.cpu} ({table.fingerprint.cores} cores), "
            f"this is {here.cpu} ({here.cores} cores); validate it there, or profile here"
        )
    rng = np.random.default_rng([seed, 2])
    chosen = choose_networks(
        space, BlockLatency(table).network_ms, rng, networks, most_classes=CLASS_LADDER[-1]
    )
    whole = _measure_networks(chosen, table.target, seed, precision, time_limit_s, progress or _silent)
    return _certify(table, chosen, whole.summaries, whole.noise_floor)


@dataclass(frozen=True)
class _Blocks:
    """All blocks on one scale, and the machine while they were measured."""

    entries: dict[str, Entry]
    call_overhead_ms: float
    noise_floor: float
    drift: float
    elapsed_s: float


@dataclass(frozen=True)
class _Whole:
    """Measured networks, in order, and the machine meanwhile."""

    summaries: list[Summary]
    noise_floor: float
    elapsed_s: float


def _settings(
    space: SearchSpace, target: Target, seed: int, precision: float, time_limit_s: float
) -> dict[str, Any]:
    """Everything that block measurements depend on, as plain JSON values."""
    return {
        "space": space.model_dump(mode="json"),
        "target": target.model_dump(mode="json"),
        "machine": fingerprint().model_dump(mode="json"),
        "version": __version__,
        "seed": seed,
        "precision": precision,
        "time_limit_s": time_limit_s,
    }


def _measure_blocks(
    signatures: Sequence[BlockSignature],
    done: PartialProfile,
    target: Target,
    seed: int,
    precision: float,
    time_limit_s: float,
    partial: Path | None,
    tell: Progress,
) -> None:
    """Measure the blocks that ``done`` lacks and add them to it, chunk by chunk, in random order."""
    measured = done.measured
    rng = np.random.default_rng(seed)
    left = [signatures[i] for i in rng.permutation(len(signatures)) if signatures[i].key not in measured]
    if not left:
        return
    with pinned_threads(target):
        reference = reference_workload(target)
        overhead = prepare_nothing(target)
    for start in range(0, len(left), _BLOCKS_AT_ONCE):
        chunk = left[start : start + _BLOCKS_AT_ONCE]
        begun = (len(signatures) - len(left) + start) / len(signatures)
        inner = _part(tell, begun, begun + len(chunk) / len(signatures))
        inner(0.0, f"compiling {len(chunk)} blocks of {len(signatures)}")
        remaining_s = max(time_limit_s - done.elapsed_s, 0.0) * len(chunk) / (len(left) - start)
        with pinned_threads(target):
            runs = {_OVERHEAD: overhead, **{s.key: prepare_block(s, target, rng) for s in chunk}}
            found = measure_interleaved(
                runs,
                seed=seed + start,
                time_limit_s=max(remaining_s, 0.1),
                precision=precision,
                reference=reference,
                progress=inner,
            )
        done.chunks.append(_chunk(chunk, found))
        done.save(partial)


def _chunk(signatures: Sequence[BlockSignature], found: Measurement) -> BlockChunk:
    assert found.reference_ms is not None
    return BlockChunk(
        reference_ms=found.reference_ms,
        call_overhead_ms=found.summaries[_OVERHEAD].median_ms,
        noise_floor=found.noise_floor,
        drift=found.drift,
        elapsed_s=found.elapsed_s,
        entries={s.key: _entry(s, found.summaries[s.key], found.converged[s.key]) for s in signatures},
    )


def _entry(signature: BlockSignature, summary: Summary, converged: bool) -> Entry:
    return Entry(
        median_ms=summary.median_ms,
        p95_ms=summary.p95_ms,
        p99_ms=summary.p99_ms,
        ci_low_ms=summary.ci_low_ms,
        ci_high_ms=summary.ci_high_ms,
        samples=summary.samples,
        converged=converged,
        macs=signature.macs,
        params=signature.params,
        activation_bytes=activation_bytes(signature),
    )


def _merge(chunks: Sequence[BlockChunk]) -> _Blocks:
    """Put chunks on the scale of the median reference: the clock frequency differs from one to the next."""
    common_ms = float(np.median([chunk.reference_ms for chunk in chunks]))
    entries: dict[str, Entry] = {}
    for chunk in chunks:
        entries.update(chunk.scaled(common_ms / chunk.reference_ms))
    return _Blocks(
        entries,
        call_overhead_ms=float(np.median([chunk.call_overhead_ms for chunk in chunks])),
        noise_floor=float(np.median([chunk.noise_floor for chunk in chunks])),
        drift=max(chunk.drift for chunk in chunks),
        elapsed_s=sum(chunk.elapsed_s for chunk in chunks),
    )


def _measure_networks(
    networks: Sequence[Network],
    target: Target,
    seed: int,
    precision: float,
    time_limit_s: float,
    tell: Progress,
) -> _Whole:
    """Compile and measure whole networks with seeded weights, interleaved all together.

    Together, because a neighbour's memory traffic slows large networks by several per cent for minutes, which
    the small reference workload does not see; more than fit at once are dealt out, so that calibration and
    held-out networks share their hours.
    """
    parts = -(-len(networks) // _NETWORKS_AT_ONCE)
    summaries: dict[int, Summary] = {}
    noise, elapsed_s = [], 0.0
    for part in range(parts):
        indices = range(part, len(networks), parts)
        inner = _part(tell, part / parts, (part + 1) / parts)
        runs = {}
        # Within, because with PyTorch's own threads exporting took six times as long beside other load.
        with pinned_threads(target):
            for position, index in enumerate(indices):
                inner(0.5 * position / len(indices), f"compiling network {index + 1} of {len(networks)}")
                runs[str(index)] = prepare_network(networks[index], target, seed + index)
            found = measure_interleaved(
                runs,
                seed=seed + part,
                time_limit_s=max(time_limit_s / parts, 0.1),
                precision=precision,
                reference=reference_workload(target),
                progress=_part(inner, 0.5, 1.0),
            )
        summaries.update((index, found.summaries[str(index)]) for index in indices)
        noise.append(found.noise_floor)
        elapsed_s += found.elapsed_s
    return _Whole([summaries[i] for i in range(len(networks))], float(np.median(noise)), elapsed_s)


def _certify(
    table: LatencyTable, networks: Sequence[Network], summaries: Sequence[Summary], noise_floor: float
) -> Certificate:
    latency = BlockLatency(table)
    # The short reference workload can slip between disturbances that every long network meets.
    known_to = float(np.median([summary.relative_ci_width / 2 for summary in summaries]))
    return certify(
        [latency.network_ms(network.signatures) for network in networks],
        [summary.median_ms for summary in summaries],
        noise=max(noise_floor, known_to),
    )


def _part(tell: Progress, start: float, end: float) -> Progress:
    """A progress whose 0 to 1 is ``start`` to ``end`` of another one's."""

    def part(share: float, text: str) -> None:
        tell(start + (end - start) * share, text)

    return part


def _silent(share: float, text: str) -> None:
    """Ignore all progress."""
