"""Networks of a run, fine-tuned or with inherited weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nat2deploy.blocks import SubNetwork
from nat2deploy.data.load import load_data
from nat2deploy.data.sets import ImageData, Normalisation
from nat2deploy.run.beginning import check_data, check_labels
from nat2deploy.run.config import SearchConfig
from nat2deploy.run.cost_source import load_tables, symmetric_int8
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.finetune_report import FinetuneReport, read_report
from nat2deploy.run.front import Front, FrontNetwork, current_front
from nat2deploy.run.read_search import read_search
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.supernet.checkpoint import load_supernet, supernet_info
from nat2deploy.supernet.saved_network import NetworkInfo, load_network
from nat2deploy.training.evaluation import SubNetworkEvaluator


@dataclass(frozen=True)
class RunNetwork:
    """A network of a run with what belongs to it."""

    front: FrontNetwork
    network: SubNetwork
    info: NetworkInfo
    folder: Path
    report: FinetuneReport | None


def open_network(run_path: Path, wanted: str) -> tuple[RunNetwork, ImageData]:
    """Return a network of a run, fine-tuned if it was, else with inherited weights, and the run's data.

    A fine-tuned network's data are normalised as those that it was tuned on.

    Raises:
        UserError: no run or network, or data of other classes or images than the run's or the network's.
    """
    run = RunDirectory(run_path)
    search = read_search(run)
    chosen = choose_network(run, wanted)
    folder = run.network(chosen.id)
    data = data_of(run, search)
    report = read_report(folder)
    if report is not None:
        network, info = load_network(folder / "network.safetensors")
        check_labels(run, data, info.labels)
        # A run of an older version cannot tell other images from its own; what was learnt it can.
        data = replace(data, normalisation=Normalisation(info.mean, info.std))
        return RunNetwork(chosen, network, info, folder, report), data
    supernet, held = load_supernet(run.supernet_path)
    architecture = parse_architecture(held.space, chosen.architecture)
    network = evaluator_of(search, data, architecture).network(supernet, architecture)
    info = describe(held.space, architecture, data)
    return RunNetwork(chosen, network, info, folder, None), data


def describe(space: SearchSpace, architecture: Architecture, data: ImageData) -> NetworkInfo:
    """What a file of a network says of it."""
    return NetworkInfo(
        space=space,
        architecture=architecture.to_json(),
        data=data.name,
        labels=data.labels,
        mean=data.mean,
        std=data.std,
    )


def choose_network(run: RunDirectory, wanted: str) -> FrontNetwork:
    """As ``Front.choose``, but ``best`` is the best of those that were fine-tuned, if any were."""
    front = current_front(run.front_path)
    if wanted != "best":
        return front.choose(wanted)
    found = {network.id: read_report(run.network(network.id)) for network in front.networks}
    tuned = {key: report for key, report in found.items() if report is not None}
    return best_tuned(front, tuned) or front.choose(wanted)


def best_tuned(front: Front, tuned: Mapping[str, FinetuneReport]) -> FrontNetwork | None:
    """Return the network that validates best after tuning, of those within the budgets before and after."""
    within = [n for n in front.networks if n.feasible and n.id in tuned and tuned[n.id].feasible]
    return max(within, key=lambda network: tuned[network.id].validation_after.top1, default=None)


def data_of(run: RunDirectory, search: SearchConfig) -> ImageData:
    """The data that a run was searched on.

    Raises:
        UserError: they cannot be read, or have other classes now, or other images than the search saw.
    """
    held = supernet_info(run.supernet_path)
    data = load_data(search.data, base_resolution=max(held.space.resolutions))
    check_data(run, data)
    return data


def evaluator_of(search: SearchConfig, data: ImageData, architecture: Architecture) -> SubNetworkEvaluator:
    """What judged a sub-network of the run."""
    settings = search.settings
    tables = load_tables(search.table, search.tables) if architecture.precision == "int8" else {}
    return SubNetworkEvaluator(
        data,
        seed=settings.seed,
        recalibration_images=settings.recalibration_images,
        validation_images=settings.validation_images,
        symmetric_int8=symmetric_int8(tables),
    )
