"""The front door of exporting: a network of a run becomes a bundle."""

from __future__ import annotations

from pathlib import Path

from nat2deploy.cost.model import CostModel
from nat2deploy.cost.table import load_table
from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.deploy.export import export_bundle
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.progress import Report, silent
from nat2deploy.run.config import ExportConfig, SearchConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.networks import open_network
from nat2deploy.search.budget import parse_budgets
from nat2deploy.target import Target, fingerprint
from nat2deploy.training.evaluation import judge


def export(run_path: Path, config: ExportConfig, out: Path, report: Report = silent) -> Manifest:
    """Export a network of a run to ``out`` (a folder, or a .zip), with parity and latency evidence.

    Latency is measured here only when the latency table is of this machine.

    Raises:
        UserError: no run or network, ``out`` holds something else, or the engine does not agree with PyTorch.
    """
    search = RunDirectory(run_path).read_config(SearchConfig)
    report("export", 0, 3, "open the network")
    chosen, data = open_network(run_path, config.network)
    architecture = chosen.info.choice
    table = None if search.table is None else load_table(Path(search.table))
    target = Target(backend=config.engine) if table is None else table.target
    costs = CostModel(chosen.info.space, data.classes, table).costs(architecture)
    report("export", 1, 3, "test accuracy")
    test = judge(chosen.network, data, data.test, architecture.resolution)
    here = table is None or table.fingerprint.same_machine(fingerprint())
    report("export", 2, 3, "compile, compare and measure" if here else "compile and compare")
    manifest = export_bundle(
        chosen.network,
        out=out,
        target=target.model_copy(update={"backend": config.engine}),
        preprocessing=Preprocessing(resolution=architecture.resolution, mean=data.mean, std=data.std),
        labels=data.labels,
        network_id=architecture.id,
        architecture=architecture.to_json(),
        space=chosen.info.space.name,
        budgets=parse_budgets(list(search.budgets)),
        costs=costs,
        accuracy=(search.data, test.top1, test.images),
        reference_images=data.validation.subset(min(64, len(data.validation)), search.settings.seed).images,
        seed=search.settings.seed,
        time_limit_s=5.0 if here else None,
    )
    report("export", 3, 3, str(out))
    return manifest
