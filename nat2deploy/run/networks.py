"""Networks of a run: taken from its super-network, fine-tuned, and exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from nat2deploy.blocks import SubNetwork
from nat2deploy.data.load import load_data
from nat2deploy.data.sets import ImageData
from nat2deploy.errors import UserError
from nat2deploy.files import parse, read_json, write_json
from nat2deploy.progress import Report, silent
from nat2deploy.run.config import FinetuneConfig, SearchConfig
from nat2deploy.run.cost_source import load_tables, symmetric_int8
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.front import FrontNetwork, load_front
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.supernet.checkpoint import load_supernet
from nat2deploy.supernet.saved_network import NetworkInfo, load_network, save_network
from nat2deploy.training.evaluation import Accuracy, SubNetworkEvaluator
from nat2deploy.training.finetune import finetune as train_further
from nat2deploy.training.loop import LoopSettings
from nat2deploy.training.teacher import CalibratedTeacher


class Judged(BaseModel):
    """An accuracy with its 95 % interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    top1: float
    low: float
    high: float
    images: int

    @classmethod
    def of(cls, accuracy: Accuracy) -> Judged:
        """From a measured accuracy."""
        low, high = accuracy.interval
        return cls(top1=accuracy.top1, low=low, high=high, images=accuracy.images)


class FinetuneReport(BaseModel):
    """``networks/<id>/finetune.json``: validation accuracy before and after, test accuracy once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    version: int
    """The super-network's, whose weights were tuned."""
    config: FinetuneConfig
    validation_before: Judged
    validation_after: Judged
    test: Judged
    kept: bool


@dataclass(frozen=True)
class RunNetwork:
    """A network of a run with what belongs to it."""

    front: FrontNetwork
    network: SubNetwork
    info: NetworkInfo
    folder: Path
    report: FinetuneReport | None


def finetune(run_path: Path, config: FinetuneConfig, report: Report = silent) -> list[FinetuneReport]:
    """Fine-tune the networks of a run that ``config`` names; those done with the same settings are kept.

    Raises:
        UserError: no run or network, or training diverged.
    """
    run = RunDirectory(run_path)
    search = run.read_config(SearchConfig)
    front = load_front(run.front_path)
    chosen = list(front.networks) if config.network == "all" else [front.choose(config.network)]
    if not chosen:
        raise UserError("the front holds no network; search longer or raise a budget")
    with run.locked():
        return [_finetune_one(run, search, network, config, report) for network in chosen]


def _finetune_one(
    run: RunDirectory, search: SearchConfig, chosen: FrontNetwork, config: FinetuneConfig, report: Report
) -> FinetuneReport:
    folder = run.network(chosen.id)
    done = _report(folder)
    config = config.model_copy(update={"network": chosen.id})
    supernet, info = load_supernet(run.supernet_path)
    if done is not None and (done.config, done.version) == (config, info.version):
        return done
    data = _data(run, search)
    architecture = parse_architecture(info.space, chosen.architecture)
    evaluator = _evaluator(search, data, architecture)
    network = evaluator.network(supernet, architecture)
    result = train_further(
        network,
        data,
        LoopSettings(
            epochs=config.epochs,
            learning_rate=config.learning_rate,
            warmup_epochs=min(1.0, config.epochs / 10),
            batch_size=min(config.batch_size, len(data.train)),
            optimiser=config.optimiser,
            weight_decay=config.weight_decay,
            clip=5.0,
            seed=config.seed,
        ),
        architecture.resolution,
        recalibrate=evaluator.recalibrate,
        judged=lambda network, split: evaluator.judge(network, architecture, split),
        teacher=CalibratedTeacher(supernet, data, config.seed, search.settings.exit_weights)
        if config.distil
        else None,
        checkpoint=folder / ".training",
        tag=f"finetune {info.version} {config.model_dump_json()}",
        progress=lambda done, total, loss: report(f"fine-tune {chosen.id}", done, total, f"loss {loss:.3f}"),
    )
    saved = NetworkInfo(
        space=info.space,
        architecture=architecture.to_json(),
        data=data.name,
        labels=data.labels,
        mean=data.mean,
        std=data.std,
    )
    save_network(folder / "network.safetensors", network, saved)
    written = FinetuneReport(
        id=chosen.id,
        version=info.version,
        config=config,
        validation_before=Judged.of(result.before),
        validation_after=Judged.of(result.after),
        test=Judged.of(result.test),
        kept=result.kept,
    )
    write_json(folder / "finetune.json", written.model_dump(mode="json"))
    return written


def open_network(run_path: Path, wanted: str) -> tuple[RunNetwork, ImageData]:
    """Return a network of a run, fine-tuned if it was, else with inherited weights, and the run's data.

    Raises:
        UserError: no run or network.
    """
    run = RunDirectory(run_path)
    search = run.read_config(SearchConfig)
    chosen = _choose(run, wanted)
    folder = run.network(chosen.id)
    data = _data(run, search)
    report = _report(folder)
    if report is not None:
        network, info = load_network(folder / "network.safetensors")
        return RunNetwork(chosen, network, info, folder, report), data
    supernet, held = load_supernet(run.supernet_path)
    architecture = parse_architecture(held.space, chosen.architecture)
    network = _evaluator(search, data, architecture).network(supernet, architecture)
    info = NetworkInfo(
        space=held.space,
        architecture=architecture.to_json(),
        data=data.name,
        labels=data.labels,
        mean=data.mean,
        std=data.std,
    )
    return RunNetwork(chosen, network, info, folder, None), data


def _choose(run: RunDirectory, wanted: str) -> FrontNetwork:
    """As ``Front.choose``, but ``best`` is the best of those that were fine-tuned, if any were."""
    front = load_front(run.front_path)
    if wanted != "best" or front.best is None:
        return front.choose(wanted)

    tuned = {n.id: _report(run.network(n.id)) for n in front.networks if n.feasible}
    validated = {key: report.validation_after.top1 for key, report in tuned.items() if report is not None}
    return front.choose(max(validated, key=lambda key: validated[key])) if validated else front.best


def _data(run: RunDirectory, search: SearchConfig) -> ImageData:
    _, held = load_supernet(run.supernet_path)
    return load_data(search.data, base_resolution=max(held.space.resolutions))


def _evaluator(search: SearchConfig, data: ImageData, architecture: Architecture) -> SubNetworkEvaluator:
    settings = search.settings
    tables = load_tables(search.table, search.tables) if architecture.precision == "int8" else {}
    return SubNetworkEvaluator(
        data,
        seed=settings.seed,
        recalibration_images=settings.recalibration_images,
        validation_images=settings.validation_images,
        symmetric_int8=symmetric_int8(tables),
    )


def _report(folder: Path) -> FinetuneReport | None:
    path = folder / "finetune.json"
    if not path.exists():
        return None
    return parse(FinetuneReport, read_json(path, "fine-tuning report"), f"fine-tuning report {path}")
