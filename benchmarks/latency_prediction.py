"""How well are whole networks' latencies predicted: four ways, on the same held-out networks.

    python benchmarks/latency_prediction.py --space nano --resolutions 28,32 --threads 1 --out prediction

* MACs: a line through MACs and measured latency of the calibration networks.
* plain sum: Once-For-All's tables, medians of blocks measured alone, added up.
* kernels and forest: nn-Meter's approach (Zhang et al., MobiSys 2021) on our clock: the fused kernels that a
  runtime makes of a network are measured alone, a random forest a kind of kernel predicts them from shape,
  operations and parameters, and a network is their sum. Every kernel of the space is measured, which is more
  than their sampling gives it. Once more with the engine's call overhead taken off each kernel.
* nat2deploy: the table's calibrated sum.

The table of the space is measured first, with its calibration and held-out networks, then the kernels.
"""

from __future__ import annotations

import argparse
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.stats import kendalltau, spearmanr
from sklearn.ensemble import RandomForestRegressor
from torch import nn

from nat2deploy.blocks import SqueezeExcite, activation
from nat2deploy.cost.fitting import predict_networks
from nat2deploy.cost.latency import BlockMedians
from nat2deploy.cost.table import load_table, save_table
from nat2deploy.engines.base import Borders
from nat2deploy.engines.quantise import random_calibration
from nat2deploy.engines.registry import compile_model
from nat2deploy.files import write_json
from nat2deploy.measure.device import LocalDevice
from nat2deploy.measure.networks import measure_engines
from nat2deploy.measure.plan import CLASS_LADDER, ProfilePlan
from nat2deploy.measure.profiler import profile_space
from nat2deploy.space.lowering import every_signature, total_macs
from nat2deploy.space.search_space import load_space
from nat2deploy.target import make_target

IMAGE_CHANNELS = 3


