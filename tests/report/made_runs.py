"""Folders of runs as the package writes them: real architectures with their real costs, and any accuracies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from nat2deploy.cost.model import CostModel
from nat2deploy.cost.table import load_table
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import load_space

SPACE = "nano-ee-d"
TABLE = "nano-ee-d-28-32px-x86-1-thread"
BUDGETS = ["latency<=0.25ms", "params<=400k"]


def made_networks(count: int = 12, seed: int = 0) -> list[dict[str, Any]]:
    """Distinct networks that keep the budgets as front.json holds them, cheapest and least accurate first."""
    space = load_space(SPACE).restrict(resolutions=(28, 32))
    model = CostModel(space, 10, load_table(Path(TABLE)))
    found = {}
    for architecture in random_architectures(IntegerEncoding(space), np.random.default_rng(seed), 20 * count):
        costs = model.values(architecture)
        if costs["latency_ms"] <= 0.25 and costs["params"] <= 400e3:
            found[architecture.id] = (costs, architecture)
    chosen = sorted(list(found.items())[:count], key=lambda item: item[1][0]["latency_ms"])
    assert len(chosen) == count
    return [
        {
            "id": identity,
            "architecture": architecture.to_json(),
            "top1": 0.9 + 0.005 * index,
            "costs": costs,
            "measured": made_latency(costs["latency_ms"] * (0.97 + 0.005 * index)),
            "measured_on": {},
            "feasible": True,
            "high_tradeoff": index in (3, 5),
        }
        for index, (identity, (costs, architecture)) in enumerate(chosen)
    ]


def made_latency(median_ms: float) -> dict[str, Any]:
    return {
        "median_ms": median_ms,
        "p95_ms": 1.1 * median_ms,
        "p99_ms": 1.3 * median_ms,
        "ci_low_ms": 0.99 * median_ms,
        "ci_high_ms": 1.01 * median_ms,
        "samples": 500,
    }


def made_front(networks: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "space": SPACE,
        "data": "digits",
        "budgets": BUDGETS,
        "objectives": ["top1", "latency_ms", "params"],
        "rounds": 3,
        "evaluations": 4 * len(networks),
        "complete": True,
        "hypervolume": 0.8,
        "note": "",
        "networks": networks,
        **more,
    }


def made_history(rounds: int = 4) -> list[dict[str, Any]]:
    entries = [
        {
            "round": index,
            "evaluations": 20 * (index + 1),
            "hypervolume": 0.6 + 0.05 * index,
            "best": {"id": "0123456789", "top1": 0.9 + 0.01 * index},
            "surrogate": "extra-trees",
            "tau": 0.5 + 0.1 * index,
        }
        for index in range(rounds)
    ]
    del entries[-1]["surrogate"], entries[-1]["tau"]
    return entries


def write_search(folder: Path, networks: list[dict[str, Any]], **front: Any) -> Path:
    """The run of a finished search."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "supernet": "nano-ee-d-fashion-mnist",
        "data": "digits",
        "table": TABLE,
        "budgets": BUDGETS,
        "allow_uncertified": False,
        "measure": True,
        "space": {"name": SPACE, "resolutions": [28, 32]},
        "tables": {},
        "settings": {"preset": "ours", "seed": 7, "rounds": 3},
    }
    write(folder / "config.toml", tomli_w.dumps(config))
    write(folder / "front.json", made_front(networks, **front))
    write(folder / "history.json", made_history())
    write_archive(folder, networks)
    return folder


def write_archive(folder: Path, networks: list[dict[str, Any]], version: int = 3) -> None:
    """Every network judged twice: with the first weights, which were worse, and with those of ``version``."""
    lines = [
        {
            "id": network["id"],
            "version": judged,
            "role": "archive",
            "loss": 0.3,
            "values": {"top1": network["top1"] - 0.05 * (judged == 0), **network["costs"]},
            "architecture": network["architecture"],
        }
        for judged in (0, version)
        for network in networks
    ]
    write(folder / "archive.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def made_tuning(network: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": network["id"],
        "version": 3,
        "config": {"epochs": 5.0, "learning_rate": 0.01, "distil": True, "network": network["id"], "seed": 7},
        "validation_before": {"top1": 0.95, "low": 0.93, "high": 0.97, "images": 300},
        "validation_after": {"top1": 0.97, "low": 0.95, "high": 0.98, "images": 300},
        "test": {"top1": 0.96, "low": 0.94, "high": 0.98, "images": 360},
        "kept": True,
        **more,
    }


