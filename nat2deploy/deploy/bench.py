"""Bundles and plain ONNX files side by side, measured interleaved in one run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import onnx

from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.engines.base import Engine
from nat2deploy.engines.registry import load_engine
from nat2deploy.errors import UserError
from nat2deploy.measure.interleave import Progress
from nat2deploy.measure.networks import measure_engines
from nat2deploy.target import Target, make_target


@dataclass(frozen=True)
class BenchRow:
    """One network's latency for a batch in ms, throughput in images/s, and what its manifest says.

    ``top1``, ``macs`` and ``params`` are None for a plain ONNX file, ``top1`` also without evidence.
    ``settled`` says whether the 95 % interval came within the precision asked for.
    """

    name: str
    median_ms: float
    p95_ms: float
    p99_ms: float
    ci_low_ms: float
    ci_high_ms: float
    throughput: float
    settled: bool
    top1: float | None
    macs: int | None
    params: int | None


def bench(
    paths: Sequence[Path],
    *,
    seed: int,
    precision: float = 0.01,
    time_limit_s: float = 30.0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[BenchRow]:
    """Measure bundles (folders or zips) and ``.onnx`` files in one interleaved run, in the order given.

    Args:
        paths: at least one; one that is named twice is measured twice.
        seed: of the input and the visiting orders.
        precision: wanted half width of each 95 % interval as a share of the median.
        time_limit_s: stop after this long.
        threads: for all, instead of each bundle's own. Without it, plain files run with the bundles'
            number, or with one thread.
        progress: told the share done and a line of text.

    Raises:
        UserError: no paths, a file that cannot be loaded or was changed, or bundles for different numbers
            of threads.
    """
    if not paths:
        raise UserError("nothing to measure; name bundles or .onnx files")
    engines: dict[str, Engine] = {}
    manifests: dict[str, Manifest | None] = {}
    with ExitStack() as stack:
        bundles = {
            path: stack.enter_context(open_bundle(path))
            for path in set(paths)
            if path.suffix.lower() != ".onnx"
        }
        counts = {bundle.manifest.target.threads for bundle in bundles.values()}
        if threads is None and len(counts) > 1:
            words = ", ".join(map(str, sorted(counts)))
            raise UserError(f"the bundles are for {words} threads; give --threads to measure them together")
        common = threads or (counts.pop() if counts else 1)
        for name, path in zip(_names(paths), paths, strict=True):
            bundle = bundles.get(path)
            if bundle is None:
                manifests[name] = None
                engines[name] = load_engine(path, _target(common, _batch(path)))
            else:
                bundle.check()
                manifests[name] = bundle.manifest
                engines[name] = load_engine(bundle.model, _on_threads(bundle.manifest.target, common))
    measurement = measure_engines(
        engines, seed=seed, precision=precision, time_limit_s=time_limit_s, progress=progress
    )
    rows = []
    for name, engine in engines.items():
        summary, manifest = measurement.summaries[name], manifests[name]
        accuracy = None if manifest is None else manifest.evidence.accuracy
        rows.append(
            BenchRow(
                name=name,
                median_ms=summary.median_ms,
                p95_ms=summary.p95_ms,
                p99_ms=summary.p99_ms,
                ci_low_ms=summary.ci_low_ms,
                ci_high_ms=summary.ci_high_ms,
                throughput=1e3 * engine.input_shape[0] / summary.median_ms,
                settled=measurement.converged[name],
                top1=None if accuracy is None else accuracy.top1,
                macs=None if manifest is None else manifest.costs.macs,
                params=None if manifest is None else manifest.costs.params,
            )
        )
    return rows


def _names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, the whole path where that is not unique, numbered where that is not."""
    short = Counter(path.name for path in paths)
    names = [path.name if short[path.name] == 1 and path.name else str(path) for path in paths]
    again = Counter(names)
    seen: Counter[str] = Counter()
    for index, name in enumerate(names):
        if again[name] > 1:
            seen[name] += 1
            names[index] = f"{name} ({seen[name]})"
    return names


def _target(threads: int, batch: int) -> Target:
    return make_target("cpu", "onnxruntime", "fp32", threads, batch)


def _on_threads(target: Target, threads: int) -> Target:
    return target if target.kind == "cuda" else target.model_copy(update={"threads": threads})


def _batch(path: Path) -> int:
    """The batch of an ONNX file; 1 where it is free or where the engine will say better what is wrong."""
    try:
        model = onnx.load(path, load_external_data=False)
        return max(int(model.graph.input[0].type.tensor_type.shape.dim[0].dim_value), 1)
    except Exception:  # protobuf raises its own class, which changed its place between versions
        return 1
