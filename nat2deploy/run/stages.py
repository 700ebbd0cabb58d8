"""What a run's network with several exits is exported from as stages."""

from __future__ import annotations

from dataclasses import replace

from nat2deploy.blocks import SubNetwork
from nat2deploy.cost.model import CostModel
from nat2deploy.deploy.stages_plan import StagesPlan
from nat2deploy.errors import UserError
from nat2deploy.run.config import ExportConfig
from nat2deploy.run.finetune_config import FinetuneConfig
from nat2deploy.run.networks import RunNetwork
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.supernet.exit_stages import exit_stages
from nat2deploy.training.exits import with_exits


def check_stages(config: ExportConfig, tuning: FinetuneConfig, space: SearchSpace) -> None:
    """Check, before there are networks, that what a pipeline makes of them can be exported as stages.

    Args:
        config: of the export; one without stages asks for nothing.
        tuning: of the fine-tuning before it.
        space: that is searched.

    Raises:
        UserError: no network will have several exits, or no images are left to fit thresholds on.
    """
    if not config.stages:
        return
    if tuning.phases == 2:
        raise UserError(
            "--stages: thresholds are fitted on validation images, which --phases 2 trains on, too; write "
            "--phases 1, or leave --stages out"
        )
    if space.exits != "several" and (tuning.method != "aep" or len(space.stages) < 2):
        raise UserError(
            f"--stages: networks of {space.name} have one exit; give them more with --method aep, search a "
            "space of several, such as nano-me-d, or leave --stages out"
        )


def stages_plan(
    config: ExportConfig, chosen: RunNetwork, network: SubNetwork, model: CostModel
) -> StagesPlan:
    """Return the stages, what each costs with those before, and what their thresholds are for.

    Args:
        config: with the thresholds' goal.
        chosen: the network of the run.
        network: its module, which may be tuned for 8 bits.
        model: of the network's space.

    Raises:
        UserError: a network with one exit, or one that was trained on the validation images, too.
    """
    modules = exit_stages(network)
    report = chosen.report
    if report is not None and report.kept and report.config.phases == 2:
        raise UserError(
            f"network {chosen.front.id} was fine-tuned on the validation images, too (--phases 2), so none "
            "are left to fit thresholds on; fine-tune it with --phases 1, or export without --stages"
        )
    architecture = replace(chosen.info.choice, precision=None)
    exits = architecture.exits
    return StagesPlan(
        modules=modules,
        weights=tuple(network.exit_weights.tolist()),
        costs=[model.costs(with_exits(architecture, exits[:count])) for count in range(1, len(exits) + 1)],
        expected_latency_ms=config.expected_latency_ms,
        top1=config.stage_accuracy,
        accuracy_drop=config.stage_accuracy_drop,
        confidence=config.confidence,
    )