@dataclass(frozen=True)
class Kernel:
    """One fused kernel: kind, channels, kernel size, stride, activation and input side in pixels."""

    kind: str
    inputs: int
    outputs: int
    size: int
    stride: int
    activation: str
    side: int

    @property
    def features(self):
        """What the forest sees: shape, operations, parameters."""
        groups = self.inputs if self.kind == "depthwise" else 1
        params = self.size**2 * self.inputs * self.outputs / groups
        after = -(-self.side // self.stride)
        acts = {"relu": 1, "hswish": 2}.get(self.activation, 0)
        shape = [self.inputs, self.outputs, self.size, self.stride, self.side, acts]
        return [*shape, params * after**2, params]


class _Gated(nn.Module):
    """A kernel and a constant of its output's shape, added: a convolution with its fused shortcut."""

    def __init__(self, inner, shape):
        super().__init__()
        self.inner = inner
        self.register_buffer("other", torch.ones(shape), persistent=False)

    def forward(self, x):
        return self.inner(x) + self.other


def kernels_of(signature) -> list[Kernel]:
    """The kernels that a runtime fuses a block into."""
    s = signature
    act, side, after = s.activation, s.height, -(-s.height // s.stride)
    if s.kind == "stem":
        return [Kernel("conv", s.in_channels, s.out_channels, s.kernel, s.stride, act, side)]
    if s.kind == "classifier":
        return [Kernel("linear", s.in_channels, s.out_channels, 1, 1, "none", 1)]
    if s.kind == "head":
        return [
            Kernel("conv", s.in_channels, s.mid_channels, 1, 1, act, side),
            Kernel("pool", s.mid_channels, s.mid_channels, 1, 1, "none", side),
            Kernel("conv", s.mid_channels, s.out_channels, 1, 1, act, 1),
        ]
    if s.kind != "mbconv":
        raise SystemExit(f"no kernels are known for blocks of kind {s.kind}; give a space without them")
    found = []
    if s.expands:
        found.append(Kernel("conv", s.in_channels, s.mid_channels, 1, 1, act, side))
    found.append(Kernel("depthwise", s.mid_channels, s.mid_channels, s.kernel, s.stride, act, side))
    if s.se:
        found.append(Kernel("squeeze-excite", s.mid_channels, s.se_channels, 1, 1, "relu", after))
    kind = "conv-add" if s.shortcut else "conv"
    return [*found, Kernel(kind, s.mid_channels, s.out_channels, 1, 1, "none", after)]


def module_of(kernel: Kernel) -> nn.Module:
    k = kernel
    if k.kind == "linear":
        return nn.Sequential(nn.Flatten(1), nn.Linear(k.inputs, k.outputs))
    if k.kind == "pool":
        return nn.AdaptiveAvgPool2d(1)
    if k.kind == "squeeze-excite":
        return SqueezeExcite(k.inputs, k.outputs)
    groups = k.inputs if k.kind == "depthwise" else 1
    conv = nn.Conv2d(k.inputs, k.outputs, k.size, k.stride, k.size // 2, groups=groups)
    if k.kind == "conv-add":
        return _Gated(conv, (1, k.outputs, k.side, k.side))
    return nn.Sequential(conv, activation(k.activation))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="nano")
    parser.add_argument("--resolutions", default="28,32")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--calibration", type=int, default=24)
    parser.add_argument("--held-out", type=int, default=50)
    parser.add_argument("--time-limit", type=float, default=120.0, help="seconds, of the table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder of the table and the figures")
    arguments = parser.parse_args()

    resolutions = tuple(map(int, arguments.resolutions.split(",")))
    space = load_space(arguments.space).restrict(resolutions=resolutions)
    target = make_target("cpu", arguments.backend, arguments.precision, arguments.threads, 1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = f"{arguments.space}-{arguments.backend}-{arguments.precision}-{arguments.threads}"
    path = arguments.out / f"{name}-table.json"
    with Progress() as bars:
        task = bars.add_task("table", total=1.0)
        if path.exists():
            table = load_table(path)
        else:
            table = profile_space(
                ProfilePlan(
                    space,
                    target,
                    seed=arguments.seed,
                    time_limit_s=arguments.time_limit,
                    calibration_networks=arguments.calibration,
                    held_out_networks=arguments.held_out,
                ),
                LocalDevice(target),
                progress=lambda share, text: bars.update(task, completed=share, description=text[:40]),
            )
            save_table(table, path)
        forest, kernels_s = _forest(space, target, arguments, bars)

    fitted = [network for network in table.networks if network.role == "calibration"]
    held_out = [network for network in table.networks if network.role == "held-out"]
    measured = np.array([network.median_ms for network in held_out])
    medians = BlockMedians(table.entries)
    line = np.polyfit([_macs(n, space) for n in fitted], [n.median_ms for n in fitted], 1)
    overhead_ms = table.calibration.call_overhead_ms
    predicted = {
        "MACs": np.polyval(line, [_macs(n, space) for n in held_out]),
        "plain sum": np.array([sum(map(medians.median_ms, n.signatures(space))) for n in held_out]),
        "kernels and forest": np.array([forest(n.signatures(space)) for n in held_out]),
        "the same, overhead off": np.array([forest(n.signatures(space), overhead_ms) for n in held_out]),
        "nat2deploy": predict_networks(table, space, held_out),
    }
    rows = [{"way": way, **_errors(found, measured)} for way, found in predicted.items()]
    shown = Table("way", "mean error", "bias", "within 5 %", "within 10 %", "worst", "Spearman", "Kendall")
    for row in rows:
        shown.add_row(
            row["way"],
            f"{row['mape']:.2%}",
            f"{row['bias']:+.2%}",
            f"{row['within_5pct']:.0%}",
            f"{row['within_10pct']:.0%}",
            f"{row['max_error']:.1%}",
            f"{row['spearman']:.4f}",
            f"{row['kendall']:.3f}",
        )
    console = Console(width=110)
    console.print(shown)
    console.print(
        f"{target}, {len(held_out)} held-out networks of {measured.min():.3f} to {measured.max():.3f} ms, "
        f"noise floor {table.noise_floor:.2%}; table measured in {table.elapsed_s:.0f} s, kernels in "
        f"{kernels_s:.0f} s"
    )
    write_json(
        arguments.out / f"{name}.json",
        {
            "target": target.model_dump(mode="json"),
            "noise_floor": table.noise_floor,
            "table_s": table.elapsed_s,
            "kernels_s": kernels_s,
            "rows": rows,
            "measured_ms": measured.tolist(),
            "predicted_ms": {way: found.tolist() for way, found in predicted.items()},
        },
    )


def _macs(network, space) -> int:
    return total_macs(network.signatures(space))


def _forest(space, target, arguments, bars):
    """Measure every kernel of the space and fit the forests; returns their sum for a network's blocks."""
    every = dict.fromkeys(k for s in every_signature(space, CLASS_LADDER) for k in kernels_of(s))
    engines = {}
    task = bars.add_task("kernels", total=2 * len(every))
    for kernel in every:
        shape = (1, kernel.inputs, kernel.side, kernel.side)
        engines[str(astuple(kernel))] = compile_model(
            module_of(kernel).eval(),
            target,
            shape,
            calibration=random_calibration(target, shape, arguments.seed),
            borders=Borders(input=kernel.inputs != IMAGE_CHANNELS, output=kernel.kind != "linear"),
        )
        bars.advance(task)
    found = measure_engines(
        engines,
        seed=arguments.seed,
        time_limit_s=arguments.time_limit / 2,
        progress=lambda share, _: bars.update(task, completed=(1 + share) * len(every)),
    )
    forests = {}
    for kind in {kernel.kind for kernel in every}:
        own = [kernel for kernel in every if kernel.kind == kind]
        forest = RandomForestRegressor(n_estimators=300, random_state=arguments.seed)
        latencies = [found.summaries[str(astuple(kernel))].median_ms for kernel in own]
        forests[kind] = forest.fit([kernel.features for kernel in own], latencies)
    known = {kernel: float(forests[kernel.kind].predict([kernel.features])[0]) for kernel in every}

    def network_ms(signatures, overhead_ms=0.0) -> float:
        total = 0.0
        for kernel in (kernel for signature in signatures for kernel in kernels_of(signature)):
            if kernel not in known:  # a classifier of another number of classes
                known[kernel] = float(forests[kernel.kind].predict([kernel.features])[0])
            total += known[kernel] - overhead_ms
        return total

    return network_ms, found.elapsed_s


def _errors(predicted, measured) -> dict:
    signed = predicted / measured - 1
    errors = np.abs(signed)
    return {
        "mape": float(errors.mean()),
        "bias": float(signed.mean()),
        "within_5pct": float(np.mean(errors <= 0.05)),
        "within_10pct": float(np.mean(errors <= 0.10)),
        "max_error": float(errors.max()),
        "spearman": float(spearmanr(predicted, measured).statistic),
        "kendall": float(kendalltau(predicted, measured).statistic),
    }


if __name__ == "__main__":
    main()
