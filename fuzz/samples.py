"""Whole answers of devices, of which damaged ones are made."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import Any

from nat2deploy.remote.kit import Kit
from nat2deploy.target import fingerprint

_JOB = "0" * 64
_SUMMARY = {
    "median_ms": 1.0, "p95_ms": 1.1, "p99_ms": 1.2, "ci_low_ms": 0.9, "ci_high_ms": 1.1,
    "samples": 100, "rounds": 10,
}  # fmt: skip


def machine() -> dict[str, Any]:
    """This machine's facts."""
    facts: dict[str, Any] = fingerprint().model_dump(mode="json")
    return facts


def result() -> dict[str, Any]:
    """A job's results."""
    group = {
        "summaries": {"a": _SUMMARY, "b": _SUMMARY}, "converged": {"a": True, "b": False},
        "noise_floor": 0.01, "reference_ms": 0.5, "drift": 0.01, "interrupted_share": 0.0,
        "rounds": 10, "discarded_rounds": 0,
        "elapsed_s": 1.0, "energy_mj": {"a": 0.1, "b": 0.2}, "energy_word": "RAPL", "clocks": [],
    }  # fmt: skip
    return {"form": 1, "job": _JOB, "machine": machine(), "groups": {"blocks 1 to 2 of 2": group}}


def kit() -> Kit:
    """The kit that the results are of."""
    return Kit(_JOB, None)  # type: ignore[arg-type]


def probe() -> dict[str, Any]:
    """What a device says first."""
    return {"machine": machine(), "memory_bytes": 1 << 30, "warning": None}


def evidence() -> dict[str, Any]:
    """What was measured of a bundle, without the hashes."""
    latency = {name: value for name, value in _SUMMARY.items() if name != "rounds"}
    one = {
        "device": "here", "when": "2026-01-01T00:00:00Z",
        "parity": {"images": 64, "max_difference": 1e-6, "top1_agreement": 1.0},
        "latency": {**latency, "fingerprint": machine()},
    }  # fmt: skip
    return {"schema_version": 1, "measured": [one]}


def digest(content: dict[str, Any]) -> str:
    """The evidence's own digest."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def job() -> dict[str, Any]:
    """A job's file."""
    candidates = [{"name": "a", "model": "1" * 64}]
    group = {
        "name": "g", "profile": "0" * 16, "candidates": candidates, "seed": 0,
        "precision": 0.1, "time_limit_s": 1.0,
    }  # fmt: skip
    return {
        "form": 1, "threads": 1, "batch": 1, "precision": "fp32", "reference": "2" * 64, "groups": [group]
    }  # fmt: skip


def packed_job() -> bytes:
    """The compressed tar of a job."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for name, content in (
            ("models/" + "1" * 64 + ".onnx", b"x"),
            ("job.json", json.dumps(job()).encode()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return held.getvalue()
