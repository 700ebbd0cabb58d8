"""Results as Rich tables, or as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Column, Table

from nat2deploy.cli.console import console, percent, plain_console, print_json
from nat2deploy.cli.render_finetuned import print_finetuned
from nat2deploy.cli.render_stages import expected_row, print_leaving, print_stages
from nat2deploy.cli.render_table import print_table
from nat2deploy.cost.metric_names import at
from nat2deploy.search.budget import budget_word, format_cost

if TYPE_CHECKING:  # each brings half of torch along, which bad input should not wait for
    from nat2deploy.deploy.bench import BenchRow
    from nat2deploy.deploy.manifest import EngineSpec, Manifest, QuantisationSpec
    from nat2deploy.deploy.verify import Verification
    from nat2deploy.engines.status import BackendStatus
    from nat2deploy.measure.backends import BackendChoice
    from nat2deploy.run.evaluate import EvaluatedNetwork
    from nat2deploy.run.front import Front, FrontNetwork, Measured
    from nat2deploy.run.pipeline import Outcome
    from nat2deploy.run.profiles import ShippedProfile
    from nat2deploy.supernet.checkpoint import SuperNetworkInfo
    from nat2deploy.target import Backend, Fingerprint


def print_devices(backends: Sequence[BackendStatus], here: Fingerprint, *, as_json: bool) -> None:
    """Backends and devices, each with its state."""
    if as_json:
        print_json({"machine": here.model_dump(), "backends": [asdict(b) for b in backends]})
        return
    clock = ", ".join(f"{name} {words}" for name, words in here.words().items())
    console.print(f"{here.cpu}, {here.cores} cores, {here.system}, {clock}", soft_wrap=True)
    table = Table("what", "usable", "version", "why", box=None, header_style="bold")
    for backend in backends:
        usable = "yes" if backend.available else "no"
        table.add_row(backend.name, usable, backend.version, backend.reason)
    console.print(table)


def print_profiles(profiles: Sequence[ShippedProfile], *, as_json: bool) -> None:
    """Shipped profiles with their shipped tables."""
    if as_json:
        print_json([{**one.profile.model_dump(), "tables": list(one.tables)} for one in profiles])
        return
    # Names are for copying: they come whole.
    name, tables_of = (Column(title, no_wrap=True) for title in ("profile", "tables"))
    table = Table(name, "target", tables_of, box=None, header_style="bold")
    for one in profiles:
        tables = "\n".join(one.tables) or "no table of ours"
        table.add_row(one.profile.name, str(one.profile.target), tables)
    console.print(table)


def print_backends(choice: BackendChoice, *, as_json: bool) -> None:
    """Which backend is profiled and how much slower the others are; beside JSON on standard error."""
    where = plain_console(stderr=True) if as_json else console
    words = f"backend      {choice.fastest.backend}: {choice.reason}"
    if len(choice.measured) > 1:
        words += "; geometric means of latencies, relative to it:"
    where.print(words, soft_wrap=True)
    for one in choice.measured if len(choice.measured) > 1 else ():
        where.print(f"             {one.target.backend:<12} {one.ratio:.2f}")
    for backend, reason in choice.left_out.items():
        where.print(f"             {backend:<12} not measured: {reason}", soft_wrap=True)


def print_supernet(info: SuperNetworkInfo, path: Path, *, as_json: bool) -> None:
    """What a super-network file holds."""
    if as_json:
        print_json(info.model_dump(mode="json"))
        return
    console.print(f"super-network {path}")
    widths = " and ".join(f"{width:g}" for width in info.widths)
    console.print(f"space    {info.space.name}, width {widths}, resolutions {info.space.resolutions}")
    console.print(f"data     {info.data or 'unknown'}, {info.classes} classes, version {info.version}")
    console.print(f"phases   {', '.join(info.phases) or 'none'}")


def print_evaluated(found: Sequence[EvaluatedNetwork], *, as_json: bool) -> None:
    """Accuracies of a super-network's ends, and of its random sub-networks together."""
    if as_json:
        print_json([asdict(network) for network in found])
        return
    table = Table("sub-network", "top-1", "MACs", "params", "architecture", box=None, header_style="bold")
    for network in found:
        if network.role != "random":
            table.add_row(
                network.role,
                percent(network.top1),
                format_cost("macs", network.macs),
                format_cost("params", network.params),
                network.architecture,
            )
    console.print(table)
    drawn = sorted(network.top1 for network in found if network.role == "random")
    mean = sum(drawn) / len(drawn)
    console.print(
        f"{len(drawn)} random: mean {percent(mean)}, from {percent(drawn[0])} to {percent(drawn[-1])} "
        f"on {found[0].images} images"
    )


_WIDEST = 1000


def print_front(front: Front, out: Path, *, as_json: bool) -> None:
    """The front, with predicted and measured latency."""
    if as_json:
        print_json(front.model_dump(mode="json"))
        return
    table = _front_table(front)
    # Wider than a terminal, lines go on below: columns that are cut off would be lost.
    wanted = console.measure(table, options=console.options.update(max_width=_WIDEST)).maximum
    table.width = wanted if wanted > console.width else None
    console.print(table, crop=False)
    for line in _front_words(front):
        console.print(line)
    console.print(f"run {out}: front.json, archive.jsonl ({front.evaluations} evaluations)")


