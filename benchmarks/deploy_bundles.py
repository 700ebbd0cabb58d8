"""Both sides of ``benchmarks/deploy.py`` as bundles, measured in one run an engine."""

from __future__ import annotations

from pathlib import Path

import torch
from deploy_training import Peers, Trained
from fvcore.nn import FlopCountAnalysis
from peers import parameters
from torch import nn

from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.data.sets import ImageData
from nat2deploy.deploy.bench import BenchRow, bench
from nat2deploy.deploy.export import export_bundle
from nat2deploy.deploy.judging import Labelled
from nat2deploy.deploy.making import EngineOptions
from nat2deploy.deploy.manifest import CostSpec
from nat2deploy.errors import UserError
from nat2deploy.files import read_json, sha256, write_json
from nat2deploy.progress import Report
from nat2deploy.run.config import ExportConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.export import export
from nat2deploy.run.networks import open_network
from nat2deploy.target import Target


class Deployment:
    """Exports to ``out/bundles`` and measures."""

    def __init__(self, out: Path, data: ImageData, peers: Peers, seed: int) -> None:
        self.out = out
        self.data = data
        self.peers = peers
        self.seed = seed
        self.refused: list[str] = []
        """What could not be exported, and why."""

    def export(self, trained: list[Trained], engine: str, report: Report) -> list[Path]:
        """Return the bundles of all networks that can be exported for an engine such as ``openvino:fp32``."""
        bundles = []
        for one in trained:
            bundle = self.out / "bundles" / engine.replace(":", "-") / one.name
            report(f"export for {engine}", len(bundles), len(trained), one.name)
            try:
                self._export(one, engine, bundle)
                bundles.append(bundle)
            except UserError as error:
                self.refused.append(f"{one.name}, {engine}: {error}")
        return bundles

    def measure(self, engine: str, bundles: list[Path], seconds: float, report: Report) -> list[BenchRow]:
        """Measure bundles of an engine interleaved; their accuracy is what the export found in the engine."""
        return bench(
            [str(bundle) for bundle in bundles],
            seed=self.seed,
            precision=0.005,
            time_limit_s=seconds,
            progress=lambda share, text: report(f"measure {engine}", share, 1.0, text),
        )

    def _export(self, one: Trained, engine: str, bundle: Path) -> None:
        """Make a network's bundle, unless that of the same weights is there."""
        backend, _, number_format = engine.partition(":")
        precision, _, layers = number_format.partition("-")
        config = ExportConfig(
            network=one.name, engine=backend, precision=precision, int8_layers=layers or "all"
        )
        run = self.out / "run"
        ours = RunDirectory(run).network(one.name) / "network.safetensors"
        stamp = bundle.with_name(f"{one.name}.json")
        key = {"weights": sha256(ours if one.side == "ours" else self.peers.file(one.name))}
        if stamp.exists() and bundle.is_dir() and read_json(stamp, "stamp") == key:
            return
        stamp.unlink(missing_ok=True)
        bundle.parent.mkdir(parents=True, exist_ok=True)
        if one.side == "ours" and not layers:
            export(run, config, bundle)
        else:
            # Layers are measured here, whatever machine the table is of, which `export` does not do.
            module = open_network(run, one.name)[0].network if one.side == "ours" else self.peers.open(one)
            target = Target(device="cpu", backend=backend, precision=precision, threads=1, batch=1)
            self._export_module(module, one, target, config, bundle)
        write_json(stamp, key)

    def _export_module(
        self, module: nn.Module, one: Trained, target: Target, config: ExportConfig, bundle: Path
    ) -> None:
        """As ``export`` does it, with the same options."""
        data = self.data
        export_bundle(
            module,
            out=bundle,
            target=target,
            preprocessing=Preprocessing(resolution=one.resolution, mean=data.mean, std=data.std),
            labels=data.labels,
            network_id=one.name,
            architecture={one.side: one.network},
            space=one.side,
            costs=CostSpec(macs=_macs(module, one.resolution), params=parameters(module)),
            test=Labelled(data.name, data.test.images, data.test.targets),
            validation=Labelled(data.name, data.validation.images, data.validation.targets),
            reference_images=data.validation.subset(min(64, len(data.validation)), self.seed).images,
            calibration_images=data.train.subset(config.calibration_images, self.seed).images,
            seed=self.seed,
            options=EngineOptions(int8_layers=config.int8_layers),
            time_limit_s=None if config.int8_layers == "all" else 1.0,  # nothing else is measured without
        )


def _macs(module: nn.Module, resolution: int) -> int:
    """Of convolutions and linear layers, as ours are counted."""
    count = FlopCountAnalysis(module, torch.zeros(1, 3, resolution, resolution))
    by = count.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    return int(sum(by[kind] for kind in ("conv", "linear")))
