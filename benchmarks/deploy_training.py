"""Both sides of ``benchmarks/deploy.py`` trained: peers from random weights, ours by ``finetune``."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from peers import LEARNING_RATES, new_peer, peer_settings, step_seconds
from torch import nn

from nat2deploy.data.sets import ImageData
from nat2deploy.errors import UserError
from nat2deploy.files import read_json, write_json, write_text
from nat2deploy.progress import Report
from nat2deploy.run.config import SearchConfig
from nat2deploy.run.cost_source import load_tables
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.finetune import finetune
from nat2deploy.run.finetune_config import FinetuneConfig
from nat2deploy.run.front import FrontNetwork, load_front
from nat2deploy.run.networks import open_network
from nat2deploy.run.read_search import read_search
from nat2deploy.run.search import search
from nat2deploy.search.settings import SearchSettings
from nat2deploy.supernet.checkpoint import load_state, load_supernet, load_tensors, save_tensors
from nat2deploy.training.evaluation import SubNetworkEvaluator
from nat2deploy.training.finetune import train_network
from nat2deploy.training.teacher import CalibratedTeacher

SEARCH = SearchSettings(
    archive_size=30,
    candidates=6,
    rounds=2,
    population=24,
    generations=5,
    surrogates=("bayesian-ridge",),
    top=10,
    adapt_epochs=0.05,
    recalibration_images=1000,
    validation_images=1000,
)
"""Of the search that is done where no run is given: a short one."""


@dataclass(frozen=True)
class Trained:
    """A network of either side, trained.

    ``minutes`` are of processor time; None where an earlier call was killed on the way.
    """

    name: str
    side: str
    network: str
    resolution: int
    epochs: float
    minutes: float | None


class Budget:
    """How many epochs each network gets: as many for all, or as many as fit into the same minutes.

    A step's time is taken once, by turns over all networks in two rounds, as processor time, so that what
    else the machine does falls on all alike; it is kept in ``speed.json``.
    """

    def __init__(self, path: Path, data: ImageData, batch_size: int) -> None:
        self.path = path
        self.steps = len(data.train) // batch_size
        held = read_json(path, "training speeds") if path.exists() else {}
        same = held.get("batch_size") == batch_size and held.get("data") == data.name
        self.seconds: dict[str, float] = held["seconds"] if same else {}
        self.key = {"batch_size": batch_size, "data": data.name}

    def measure(self, networks: dict[str, Any], report: Report) -> None:
        """Take the time of a step of each network that has none; ``networks`` gives (module, options)."""
        new = {name: make for name, make in networks.items() if name not in self.seconds}
        rounds: dict[str, list[float]] = {name: [] for name in new}
        for turn in range(2):
            for index, (name, make) in enumerate(new.items()):
                report("speed of training", turn * len(new) + index, 2 * len(new), name)
                module, options = make()
                rounds[name].append(step_seconds(module, steps=8, clock=time.process_time, **options))
        if new:
            self.seconds.update({name: min(found) for name, found in rounds.items()})
            write_json(self.path, {**self.key, "seconds": self.seconds})

    def epochs(self, name: str, minutes: float) -> float:
        """As many as fit into minutes of processor time; a hundredth at least."""
        return max(0.01, round(60 * minutes / (self.seconds[name] * self.steps), 2))


def own_run(given: Path | None, out: Path, config: SearchConfig, report: Report) -> tuple[Path, float | None]:
    """The run that ours come from, in ``out``: a copy of a given one, or searched here.

    Returns it, and the minutes that its search took, where that is known.
    """
    run = out / "run"
    if given is None:
        with spent(out / "minutes.json", "search"):
            search(config, run, report)
        return run, minutes_of(out / "minutes.json", "search")
    front = load_front(RunDirectory(given).front_path)
    if run.exists() and load_front(RunDirectory(run).front_path) != front:
        raise UserError(f"{out} was begun with another run than {given}; choose another --out")
    if not run.exists():  # the given one is left as it is
        held = read_search(RunDirectory(given))
        if isinstance(held.table, str) and Path(held.table).exists():  # the copy lies elsewhere
            held = held.model_copy(update={"table": str(Path(held.table).absolute())})
        load_tables(held.table, held.tables)  # now, not after training
        with tempfile.TemporaryDirectory(dir=out, prefix=".run-") as folder:
            copy = Path(folder) / "run"
            shutil.copytree(given, copy, ignore=shutil.ignore_patterns("networks", ".lock"))
            write_text(
                RunDirectory(copy).config_path, tomli_w.dumps(held.model_dump(mode="json", exclude_none=True))
            )
            copy.rename(run)
    timings = given.parent / "timings.json"
    seconds = read_json(timings, "timings").get("search") if timings.exists() else None
    return run, None if seconds is None else seconds / 60


def spaced(networks: list[FrontNetwork], count: int) -> list[FrontNetwork]:
    """So many networks of a front, evenly apart in the logarithm of their latency, its ends included.

    Raises:
        UserError: there are none.
    """
    if not networks:
        raise UserError(
            "the run's front holds no network within the budgets; search longer or raise a budget"
        )
    metric = next((name for name in networks[0].costs if name.startswith("latency_ms")), "macs")
    ordered = sorted(networks, key=lambda one: one.costs[metric])
    costs = np.log([one.costs[metric] for one in ordered])
    wanted = np.linspace(costs[0], costs[-1], min(count, len(ordered)))
    left = list(range(len(ordered)))
    for at in wanted:
        nearest = min(left, key=lambda index: abs(costs[index] - at))
        left.remove(nearest)
    return [one for index, one in enumerate(ordered) if index not in left]


class Peers:
    """torchvision's networks, trained in ``folder`` at one resolution in pixels."""

    def __init__(self, folder: Path, data: ImageData, resolution: int, batch_size: int, seed: int) -> None:
        self.folder = folder
        self.data = data
        self.resolution = resolution
        self.batch_size = batch_size
        self.seed = seed
        self.evaluator = SubNetworkEvaluator(data, seed=seed)

    def trial(self, network: str) -> tuple[nn.Module, dict[str, Any]]:
        """A network, and what ``step_seconds`` is told of it."""
        options = {"data": self.data, "resolution": self.resolution, "batch_size": self.batch_size}
        return new_peer(network, self.data.classes, self.seed), options

    def train(self, network: str, side: str, name: str, epochs: float, report: Report) -> Trained:
        """Train a network, go on with it, or take what was trained with the same settings."""
        rate = LEARNING_RATES[network] * self.batch_size / 128
        settings = peer_settings(epochs, rate, seed=self.seed, batch_size=self.batch_size)
        tag = f"{network} {self.resolution} px {settings} {self.data.name}"
        path, times = self.file(name), self.folder / "minutes.json"
        if not (path.exists() and load_tensors(path, "peer")[1] == tag):
            module = new_peer(network, self.data.classes, self.seed)
            with spent(times, f"{name}: {tag}"):
                train_network(
                    module,
                    self.data,
                    settings,
                    self.resolution,
                    checkpoint=self.folder / f".{name}.checkpoint",
                    tag=tag,
                    progress=lambda done, total, loss: report(
                        f"train {name}", done, total, f"{epochs:g} epochs, loss {loss:.3f}"
                    ),
                )
                self.evaluator.recalibrate(module, self.resolution)  # as fine-tuning does with ours
            save_tensors(path, module.state_dict(), tag)
        return Trained(name, side, network, self.resolution, epochs, minutes_of(times, f"{name}: {tag}"))

    def open(self, trained: Trained) -> nn.Module:
        """A trained network, in evaluation mode."""
        module = new_peer(trained.network, self.data.classes, self.seed)
        path = self.file(trained.name)
        load_state(module, load_tensors(path, "peer")[0], f"peer {path}")
        return module.eval()

    def file(self, name: str) -> Path:
        """Where a peer's weights are."""
        return self.folder / f"{name}.safetensors"


