"""A run of a space with early exits, made by hand: no search, a made-up latency table."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import tomli_w
import torch
from whole_way import TINY_SPACE

sys.path.insert(0, str(Path(__file__).parents[1] / "cost"))
from cost_tables import make_table

from nat2deploy.cost.model import CostModel
from nat2deploy.cost.table import save_table
from nat2deploy.data.load import load_data
from nat2deploy.run.config import SearchConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.front import Front, FrontNetwork, save_front
from nat2deploy.space.search_space import SearchSpace, load_space
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, save_supernet
from nat2deploy.supernet.network import SuperNetwork

QUICK = {"epochs": 2.0, "batch_size": 64, "learning_rate": 0.05, "distil": False}
"""Settings of a fine-tuning that takes a second or two."""

STAGE = """[[stages]]
channels = 16
stride = 1
se = false
activation = "hswish"
"""


def early_space(folder: Path, exits: str = "one") -> SearchSpace:
    """Three small stages, with an exit behind each."""
    path = folder / "early.toml"
    path.write_text(f'exits = "{exits}"\n{TINY_SPACE.replace("[head]", STAGE + "[head]")}')
    return load_space(str(path))


def make_run(
    folder: Path,
    *,
    budgets: tuple[str, ...] = (),
    exits: str = "one",
    here: bool = False,
    precision: str | None = None,
) -> Path:
    """A run whose front holds the space's networks of two and of three stages; its weights are untrained.

    With ``here`` its table says that it was measured on this machine; with a ``precision`` there are two of
    them, fp32's and int8's, and each network chose it.
    """
    space = early_space(folder, exits)
    torch.manual_seed(0)
    data = load_data("digits", base_resolution=max(space.resolutions))
    run = RunDirectory(folder / "run")
    folder.joinpath("run").mkdir()
    info = SuperNetworkInfo(space=space, width=1.0, classes=10, data="digits", labels=data.labels)
    save_supernet(run.supernet_path, SuperNetwork(space, 1.0, 10), info)
    table = make_table(space)
    if here:
        from nat2deploy.target import fingerprint

        table = table.model_copy(update={"fingerprint": fingerprint()})
    save_table(table, folder / "table.json")
    files = str(folder / "table.json")
    if precision is not None:
        eight = table.model_copy(update={"target": table.target.model_copy(update={"precision": "int8"})})
        save_table(eight, folder / "int8.json")
        files = (files, str(folder / "int8.json"))
        table = eight if precision == "int8" else table
    config = SearchConfig(
        supernet=str(run.supernet_path),
        data="digits",
        table=files,
        budgets=budgets,
        settings={"recalibration_images": 128},
    )
    run.config_path.write_text(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))
    largest = space.largest(16)
    shorter = [largest] if exits == "final" else [type(largest)(16, 1.0, largest.stages[:2]), largest]
    shorter = [replace(one, precision=precision) for one in shorter]
    costs = CostModel(space, 10, table)
    networks = tuple(
        FrontNetwork(
            id=one.id, architecture=one.to_json(), top1=0.1 + 0.1 * i, costs=costs.values(one), feasible=True
        )
        for i, one in enumerate(shorter)
    )
    save_front(
        Front(
            space=space.name,
            data="digits",
            budgets=budgets,
            objectives=("top1", "latency_ms"),
            rounds=1,
            evaluations=2,
            complete=True,
            hypervolume=None,
            networks=networks,
        ),
        run.front_path,
    )
    return run.path