def _front_table(front: Front) -> Table:
    targets = _targets(front)
    measured = [name for name in targets if any(_measured(n, name) for n in front.networks)]
    shown = ("latency_ms", "macs", "params", "top1")
    others = [metric for metric in front.objectives if metric.partition("@")[0] not in shown]
    chosen = any(network.precision for network in front.networks)
    columns = ["network", *(["precision"] if chosen else []), "top-1"]
    for name in targets:
        columns += [f"{name}\npredicted".strip(), *(["measured"] if name in measured or not name else [])]
    columns += [*map(budget_word, others), "MACs", "params"]
    several_widths = len({network.architecture.get("w") for network in front.networks}) > 1
    budgets = ", ".join(front.budgets) or "none"
    table = Table(title=f"front on {front.data} (budgets: {budgets})", box=None, header_style="bold")
    for column in columns:
        table.add_column(
            column, justify="left" if column in ("network", "precision") else "right", no_wrap=True
        )
    table.add_column("px", justify="right")
    if several_widths:
        table.add_column("width", justify="right")
    table.add_column("")
    for network in front.networks:
        cells = []
        for name in targets:
            cells.append(format_cost("latency_ms", network.costs[_latency_on(name)]))
            seen = _measured(network, name)
            if seen is not None:
                cells.append(format_cost("latency_ms", seen.median_ms))
            elif name in measured or not name:
                cells.append("-")
        best = front.best is not None and network.id == front.best.id
        mark = "best" if best else "knee" if network.high_tradeoff else ""
        table.add_row(
            network.id,
            *([network.precision or ""] if chosen else []),
            percent(network.top1),
            *cells,
            *(format_cost(metric, network.costs[metric]) for metric in (*others, "macs", "params")),
            str(network.architecture["r"]),
            *([f"{network.architecture['w']:g}"] if several_widths else []),
            mark if network.feasible else "over budget when measured",
        )
    return table


def _front_words(front: Front) -> list[str]:
    words = [front.note] if front.note else []
    for name in _targets(front):
        metric = _latency_on(name)
        pairs = [
            (n.costs[metric], seen.median_ms)
            for n in front.networks
            if (seen := _measured(n, name)) is not None
        ]
        if pairs:
            errors = [predicted / measured - 1.0 for predicted, measured in pairs]
            mean = sum(map(abs, errors)) / len(errors)
            words.append(
                f"predicted against measured latency{f' on {name}' if name else ''}: mean error {mean:.2%}, "
                f"worst {max(errors, key=abs):+.2%} over {len(errors)} networks"
            )
    return words


def _targets(front: Front) -> list[str]:
    """The targets with a latency, by name; an empty name where there is one without."""
    metrics = front.networks[0].costs if front.networks else {}
    return [m.partition("@")[2] for m in metrics if m.partition("@")[0] == "latency_ms"]


def _latency_on(target: str) -> str:
    return at("latency_ms", target) if target else "latency_ms"


def _measured(network: FrontNetwork, target: str) -> Measured | None:
    return network.measured_on.get(target) if target else network.measured


def print_manifest(manifest: Manifest, out: Path, *, as_json: bool) -> None:
    """What a bundle holds."""
    if as_json:
        print_json(manifest.model_dump(mode="json"))
        return
    from nat2deploy.deploy.bundle import is_zip_name, open_bundle

    parity, accuracy = manifest.evidence.parity, manifest.evidence.accuracy
    with open_bundle(out) as bundle:
        measured = bundle.evidence()
    console.print(f"bundle   {out}: network {manifest.network}, {manifest.target}")
    console.print(
        f"parity   max difference {parity.max_difference:.2g}, top-1 agreement "
        f"{percent(parity.top1_agreement)} on {parity.images} images"
    )
    if accuracy is not None:
        beside = "" if accuracy.float_top1 is None else f", PyTorch {percent(accuracy.float_top1)}"
        console.print(f"test     {percent(accuracy.top1)} on {accuracy.images} images{beside}")
    if manifest.quantisation is not None:
        _print_float_layers(manifest.quantisation)
    if manifest.engine is not None and manifest.engine.recipe is not None:
        console.print(f"engine   {_plans(manifest.target.backend, manifest.engine)}")
    if manifest.evidence.device != "verified":
        from nat2deploy.engines.registry import absent

        why = absent(manifest.target)
        found = f"{manifest.evidence.device}: {f'{why}; ' if why else ''}{manifest.evidence.engine}"
        console.print(f"device   {found}")
    if manifest.stages is not None:
        print_stages(manifest.stages, [one.stages for one in measured])
    for latency in (one.latency for one in measured):
        predicted = manifest.costs.latency_ms
        words = "" if predicted is None else f", predicted {predicted:.3f} ms"
        words += "" if manifest.stages is None else ", all stages"
        console.print(f"latency  {latency.median_ms:.3f} ms (p95 {latency.p95_ms:.3f}){words}")
    program = shlex.quote(f"{out}/run.py")
    where = "unpack it, then python run.py IMAGE.png" if is_zip_name(out) else f"python {program} IMAGE.png"
    console.print(f"try      {where}")


