"""Bundles, ONNX files and torchvision's networks side by side, measured interleaved in one run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nat2deploy.data.load import load_data
from nat2deploy.data.sets import ImageData
from nat2deploy.deploy.contenders import Contender, open_contenders
from nat2deploy.deploy.exit_answers import answers_of, decided
from nat2deploy.deploy.judging import first_classes
from nat2deploy.deploy.process_memory import peak_memory_mb
from nat2deploy.deploy.runner.expected import expected_cost
from nat2deploy.deploy.verify import engines_of
from nat2deploy.engines.staged import StagedEngine
from nat2deploy.errors import UserError
from nat2deploy.intervals import wilson
from nat2deploy.measure.interleave import Progress
from nat2deploy.measure.networks import measure_engines
from nat2deploy.measure.statistics import Summary


@dataclass(frozen=True)
class Top1:
    """Top-1 share of the test split's images with its 95 % Wilson interval."""

    dataset: str
    images: int
    top1: float
    low: float
    high: float


@dataclass(frozen=True)
class EarlyExits:
    """A network that stops when it is sure: who leaves where, and what that makes of its latency in ms.

    ``shares`` are of the images judged in this run, else of those that the manifest says. ``exits_ms`` are
    medians of all that is run up to each exit, in this run; ``expected_ms`` is their mean by the shares, with
    that of the intervals' ends.
    """

    shares: tuple[float, ...]
    exits_ms: tuple[float, ...]
    expected_ms: float
    expected_low_ms: float
    expected_high_ms: float


@dataclass(frozen=True)
class BenchRow:
    """One network's latency for a batch in ms, throughput in images/s, memory, accuracy and size.

    ``ci_*`` and ``throughput_*`` are 95 % intervals of the median and what follows from it, ``p95_*`` and
    ``p99_*`` those of the tail; ``settled`` says whether the median's came within the precision asked for.
    Memory is the peak of a process that runs nothing else, median, least and most of three, in MB.
    ``accuracy`` was measured in this run on the data asked for, else
    it is what the manifest says; None where there is neither. ``macs`` and ``params`` are None where nobody
    counted. Of a network with early exits latency and throughput are those of all stages, the worst case;
    ``early_exits`` has the others, ``accuracy`` is that with them.
    """

    name: str
    median_ms: float
    p95_ms: float
    p99_ms: float
    ci_low_ms: float
    ci_high_ms: float
    samples: int
    p95_low_ms: float
    p95_high_ms: float
    p99_low_ms: float
    p99_high_ms: float
    throughput: float
    throughput_low: float
    throughput_high: float
    settled: bool
    peak_memory_mb: float | None
    peak_memory_low_mb: float | None
    peak_memory_high_mb: float | None
    accuracy: Top1 | None
    macs: int | None
    params: int | None
    early_exits: EarlyExits | None = None


def bench(
    words: Sequence[str],
    *,
    seed: int,
    precision: float = 0.01,
    time_limit_s: float = 30.0,
    threads: int | None = None,
    data: str | None = None,
    progress: Progress | None = None,
) -> list[BenchRow]:
    """Measure bundles, ``.onnx`` files and ``torchvision:NAME@PIXELS`` in one interleaved run, in order.

    Args:
        words: at least one; one that is named twice is measured twice.
        seed: of the input and the visiting orders.
        precision: wanted half width of each 95 % interval as a share of the median.
        time_limit_s: stop measuring latency after this long.
        threads: as of ``open_contenders``.
        data: a spec as of ``load_data``: judge the bundles of its classes on its test split, in the engine.
            Images from folders are stored as large as the bundle's own reference images, which are those
            of its export. Other networks are not judged: nothing says what they take.
        progress: told the share done and a line of text.

    Raises:
        UserError: as ``open_contenders`` and ``load_data``, or no bundle is of the data's classes.
    """
    tell = progress or (lambda share, text: None)
    contenders = dict(zip(_names(words), open_contenders(words, threads=threads, seed=seed), strict=True))
    accuracies = {name: _stated(one) for name, one in contenders.items()}
    shares = {name: one.stages.shares for name, one in contenders.items() if one.stages is not None}
    if data is not None:
        for name, (accuracy, leaving) in _judged(contenders, data, tell).items():
            accuracies[name] = accuracy
            if leaving:
                shares[name] = leaving
    memories = {}
    for name, one in contenders.items():
        tell(0.1, f"memory of {name}")
        memories[name] = peak_memory_mb(one.engine) or (None, None, None)
    parts = {name: engines_of(name, one.engine) for name, one in contenders.items()}
    engines = {(name, part): engine for name, found in parts.items() for part, engine in found.items()}
    measurement = measure_engines(
        {" ".join(key): engine for key, engine in engines.items()},
        seed=seed,
        precision=precision,
        time_limit_s=time_limit_s,
        tail_intervals=True,
        progress=lambda share, text: tell(0.2 + 0.8 * share, text),
    )
    rows = []
    for name, one in contenders.items():
        seen = [measurement.summaries[f"{name} {part}"] for part in parts[name]]
        summary, images = seen[-1], one.engine.input_shape[0]
        memory, least, most = memories[name]
        assert measurement.tail_intervals is not None
        tail = measurement.tail_intervals[f"{name} {list(parts[name])[-1]}"]
        rows.append(
            BenchRow(
                name=name,
                **summary.latency,
                p95_low_ms=tail.p95_ms[0],
                p95_high_ms=tail.p95_ms[1],
                p99_low_ms=tail.p99_ms[0],
                p99_high_ms=tail.p99_ms[1],
                throughput=1e3 * images / summary.median_ms,
                throughput_low=1e3 * images / summary.ci_high_ms,
                throughput_high=1e3 * images / summary.ci_low_ms,
                settled=all(measurement.converged[f"{name} {part}"] for part in parts[name]),
                peak_memory_mb=memory,
                peak_memory_low_mb=least,
                peak_memory_high_mb=most,
                accuracy=accuracies[name],
                macs=None if one.manifest is None else one.manifest.costs.macs,
                params=one.params,
                early_exits=_early_exits(shares[name], seen, images) if name in shares else None,
            )
        )
    return rows


