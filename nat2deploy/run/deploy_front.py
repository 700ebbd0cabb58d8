"""From a pipeline's front to a bundle that keeps its budgets: fine-tune, export and verify."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nat2deploy.deploy.manifest import Manifest
from nat2deploy.deploy.verify import Verification, verify_bundle
from nat2deploy.deploy.writing import check_replaceable
from nat2deploy.errors import UnfitNetworkError
from nat2deploy.files import write_json
from nat2deploy.progress import Report, remarks, silent
from nat2deploy.run.config import PipelineConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.export import export
from nat2deploy.run.finetune import finetune
from nat2deploy.run.finetune_report import FinetuneReport
from nat2deploy.run.front import Front, FrontNetwork
from nat2deploy.run.int8_tuning import checkpoint_in
from nat2deploy.run.networks import best_tuned, choose_network
from nat2deploy.run.within_budget import TooSlow, next_within, too_slow


@dataclass(frozen=True)
class LeftOut:
    """A network that cannot be exported as the config asks, and why."""

    network: str
    why: str


@dataclass(frozen=True)
class Deployed:
    """What was made of a front."""

    finetuned: list[FinetuneReport]
    manifest: Manifest
    verification: Verification
    missed: tuple[TooSlow, ...]
    left_out: tuple[LeftOut, ...]
    bundle: Path


def deploy_front(
    config: PipelineConfig,
    front: Front,
    out: Path,
    timed: Callable[[str], AbstractContextManager[None]],
    report: Report = silent,
) -> Deployed:
    """Fine-tune, export and verify: the network that the config names, or the best that keeps its budgets.

    A machine that has become slower since the search measured the front makes the best one miss them. What
    misses them is measured once more, which decides: a moment's load costs less so than another network.
    A bundle for another machine is kept: how long it takes here says nothing about its budgets. Where the
    config leaves the choice, a network that cannot become such a bundle is left out.

    Raises:
        UserError: an input that cannot be used.
        UnfitNetworkError: no network can become such a bundle.
    """
    bundle = out / "bundle"
    check_replaceable(bundle)  # now, not after training
    target = config.export.target or next(iter(config.profile.tables), "")
    free = config.export.network == "best" and config.finetune.network in ("best", "all")
    finetuned: dict[str, FinetuneReport] = {}
    missed: list[TooSlow] = []
    unusable: dict[str, UnfitNetworkError] = {}

    def make(network: FrontNetwork) -> Deployed:
        exported = config.export.model_copy(update={"network": network.id})
        with timed("export"):
            manifest = export(out / "search", exported, bundle, report)
            report("verify", 0, 1)
            verification = verify_bundle(bundle, seed=config.seed)
            report("verify", 1, 1)
            if free and (over := too_slow(network, manifest, verification, target)):
                remarks(report)(f"network {network.id} measured over {'; '.join(over.checks)}: once more")
                verification = verify_bundle(bundle, seed=config.seed + 1)
        return Deployed([*finetuned.values()], manifest, verification, tuple(missed), (), bundle)

    def told(made: Deployed) -> Deployed:
        """The last one, on disk with what was said of others."""
        left_out = tuple(LeftOut(name, str(error)) for name, error in unusable.items())
        others = {
            "missed": [asdict(one) for one in made.missed],
            "left_out": [asdict(one) for one in left_out],
        }
        write_json(out / "verification.json", asdict(made.verification) | others)
        for name in unusable:  # what was tuned of them is of no more use
            checkpoint_in(RunDirectory(out / "search").network(name)).unlink(missing_ok=True)
        return replace(made, left_out=left_out)

    tuning = config.finetune
    if config.export.network != "best":
        named = front.choose(config.export.network)  # now, not after training
        if tuning.network == "best":  # what is exported is what is tuned
            tuning = tuning.model_copy(update={"network": named.id})
    with timed("finetune"):
        finetuned |= {one.id: one for one in finetune(out / "search", tuning, report)}
    # Of those that were tuned now: a run that was killed later has tuned others, too.
    network = best_tuned(front, finetuned) if free else None
    network = network or choose_network(RunDirectory(out / "search"), config.export.network)
    made: Deployed | None = None
    while True:
        try:
            if (missed or unusable) and network.id not in finetuned:
                one = config.finetune.model_copy(update={"network": network.id})
                with timed("finetune"):
                    finetuned |= {done.id: done for done in finetune(out / "search", one, report)}
            made = make(network)
            over = too_slow(network, made.manifest, made.verification, target) if free else None
            if over is None:
                return told(made)
            missed.append(over)
        except (
            UnfitNetworkError
        ) as error:  # such as one exit where stages are wanted; a bundle before it stays
            if not free:
                raise
            unusable[network.id] = error
            remarks(report)(f"network {network.id} is left out: {error}")
        following = next_within(
            front, None if made is None else made.manifest, missed, target, finetuned, unusable
        )
        if following is None:
            break
        network = following
    if made is None:
        raise next(iter(unusable.values()))
    return told(made)
