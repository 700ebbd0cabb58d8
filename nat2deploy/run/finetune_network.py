"""Fine-tuning one network of a run: from its super-network to ``networks/<id>/``."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, Literal

from nat2deploy.cost.metric_names import metric_on
from nat2deploy.cost.table import LatencyTable
from nat2deploy.data.sets import ImageData
from nat2deploy.files import read_json, write_json
from nat2deploy.progress import Report
from nat2deploy.run.config import SearchConfig
from nat2deploy.run.cost_source import load_tables, table_of
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.exit_costs import ExitCosts, measure_states
from nat2deploy.run.exit_pruning import Pruning
from nat2deploy.run.finetune_config import FinetuneConfig
from nat2deploy.run.finetune_report import FinetuneReport, Judged, read_report
from nat2deploy.run.front import FrontNetwork, Measured
from nat2deploy.run.measure_front import is_here
from nat2deploy.run.networks import data_of, describe, evaluator_of
from nat2deploy.search.budget import budgets_on, feasible, parse_budgets
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, load_supernet, supernet_info
from nat2deploy.supernet.saved_network import save_network
from nat2deploy.training.aep import JointWeights, exit_weights_by
from nat2deploy.training.exits import (
    Exits,
    network_with_exits,
    space_with_exits,
    with_earlier_exits,
    with_exits,
)
from nat2deploy.training.finetune import FineTuned
from nat2deploy.training.finetune import finetune as train_further
from nat2deploy.training.loop import LoopSettings
from nat2deploy.training.phases import Recipe, checkpoints
from nat2deploy.training.teacher import CalibratedTeacher

_LATENCIES = "exit_latencies.json"


class NetworkTuning:
    """What it takes to fine-tune one network of a run's front.

    Raises:
        UserError: a cost that budgets or pruning ask for is not known of the network's exits.
    """

    def __init__(
        self, run: RunDirectory, search: SearchConfig, chosen: FrontNetwork, config: FinetuneConfig
    ) -> None:
        self.run = run
        self.search = search
        self.config = config.of(chosen.id)
        self.folder = run.network(chosen.id)
        self.info: SuperNetworkInfo = supernet_info(run.supernet_path)
        self.budgets = budgets_on(parse_budgets(list(search.budgets)), tuple(search.tables))
        self.given = parse_architecture(self.info.space, chosen.architecture)
        held = load_tables(search.table, search.tables)
        self.tables = {name: table_of(tables, self.given.precision) for name, tables in held.items()}
        aep = self.config.method == "aep"
        self.space = space_with_exits(self.info.space) if aep else self.info.space
        self.architecture = with_earlier_exits(self.given) if aep else self.given
        by = self.config.prune if aep else ("none",)
        self.prune_by = tuple(
            word if word in ("none", "accuracy") else metric_on(word, tuple(search.tables)) for word in by
        )

    @property
    def done(self) -> FinetuneReport | None:
        """The report of an earlier fine-tuning with the same settings and weights."""
        held = read_report(self.folder)
        same = held is not None and (held.config, held.version) == (self.config, self.info.version)
        return held if same else None

    def clear(self) -> None:
        """Remove the checkpoints of the tuning that is done, not those of one that was begun later."""
        written = (self.folder / "finetune.json").stat().st_mtime_ns
        for path in checkpoints(self.folder):
            if path.exists() and path.stat().st_mtime_ns <= written:
                path.unlink()

    def prepare(self, report: Report) -> None:
        """Measure the exits' states where that was asked for; nothing else may compute meanwhile.

        Raises:
            UserError: a cost that budgets or pruning ask for is not known.
        """
        if self._measures and self._held() is None:
            seen = measure_states(
                self.space,
                self.architecture,
                self.info.classes,
                self._here,
                self.search.settings.seed,
                report,
            )
            states = [
                [list(exits), {name: one.model_dump() for name, one in found.items()}]
                for exits, found in seen.items()
            ]
            write_json(self.folder / _LATENCIES, {**self._measured_what, "states": states})
        if self.config.method == "aep":
            metrics = () if self.prune_by in (("none",), ("accuracy",)) else self.prune_by
            self._costs().check(metrics, self.budgets)

    def finetune(self, device: str, report: Report) -> FinetuneReport:
        """Fine-tune the network, or go on with it; writes its files and returns the report.

        Raises:
            UserError: training diverged, or a file that cannot be read.
        """
        supernet, _ = load_supernet(self.run.supernet_path)
        data = data_of(self.run, self.search)
        evaluator = evaluator_of(self.search, data, self.given)
        network = evaluator.network(supernet, self.given)
        start = network
        if self.config.method == "aep":
            start = network_with_exits(supernet, self.given, self.config.seed)
            evaluator.recalibrate(start, self.given.resolution)
        teacher = None
        if self.config.distil:
            order = self.search.settings.exit_weights
            epochs = self.config.epochs if self.config.phases == 1 else math.ceil(self.config.epochs)
            teacher = CalibratedTeacher(supernet, data, self.config.seed, order, epochs=epochs).to(device)
        pruning = Pruning(self._costs(), self.budgets, self.prune_by, self.config.prune_tolerance)
        result = train_further(
            network.to(device),
            data,
            self._recipe(data, device),
            start=start,
            space=self.space,
            architecture=self.architecture,
            choose=pruning.choose,
            recalibrate=evaluator.recalibrate,
            folder=self.folder,
            forms=lambda module: evaluator.in_precision(module, self.given),
            teacher=teacher,
            tag=f"finetune {self.info.version} {self.config.model_dump_json()}",
            progress=lambda phase, done, total, loss: report(
                f"fine-tune {self.given.id}{'' if self.config.phases == 1 else f', phase {phase}'}",
                done,
                total,
                f"loss {loss:.3f}",
            ),
        )
        return self._write(result, data, pruning)

    def _write(self, result: FineTuned, data: ImageData, pruning: Pruning) -> FinetuneReport:
        exits = result.tuned.exits if result.kept else self.given.exits
        space = self.space if result.kept else self.info.space
        architecture = with_exits(self.architecture, exits) if result.kept else self.given
        result.network.cpu()
        tuned = self.folder / "tuned.safetensors"
        save_network(tuned, result.network, describe(space, architecture, data))
        # Whatever happens in between, no weights lie beside the report of others.
        (self.folder / "finetune.json").unlink(missing_ok=True)
        tuned.replace(self.folder / "network.safetensors")
        costs = pruning.costs.values(exits)
        report = FinetuneReport(
            id=self.given.id,
            version=self.info.version,
            config=self.config,
            validation_before=Judged.of(result.before),
            validation_after=Judged.of(result.after),
            test=Judged.of(result.test),
            kept=result.kept,
            architecture=architecture.to_json(),
            exit_weights=tuple(result.network.exit_weights.tolist()),
            epochs=result.tuned.epochs,
            curve=result.tuned.curve,
            history=result.tuned.history,
            costs=costs,
            feasible=feasible(self.budgets, {"top1": result.after.top1, **costs}),
            states=pruning.states(result.tuned.judged, exits if result.kept else ())
            if len(self.architecture.exits) > 1
            else (),
        )
        write_json(self.folder / "finetune.json", report.model_dump(mode="json"))
        for path in checkpoints(self.folder):
            path.unlink(missing_ok=True)
        return report

    def _recipe(self, data: ImageData, device: str) -> Recipe:
        config = self.config
        warmup = config.warmup_epochs
        return Recipe(
            LoopSettings(
                epochs=config.epochs,
                learning_rate=config.learning_rate,
                final_rate=config.final_rate,
                warmup_epochs=min(1.0, config.epochs / 10) if warmup is None else warmup,
                batch_size=min(config.batch_size, len(data.train)),
                optimiser=self._optimiser,
                weight_decay=config.weight_decay,
                clip=config.clip or None,
                seed=config.seed,
                device=device,
            ),
            self._weights,
            config.phases,
            config.patience,
            config.label_smoothing,
            config.validate_each_epoch,
        )

    @property
    def _weights(self) -> JointWeights:
        count = len(self.architecture.exits)
        if self.config.method == "aep":
            return exit_weights_by(self.config.exit_weights, count)
        return exit_weights_by("unif", count)  # as several exits are searched

    @property
    def _optimiser(self) -> Literal["sgd", "adamw"]:
        wanted = self.config.optimiser
        if wanted != "by-exits":
            return wanted
        return "sgd" if self.info.space.exits == "final" else "adamw"

    @property
    def _measures(self) -> bool:
        """Whether measured latencies decide which exits are kept."""
        metrics = (*self.prune_by, *(budget.metric for budget in self.budgets))
        asked = self.config.measure and any(metric.startswith("latency") for metric in metrics)
        return asked and self.config.method == "aep" and bool(self._here)

    @cached_property
    def _here(self) -> dict[str, LatencyTable]:
        """The tables whose target is this machine."""
        return {name: table for name, table in self.tables.items() if is_here(table)}

    @property
    def _measured_what(self) -> dict[str, Any]:
        return {
            "architecture": self.architecture.to_json(),
            "targets": {name: str(table.target) for name, table in self._here.items()},
        }

    def _held(self) -> dict[Exits, dict[str, Measured]] | None:
        """The states' latencies, if they were measured before."""
        path = self.folder / _LATENCIES
        if not path.exists():
            return None
        value = read_json(path, "exits' latencies")
        if {**value, "states": None} != {**self._measured_what, "states": None}:
            return None
        return {
            tuple(exits): {name: Measured(**one) for name, one in found.items()}
            for exits, found in value["states"]
        }

    def _costs(self) -> ExitCosts:
        measured = (self._held() if self._measures else None) or {}
        return ExitCosts(self.space, self.info.classes, self.tables, self.architecture, measured)
