"""A latency table as a picture: predicted against measured, and what the blocks of each stage cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nat2deploy.cost.fitting import predict_networks
from nat2deploy.cost.latency import BlockMedians
from nat2deploy.cost.table import LatencyTable
from nat2deploy.errors import UserError
from nat2deploy.files import write_atomic
from nat2deploy.space.architecture import Layer
from nat2deploy.space.lowering import layer_signatures, stem_signatures
from nat2deploy.space.search_space import SearchSpace

_BAND = 0.05


def draw_table(table: LatencyTable, space: SearchSpace, path: Path) -> None:
    """Draw a table that holds its measured networks, as the PNG or SVG file ``path``.

    Raises:
        UserError: matplotlib is missing, the file is of another kind, the table is of another space, or it
            holds no networks.
    """
    kind = path.suffix.lower().lstrip(".")
    if kind not in ("png", "svg"):
        raise UserError(f"{path}: a picture is a .png or .svg file; change its ending")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("pictures need matplotlib; run `pip install matplotlib`") from error
    table.check_fingerprint(space)
    if not table.networks:
        raise UserError("the table holds no measured networks; profile it again with this version")
    figure: Any = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _predicted_against_measured(left, table, space)
    _blocks_by_stage(right, table, space)
    figure.suptitle(f"{table.space} on {table.fingerprint.cpu}, {table.target}")
    write_atomic(path, lambda temporary: figure.savefig(temporary, format=kind, dpi=130))


def _predicted_against_measured(axes: Any, table: LatencyTable, space: SearchSpace) -> None:
    ends = [network.median_ms for network in table.networks]
    line = [0.9 * min(ends), 1.1 * max(ends)]
    axes.fill_between(
        line,
        [(1 - _BAND) * x for x in line],
        [(1 + _BAND) * x for x in line],
        color="lightgrey",
        label=f"±{_BAND:.0%}",
    )
    axes.plot(line, line, color="grey", linewidth=0.8)
    for role, marker, colour in (("calibration", "x", "tab:blue"), ("held-out", "o", "tab:orange")):
        chosen = [network for network in table.networks if network.role == role]
        if chosen:
            predicted = predict_networks(table, space, chosen)
            measured = [network.median_ms for network in chosen]
            axes.scatter(measured, predicted, s=18, marker=marker, color=colour, label=f"{role} networks")
    axes.set(xscale="log", yscale="log", xlabel="measured (ms)", ylabel="predicted (ms)")
    if table.certificate is not None:
        axes.set_title(
            f"held out: mean error {table.certificate.mape:.2%}, "
            f"{table.certificate.within_5pct:.0%} within {_BAND:.0%}"
        )
    axes.legend()


def _blocks_by_stage(axes: Any, table: LatencyTable, space: SearchSpace) -> None:
    medians = BlockMedians(table.entries)
    groups: dict[str, list[float]] = {"stem": []}
    for resolution in table.resolutions:
        for width in table.widths:
            for signature in stem_signatures(space, resolution, width):
                groups["stem"].append(medians.median_ms(signature))
            for stage in range(len(space.stages)):
                held = groups.setdefault(f"stage {stage + 1}", [])
                for position in range(min(space.max_depth, 2)):
                    for kernel in space.kernels:
                        for expansion in space.expansions:
                            layer = Layer(kernel, expansion, space.branch_states[-1])
                            blocks = layer_signatures(space, resolution, width, stage, position, layer)
                            held += [medians.median_ms(block) for block in blocks.values()]
    heads = [entry.median_ms for key, entry in table.entries.items() if key.startswith("head")]
    if heads:
        groups["heads"] = heads
    axes.boxplot(list(groups.values()), tick_labels=list(groups), whis=(0, 100))
    axes.set(yscale="log", ylabel="median (ms)", title="blocks measured alone, smallest to largest")