class Ours:
    """Networks of a run, tuned by ``finetune`` with the settings of ``config``."""

    def __init__(self, run: Path, data: ImageData, config: FinetuneConfig, times: Path) -> None:
        self.run = run
        self.data = data
        self.config = config
        self.times = times
        search_config = RunDirectory(run).read_config(SearchConfig)
        if search_config.data != data.name:
            raise UserError(f"run {run} is of {search_config.data}, not of {data.name}; give --data")
        self.order = search_config.settings.exit_weights

    def trial(self, network: FrontNetwork) -> tuple[nn.Module, dict[str, Any]]:
        """As ``Peers.trial``; a teacher's time counts."""
        chosen, _ = open_network(self.run, network.id)
        teacher = None
        if self.config.distil:
            supernet, _ = load_supernet(RunDirectory(self.run).supernet_path)
            teacher = CalibratedTeacher(
                supernet, self.data, self.config.seed, self.order, epochs=self.config.epochs
            )
        options = {
            "data": self.data,
            "resolution": chosen.info.choice.resolution,
            "batch_size": self.config.batch_size,
            "teacher": teacher,
        }
        return chosen.network, options

    def train(self, network: FrontNetwork, epochs: float, report: Report) -> Trained:
        """Tune a network, go on with it, or take what was tuned with the same settings."""
        config = self.config.model_copy(update={"network": network.id, "epochs": epochs})
        what = f"{network.id}: {config.model_dump_json()}"
        if not _is_tuned(self.run, config):
            with spent(self.times, what):
                finetune(self.run, config, report)
        resolution = int(network.architecture["r"])
        return Trained(network.id, "ours", network.id, resolution, epochs, minutes_of(self.times, what))


def _is_tuned(run: Path, config: FinetuneConfig) -> bool:
    path = RunDirectory(run).network(config.network) / "finetune.json"
    return path.exists() and read_json(path, "report")["config"] == config.model_dump(mode="json")


@contextmanager
def spent(path: Path, what: str) -> Iterator[None]:
    """Add the minutes of processor time that something takes to a file; unknown once it was killed."""
    held = read_json(path, "minutes") if path.exists() else {}
    before = held.get(what, {"minutes": 0.0, "known": True})
    write_json(path, {**held, what: {**before, "known": False}})
    began = time.process_time()
    try:
        yield
    finally:
        minutes = before["minutes"] + (time.process_time() - began) / 60
        write_json(path, {**held, what: {"minutes": minutes, "known": before["known"]}})


def minutes_of(path: Path, what: str) -> float | None:
    """What ``spent`` wrote; None where it was never whole."""
    found = read_json(path, "minutes").get(what) if path.exists() else None
    return found["minutes"] if found and found["known"] else None
