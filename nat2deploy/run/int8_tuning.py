"""Quantisation-aware fine-tuning of a run's network, on its way into an int8 bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from nat2deploy.blocks import SubNetwork
from nat2deploy.data.sets import ImageData
from nat2deploy.engines.quantise import is_symmetric
from nat2deploy.progress import Report
from nat2deploy.run.config import ExportConfig, SearchConfig
from nat2deploy.run.networks import RunNetwork, evaluator_of
from nat2deploy.target import Target
from nat2deploy.training.loop import LoopSettings
from nat2deploy.training.quantisation_aware import tune_for_int8

_BATCH = 64


def tuned_network(
    chosen: RunNetwork,
    data: ImageData,
    search: SearchConfig,
    config: ExportConfig,
    target: Target,
    calibration: Tensor,
    report: Report,
) -> SubNetwork:
    """Return the network, fine-tuned to answer in 8 bits; the run's own is left as it is.

    An export that was killed goes on with it. One that was killed or refused later, or that asks for another
    way of calibrating, trains no step again, until the caller removes ``checkpoint_in`` the network's folder,
    having written the bundle.

    Args:
        chosen: the network.
        data: trained on its training split.
        search: the run's settings.
        config: ``qat_epochs`` and ``qat_learning_rate``.
        target: decides the form of 8 bits.
        calibration: float32 [N, 3, r, r], that show how large activations get at the start.
        report: told each step.

    Raises:
        UserError: training diverged.
    """
    chosen.folder.mkdir(parents=True, exist_ok=True)
    settings = LoopSettings(
        epochs=config.qat_epochs,
        learning_rate=config.qat_learning_rate,
        warmup_epochs=min(1.0, config.qat_epochs / 10),
        batch_size=min(_BATCH, len(data.train)),
        clip=5.0,
        seed=search.settings.seed,
    )
    symmetric = is_symmetric(target)
    return tune_for_int8(
        chosen.network,
        data,
        settings,
        chosen.info.choice.resolution,
        calibration=torch.split(calibration, _BATCH),
        symmetric=symmetric,
        recalibrate=evaluator_of(search, data, chosen.info.choice).recalibrate,
        checkpoint=checkpoint_in(chosen.folder),
        tag=f"int8 {symmetric} {_digest([*chosen.network.state_dict().values(), calibration])}",
        progress=lambda done, total, loss: report("fine-tune for int8", done, total, f"loss {loss:.3f}"),
    )


def checkpoint_in(folder: Path) -> Path:
    """The file of a network's tuning, in the network's folder."""
    return folder / ".qat"


def _digest(values: Iterable[Tensor]) -> str:
    """Of weights and images, so that training goes on only with those it began with."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()
