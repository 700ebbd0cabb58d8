"""The whole way in one call: profile, train, search, fine-tune, export, verify."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from nat2deploy.cost.table import LatencyTable
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.deploy.verify import Verification, verify_bundle
from nat2deploy.errors import UserError
from nat2deploy.files import parse, read_toml
from nat2deploy.progress import Report, silent
from nat2deploy.run.config import PipelineConfig, SearchConfig, SpaceConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.export import export
from nat2deploy.run.front import Front
from nat2deploy.run.networks import FinetuneReport, finetune
from nat2deploy.run.profile import profile_once
from nat2deploy.run.search import search
from nat2deploy.run.train import train
from nat2deploy.search.budget import parse_budgets
from nat2deploy.supernet.checkpoint import supernet_info


@dataclass(frozen=True)
class Outcome:
    """What the whole way made."""

    out: Path
    table: LatencyTable
    front: Front
    finetuned: list[FinetuneReport]
    manifest: Manifest
    verification: Verification
    bundle: Path


def load_pipeline(path: Path) -> PipelineConfig:
    """Read a pipeline TOML.

    Raises:
        UserError: missing, not TOML, or a key that does not fit.
    """
    return parse(PipelineConfig, read_toml(path, "config"), f"config {path}")


def quickstart_config() -> PipelineConfig:
    """The embedded default: scikit-learn's digits on this machine's CPU."""
    with resources.as_file(resources.files("nat2deploy.run") / "quickstart.toml") as path:
        return load_pipeline(path)


def run_pipeline(config: PipelineConfig, out: Path, report: Report = silent) -> Outcome:
    """Do every stage in the folder ``out``; stages that are done are not done again.

    The folder holds ``config.toml``, ``table.json``, ``supernet.safetensors``, the run in ``search/`` and
    the bundle in ``bundle/``. A killed pipeline goes on where it was.

    Raises:
        UserError: an input that cannot be used, or no network keeps the budgets.
    """
    parse_budgets(list(config.budgets))
    run = RunDirectory(out)
    run.begin(config)
    with run.locked():
        table_path = out / "table.json"
        table = profile_once(
            config.space, config.target, config.profile, table_path, seed=config.seed, report=report
        )
        supernet = out / "supernet.safetensors"
        if config.train.supernet is None:
            train(config.space, config.data, config.train, supernet, seed=config.seed, report=report)
        else:
            supernet = Path(config.train.supernet)
            supernet_info(supernet)
        front = search(
            SearchConfig(
                space=SpaceConfig(name=config.space.name, resolutions=config.space.resolutions),
                supernet=str(supernet),
                data=config.data,
                table=config.profile.table or str(table_path),
                budgets=config.budgets,
                allow_uncertified=config.allow_uncertified,
                settings=config.search.model_copy(update={"seed": config.seed}),
            ),
            out / "search",
            report,
        )
        if front.best is None:
            raise UserError(
                front.note or "no network of the front keeps its budgets when measured; raise one"
            )
        finetuned = finetune(
            out / "search",
            config.export.network,
            config.finetune.model_copy(update={"seed": config.seed}),
            report,
        )
        bundle = out / "bundle"
        manifest = export(out / "search", config.export, bundle, report)
        report("verify", 0, 1, "")
        verification = verify_bundle(bundle, seed=config.seed)
        report("verify", 1, 1, "")
        return Outcome(out, table, front, finetuned, manifest, verification, bundle)
