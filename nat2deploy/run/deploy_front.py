"""From a pipeline's front to a bundle that keeps its budgets: fine-tune, export and verify."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from nat2deploy.deploy.manifest import Manifest
from nat2deploy.deploy.verify import Verification, verify_bundle
from nat2deploy.files import write_json
from nat2deploy.progress import Report, silent
from nat2deploy.run.config import PipelineConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.export import export
from nat2deploy.run.finetune import finetune
from nat2deploy.run.finetune_report import FinetuneReport
from nat2deploy.run.front import Front
from nat2deploy.run.networks import choose_network
from nat2deploy.run.within_budget import TooSlow, next_within, too_slow


@dataclass(frozen=True)
class Deployed:
    """What was made of a front."""

    finetuned: list[FinetuneReport]
    manifest: Manifest
    verification: Verification
    missed: tuple[TooSlow, ...]
    bundle: Path


def deploy_front(
    config: PipelineConfig,
    front: Front,
    out: Path,
    timed: Callable[[str], AbstractContextManager[None]],
    report: Report = silent,
) -> Deployed:
    """Fine-tune, export and verify: the network that the config names, or the best that keeps its budgets.

    A machine that has become slower since the search measured the front makes the best one miss them.
    """
    bundle = out / "bundle"
    target = config.export.target or next(iter(config.profile.tables), "")
    free = config.export.network == "best" and config.finetune.network in ("best", "all")
    tuning = config.finetune.model_copy(update={"seed": config.seed})
    exported = config.export
    finetuned: dict[str, FinetuneReport] = {}
    missed: list[TooSlow] = []
    while True:
        with timed("finetune"):
            finetuned |= {one.id: one for one in finetune(out / "search", tuning, report)}
        with timed("export"):
            manifest = export(out / "search", exported, bundle, report)
            report("verify", 0, 1)
            verification = verify_bundle(bundle, seed=config.seed)
            report("verify", 1, 1)
            before = {"missed": [asdict(one) for one in missed]}
            write_json(out / "verification.json", asdict(verification) | before)
        network = choose_network(RunDirectory(out / "search"), exported.network)
        over = too_slow(network, manifest, verification, target) if free else None
        following = next_within(front, manifest, [*missed, over], target) if over else None
        if over is None or following is None:
            return Deployed([*finetuned.values()], manifest, verification, tuple(missed), bundle)
        missed.append(over)
        if following.id not in finetuned:
            tuning = tuning.model_copy(update={"network": following.id})
        exported = exported.model_copy(update={"network": following.id})
