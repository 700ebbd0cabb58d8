"""From groups of candidates to a job's folder: ONNX files and what to measure of them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nat2deploy.agent.job import FORM, JOB_FILE, MODELS
from nat2deploy.engines.torch_eager import torch_threads
from nat2deploy.errors import UserError
from nat2deploy.files import sha256, write_json
from nat2deploy.measure.groups import Candidate, Group, Reference
from nat2deploy.measure.interleave import Progress
from nat2deploy.measure.workloads import compile_candidate
from nat2deploy.target import Target


def check_target(target: Target) -> None:
    """Check that a target can be measured without this package on the device.

    Raises:
        UserError: another backend than ONNX Runtime, or a GPU.
    """
    if target.kind != "cpu":
        raise UserError(
            f"{target.device} cannot be measured on another device; profile on that device itself"
        )
    if target.backend != "onnxruntime":
        raise UserError(
            f"backend {target.backend} cannot be measured on another device; use --backend onnxruntime"
        )


def write_job(
    folder: Path,
    target: Target,
    groups: Sequence[Group],
    *,
    settings: dict[str, Any] | None = None,
    progress: Progress,
) -> str:
    """Export what groups hold into the empty ``folder`` and return the job's identity, a SHA-256.

    Args:
        folder: gets ``job.json`` and ``models/``.
        target: its backend must be ONNX Runtime.
        groups: of one profile.
        settings: kept in the job for who reads its results.
        progress: told the share done and a line of text.

    Raises:
        UserError: a module that does not export, or a folder that cannot be written to.
    """
    check_target(target)
    (folder / MODELS).mkdir()
    with torch_threads(1):
        reference = _entry(folder, target, "reference", Reference())
        entries = []
        total, done = sum(len(group.candidates) for group in groups), 0
        for group in groups:
            candidates = []
            for name, candidate in group.candidates.items():
                progress(done / total, f"{group.name}: exporting {done + 1} of {total}")
                candidates.append(_entry(folder, target, name, candidate))
                done += 1
            entries.append(
                {
                    "name": group.name,
                    "seed": group.seed,
                    "precision": group.precision,
                    "time_limit_s": group.time_limit_s,
                    "energy_share": group.energy_share,
                    "warmup_ms": group.warmup_ms,
                    "candidates": candidates,
                }
            )
    return _write(folder, target, groups[0].profile, reference, entries, settings)


@dataclass(frozen=True)
class StagedModel:
    """ONNX files that are run one after another, see ``engines.stage_chain``."""

    files: tuple[Path, ...]
    weights: tuple[float, ...]
    confidence: str


def write_model_job(
    folder: Path,
    target: Target,
    model: Path | StagedModel,
    name: str,
    profile: str,
    *,
    seed: int,
    time_limit_s: float,
) -> str:
    """Put ONNX files that are there into a job in the empty ``folder``; returns the job's identity.

    The candidate of a single file bears the group's name; those of stages are ``exit 1`` and so on, each with
    all that is run for an image that leaves there.

    Args:
        folder: gets ``job.json`` and ``models/``.
        target: that the file was exported for; its backend must be ONNX Runtime.
        model: the file, or the stages'.
        name: of the group.
        profile: as of ``Group``.
        seed: of the input.
        time_limit_s: seconds of measuring.

    Raises:
        UserError: another backend, or a folder that cannot be written to.
    """
    check_target(target)
    (folder / MODELS).mkdir()
    with torch_threads(1):
        reference = _entry(folder, target, "reference", Reference())
    candidates: list[dict[str, Any]]
    if isinstance(model, StagedModel):
        common = {
            "stages": [_copied(folder, file) for file in model.files],
            "weights": list(model.weights),
            "confidence": model.confidence,
        }
        count = len(model.files)
        candidates = [{"name": f"exit {exit_}", "exits": exit_, **common} for exit_ in range(1, count + 1)]
    else:
        candidates = [{"name": name, "model": _copied(folder, model)}]
    group = {
        "name": name,
        "seed": seed,
        "precision": 0.01,
        "time_limit_s": time_limit_s,
        "energy_share": 0.0,
        "candidates": candidates,
    }
    return _write(folder, target, profile, reference, [group], None)


def _write(
    folder: Path,
    target: Target,
    profile: str,
    reference: dict[str, Any],
    entries: list[dict[str, Any]],
    settings: dict[str, Any] | None,
) -> str:
    job = {
        "form": FORM,
        "profile": profile,
        "threads": target.threads,
        "batch": target.batch,
        "precision": target.precision,
        "settings": settings,
        "reference": reference,
        "groups": entries,
    }
    write_json(folder / JOB_FILE, job)
    return sha256(folder / JOB_FILE)


def _copied(folder: Path, file: Path) -> str:
    """Copy an ONNX file into a job; returns its digest."""
    digest = sha256(file)
    shutil.copyfile(file, folder / MODELS / f"{digest}.onnx")
    return digest


def _entry(folder: Path, target: Target, name: str, candidate: Candidate) -> dict[str, Any]:
    """Export one candidate; those with the same bytes share a file."""
    # The file depends on neither the threads nor the cores; here there may be fewer than on the device.
    here = target.model_copy(update={"threads": 1})
    fresh = folder / "fresh.onnx"
    compile_candidate(candidate, here).save(fresh)
    digest = hashlib.sha256(fresh.read_bytes()).hexdigest()
    fresh.replace(folder / MODELS / f"{digest}.onnx")
    return {"name": name, "model": digest}