def _print_float_layers(made: QuantisationSpec) -> None:
    for why, names in (("accuracy", made.float_layers), ("latency", made.slower_layers)):
        if names and len(names) == made.layers:
            console.print(f"in float all {made.layers} layers, for {why}")
        elif names:
            console.print(f"in float for {why}: {', '.join(names)}")


def _plans(backend: Backend, engine: EngineSpec) -> str:
    from nat2deploy.engines.tensorrt_plan import INSTALL

    if engine.plans:
        every = ", ".join(str(number) for plan in engine.plans for number in plan.compute_capabilities)
        return f"{backend} {engine.version}, compiled for compute capability {every}; others: {engine.recipe}"
    why = f"{backend} is not installed here; run `{INSTALL[backend]}`; " if not engine.version else ""
    return f"{why}none compiled ahead; the bundle's {engine.recipe} builds it on the device"


def print_verification(verification: Verification, *, as_json: bool) -> None:
    """The checks of a bundle."""
    if as_json:
        print_json(asdict(verification))
        return
    table = Table("check", "", "finding", box=None, header_style="bold")
    for check in verification.checks:
        table.add_row(check.name, "ok" if check.ok else "FAILED", check.text)
    console.print(table)


def print_bench(rows: Sequence[BenchRow], *, as_json: bool) -> None:
    """Latencies side by side."""
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    name = Column("network", overflow="fold")
    times_of = (Column(title, no_wrap=True) for title in ("p50 ms", "p95 ms", "p99 ms", "images/s"))
    times = Table(name, *times_of, box=None, header_style="bold", title="latency, with 95 % intervals below")
    times.title_justify = "left"
    rest_columns = (Column(title, no_wrap=True) for title in ("peak MB", "top-1", "on", "MACs", "params"))
    rest = Table(
        name.copy(),
        *rest_columns,
        box=None,
        header_style="bold",
        title="memory, of 3 measurements; top-1, with its 95 % interval",
        title_justify="left",
    )
    for row in rows:
        if row.early_exits is not None:
            times.add_row(*expected_row(row))
        times.add_row(
            row.name
            + ("" if row.early_exits is None else ", all stages")
            + ("" if row.settled else " (not settled)"),
            f"{row.median_ms:.3f}\n{row.ci_low_ms:.3f}-{row.ci_high_ms:.3f}",
            f"{row.p95_ms:.3f}\n{row.p95_low_ms:.3f}-{row.p95_high_ms:.3f}",
            f"{row.p99_ms:.3f}\n{row.p99_low_ms:.3f}-{row.p99_high_ms:.3f}",
            f"{row.throughput:.0f}\n{row.throughput_low:.0f}-{row.throughput_high:.0f}",
        )
        memory, accuracy = row.peak_memory_mb, row.accuracy
        rest.add_row(
            row.name,
            "-"
            if memory is None
            else f"{memory:.1f}\n{row.peak_memory_low_mb:.1f}-{row.peak_memory_high_mb:.1f}",
            "-"
            if accuracy is None
            else f"{percent(accuracy.top1)}\n{100 * accuracy.low:.2f}-{100 * accuracy.high:.2f}",
            "-" if accuracy is None else accuracy.dataset,
            "-" if row.macs is None else format_cost("macs", row.macs),
            "-" if row.params is None else format_cost("params", row.params),
        )
    console.print(times)
    print_leaving(rows)
    console.print()
    console.print(rest)


def print_outcome(outcome: Outcome, *, as_json: bool) -> None:
    """Everything that the whole way made."""
    if as_json:
        print_json(
            {
                "out": str(outcome.out),
                "certificate": None
                if outcome.table.certificate is None
                else outcome.table.certificate.model_dump(mode="json"),
                "front": outcome.front.model_dump(mode="json"),
                "finetuned": [report.model_dump(mode="json") for report in outcome.finetuned],
                "bundle": str(outcome.bundle),
                "manifest": outcome.manifest.model_dump(mode="json"),
                "verification": asdict(outcome.verification),
                "missed": [asdict(one) for one in outcome.missed],
                "left_out": [asdict(one) for one in outcome.left_out],
                "report": str(outcome.report),
            }
        )
        return
    print_table(outcome.table, as_json=False)
    console.print()
    print_front(outcome.front, outcome.out / "search", as_json=False)
    console.print()
    print_finetuned(outcome.finetuned, as_json=False)
    console.print()
    print_manifest(outcome.manifest, outcome.bundle, as_json=False)
    print_verification(outcome.verification, as_json=False)
    for one in outcome.missed:
        text = f"network {one.network} was exported before, and measured over {'; '.join(one.checks)}"
        console.print(text, soft_wrap=True)
    for left in outcome.left_out:
        text = f"network {left.network} was left out: {left.why}"
        console.print(text, soft_wrap=True)
    console.print(f"report {outcome.report}", soft_wrap=True)
