"""The front door of fine-tuning: networks of a run's front, one after the other or side by side."""

from __future__ import annotations

from pathlib import Path

from nat2deploy.errors import UserError
from nat2deploy.progress import Report, silent
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.finetune_config import FinetuneConfig
from nat2deploy.run.finetune_network import NetworkTuning
from nat2deploy.run.finetune_report import FinetuneReport
from nat2deploy.run.finetune_workers import Job, tune_side_by_side
from nat2deploy.run.front import Front, FrontNetwork, current_front
from nat2deploy.run.read_search import read_search


def finetune(run_path: Path, config: FinetuneConfig, report: Report = silent) -> list[FinetuneReport]:
    """Fine-tune the networks of a run that ``config`` names; those done with the same settings are kept.

    Killed at any moment, the same call goes on where it was.

    Raises:
        UserError: no run or network, a cost that is not known, no such device, or training diverged.
    """
    run = RunDirectory(run_path)
    search = read_search(run)
    chosen = _chosen(current_front(run.front_path), config.network)
    check_devices(config.devices)
    with run.locked():
        tunings = [NetworkTuning(run, search, network, config) for network in chosen]
        left = [tuning for tuning in tunings if tuning.done is None]
        for tuning in tunings:
            if tuning not in left:
                tuning.clear()  # a kill may have come between storing the result and this
        for tuning in left:  # now, while nothing else computes
            tuning.prepare(report)
        workers = min(max(config.workers, len(config.devices)), len(left))
        if workers > 1:
            jobs = [Job(run_path, tuning.given.id, config) for tuning in left]
            places = [config.devices[index % len(config.devices)] for index in range(workers)]
            tune_side_by_side(jobs, places, report)
        else:
            for tuning in left:
                tuning.finetune(config.devices[0], report)
    return [_finished(tuning) for tuning in tunings]


def _chosen(front: Front, wanted: str) -> list[FrontNetwork]:
    if wanted != "all":
        found = {network.id: network for network in map(front.choose, wanted.split(","))}
        return list(found.values())
    if not front.networks:
        raise UserError("the front holds no network; search longer or raise a budget")
    return list(front.networks)


def check_devices(devices: tuple[str, ...]) -> None:
    """Check that devices are here.

    Raises:
        UserError: names the first that is not.
    """
    import torch

    have = torch.cuda.device_count()
    for device in devices:
        if device != "cpu" and int(device.partition(":")[2] or 0) >= have:
            raise UserError(f"device {device} is not here: PyTorch sees {have} GPUs; use cpu")


def _finished(tuning: NetworkTuning) -> FinetuneReport:
    report = tuning.done
    assert report is not None
    return report