def _early_exits(shares: tuple[float, ...], seen: Sequence[Summary], batch: int) -> EarlyExits:
    middle, low, high = (
        expected_cost(shares, [getattr(one, end) for one in seen], batch)
        for end in ("median_ms", "ci_low_ms", "ci_high_ms")
    )
    return EarlyExits(shares, tuple(one.median_ms for one in seen), middle, low, high)


def _stated(contender: Contender) -> Top1 | None:
    """What the manifest says."""
    stated = None if contender.manifest is None else contender.manifest.evidence.accuracy
    if stated is None:
        return None
    return Top1(stated.dataset, stated.images, stated.top1, *wilson(stated.top1, stated.images))


def _judged(
    contenders: Mapping[str, Contender], spec: str, tell: Progress
) -> dict[str, tuple[Top1, tuple[float, ...]]]:
    """Judge the bundles of the data's classes, each on images of the size that its own reference has."""
    found = {}
    for size in sorted({one.image_size for one in contenders.values() if one.image_size is not None}):
        tell(0.0, f"images of {spec}")
        data = load_data(spec, base_resolution=size)
        for name, one in contenders.items():
            if one.image_size == size and _fits(one, data):
                tell(0.0, f"test accuracy of {name}")
                found[name] = _judge(one, data)
    if not found:
        raise UserError(f"--data {spec}: none of the networks is a bundle of its classes")
    return found


def _fits(contender: Contender, data: ImageData) -> bool:
    return contender.manifest is not None and contender.manifest.output.labels == tuple(data.labels)


def _judge(contender: Contender, data: ImageData) -> tuple[Top1, tuple[float, ...]]:
    """The accuracy on the test split, and with early exits the share of images that leaves at each."""
    assert contender.manifest is not None
    preprocessing, engine, stages = contender.manifest.input.preprocessing, contender.engine, contender.stages
    shares: tuple[float, ...] = ()
    if isinstance(engine, StagedEngine) and stages is not None:
        answers = answers_of(engine, preprocessing, data.test.images)
        classes, shares = decided(
            answers, stages.confidence, [stage.threshold for stage in stages.exits[:-1]]
        )
    else:
        classes = first_classes(engine, preprocessing, data.test.images)
    top1 = float((classes == data.test.targets.cpu().numpy()).mean())
    return Top1(data.name, len(data.test), top1, *wilson(top1, len(data.test))), shares


def _names(words: Sequence[str]) -> list[str]:
    """The last part of each path, the whole path where that is not unique, numbered where that is not."""
    paths = [Path(word) for word in words]
    short = Counter(path.name for path in paths)
    names = [path.name if short[path.name] == 1 and path.name else str(path) for path in paths]
    again = Counter(names)
    seen: Counter[str] = Counter()
    for index, name in enumerate(names):
        if again[name] > 1:
            seen[name] += 1
            names[index] = f"{name} ({seen[name]})"
    return names