def made_exits(network: dict[str, Any]) -> dict[str, Any]:
    """What fine-tuning with several exits adds to the report."""
    costs = network["costs"]
    states = [
        {
            "exits": exits,
            "top1": 0.9 + 0.02 * len(exits),
            "costs": {**costs, "latency_ms": costs["latency_ms"] * (0.5 + 0.2 * len(exits))},
            "measured": {},
            "feasible": True,
            "non_dominated": True,
            "kept": len(exits) == 2,
        }
        for exits in ([1], [1, 2], [1, 2, 3])
    ]
    return {**made_curves((0.951, 0.958, 0.962, 0.969, 0.97)), "states": states, "epochs": 5.0}


def made_curves(top1s: tuple[float, ...], second_phase: int = 0) -> dict[str, Any]:
    """What each epoch of a fine-tuning did; of two phases, also so many epochs of the second one."""
    epochs = [
        {"phase": 1, "epoch": n, "learning_rate": 0.01 / n, "training_loss": 0.9 / n, "top1": top1, "loss": 0.5 / n}
        for n, top1 in enumerate(top1s, 1)
    ]  # fmt: skip
    more = [
        {"phase": 2, "epoch": n, "learning_rate": 0.01 / n, "training_loss": 0.8 / n, "top1": None, "loss": None}
        for n in range(1, second_phase + 1)
    ]  # fmt: skip
    return {"curve": list(top1s), "history": [*epochs, *more]}


def made_manifest(network: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "schema_version": 2,
        "version": "0.1.0",
        "network": network["id"],
        "architecture": network["architecture"],
        "space": SPACE,
        "task": "classification",
        "model": "model.onnx",
        "input": {"name": "input", "shape": [1, 3, 28, 28], "preprocessing": {}},
        "output": {"name": "logits", "labels": [str(digit) for digit in range(10)]},
        "target": {
            "device": "cpu",
            "backend": "onnxruntime",
            "precision": "fp32",
            "threads": 1,
            "batch": 1,
        },
        "budgets": [{"text": "latency<=0.25ms", "metric": "latency_ms", "limit": 0.25}],
        "costs": {"macs": 1, "params": 1, "latency_ms": 0.1},
        "evidence": {
            "parity": {"images": 64, "max_difference": 1e-6, "top1_agreement": 1.0},
            "accuracy": {"dataset": "digits", "split": "test", "top1": 0.9875, "images": 360},
        },
        "files": {"model.onnx": "0" * 64},
        **more,
    }


def made_evidence() -> dict[str, Any]:
    latency = {**made_latency(0.1), "fingerprint": {"cpu": "A Processor"}}
    return {"schema_version": 1, "measured": [{"device": "here", "latency": latency}]}


def write_pipeline(folder: Path, networks: list[dict[str, Any]]) -> Path:
    """A whole pipeline, its last network fine-tuned with several exits, exported and verified."""
    write_search(folder / "search", networks)
    last = networks[-1]
    tuning = made_tuning(last, **made_exits(last))
    write(folder / "search" / "networks" / last["id"] / "finetune.json", tuning)
    write(folder / "bundle" / "manifest.json", made_manifest(last))
    write(folder / "bundle" / "evidence.json", made_evidence())
    verification = {
        "network": last["id"],
        "ok": True,
        "checks": [
            {"name": "parity", "ok": True, "text": "as PyTorch"},
            {"name": "latency<=0.25ms", "ok": False, "text": "0.300 ms of 0.25 ms"},
        ],
        "missed": [{"network": "0123456789", "checks": ["latency<=0.25ms: 0.310 ms of 0.25 ms"]}],
    }
    write(folder / "verification.json", verification)
    write(folder / "timings.json", {"profile": 80.5, "train": 0.0, "search": 700.0, "finetune": 60.0})
    config = {"data": "digits", "budgets": BUDGETS, "seed": 7, "space": {"name": SPACE}}
    write(folder / "config.toml", tomli_w.dumps(config))
    return folder


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
