"""The commands that make a run again, from its settings."""

from __future__ import annotations

import re
import shlex
from typing import Any

import tomli_w

from nat2deploy.report.formats import Bundle, Stages
from nat2deploy.report.privacy import masked_settings
from nat2deploy.report.reading import RunFiles, listed

FINETUNE_OPTIONS = (
    *("network", "preset", "method", "phases", "epochs", "patience", "learning_rate", "optimiser"),
    *("batch_size", "distil", "exit_weights", "prune", "prune_tolerance", "measure", "workers", "seed"),
    *("validate_each_epoch", "final_rate", "warmup_epochs", "weight_decay", "clip", "label_smoothing"),
)
"""Settings that ``nat2deploy finetune`` takes by the same name."""


def commands(files: RunFiles) -> list[str]:
    """Return the commands, with paths cut to their last part."""
    if files.pipeline:
        return ["nat2deploy run config.toml --out again"]
    search = masked_settings(files.search)
    words = ["nat2deploy", "search", *_each("--supernet", search.get("supernet", "w.safetensors"))]
    words += ["--data", search.get("data", "")]
    if search.get("start"):
        words += ["--from", search["start"]]
    space = search.get("space") or {}
    if space.get("name"):
        words += ["--space", space["name"]]
    if space.get("resolutions"):
        words += ["--resolutions", ",".join(str(r) for r in space["resolutions"])]
    if search.get("table"):
        words += _each("--table", search["table"])
    for name, place in (search.get("tables") or {}).items():
        words += _each("--table", [f"{name}={one}" for one in listed(place)])
    for budget in search.get("budgets") or ():
        words += ["--budget", budget]
    words += ["--allow-uncertified"] if search.get("allow_uncertified") else []
    settings = search.get("settings") or {}
    words += ["--settings", "settings.toml", "--seed", str(settings.get("seed", 0)), "--out", "again"]
    found = [_line(words)]
    for tuned in files.tuned.values():
        found.append(_line(["nat2deploy", "finetune", "again", *_options(tuned.config)]))
    if files.bundle is not None:
        found.append(_line(["nat2deploy", "export", "again", *_export_options(files.bundle)]))
        found.append("nat2deploy verify bundle")
    return found


def settings_file(files: RunFiles) -> tuple[str, str]:
    """Return the name and the text of the file that the commands read."""
    if files.pipeline:
        return "config.toml", _toml(files.pipeline)
    settings = {k: v for k, v in (files.search.get("settings") or {}).items() if k != "seed"}
    return "settings.toml", _toml(settings)


def _toml(value: dict[str, Any]) -> str:
    return tomli_w.dumps(masked_settings(value))


def _options(config: dict[str, Any]) -> list[str]:
    """A fine-tuning's settings as options, those that the command takes."""
    words: list[str] = []
    for key, value in masked_settings(config).items():
        option = f"--{key.replace('_', '-')}"
        if key not in FINETUNE_OPTIONS or value is None:
            continue
        if isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        else:
            words += _each(option, value)
    return words


def _export_options(bundle: Bundle) -> list[str]:
    """What makes a bundle again, as far as it says it."""
    words = ["--network", bundle.front_network]
    target, made = bundle.target, bundle.quantisation
    if bundle.target_name is not None:
        words += ["--target", bundle.target_name]
    if target.get("precision"):
        words += ["--precision", target["precision"]]
    if target.get("backend", "onnxruntime") != "onnxruntime":
        words += ["--engine", target["backend"]]
    elif target.get("device", "cpu") != "cpu":
        words += ["--device", target["device"]]
    batches = bundle.engine.batches if bundle.engine is not None else ()
    batches = batches if len(set(batches)) > 1 else (int(target.get("batch", 1)),)
    if batches != (1,):
        words += ["--batch", ":".join(map(str, batches))]
    if bundle.engine is not None:
        sms = [str(sm) for plan in bundle.engine.plans for sm in plan.compute_capabilities]
        words += ["--sm", ",".join(sms)] if sms and target.get("backend") == "tensorrt-rtx" else []
        words += ["--save-optimised"] if bundle.engine.optimised is not None else []
    if made is not None:
        for key, value in (
            ("--calibration-method", made.method),
            ("--calibration-images", made.calibration_images),
            ("--qat-epochs", f"{made.qat_epochs:g}" if made.qat_epochs else None),
            (
                "--qat-learning-rate",
                None if made.qat_learning_rate is None else f"{made.qat_learning_rate:g}",
            ),
            ("--int8-layers", "faster" if made.slower_layers else None),
            ("--max-accuracy-drop", _percent(made.max_accuracy_drop)),
        ):
            words += [] if value is None else [key, str(value)]
    if bundle.stages is not None:
        words += ["--stages", *_goal(bundle.stages)]
        words += ["--confidence", bundle.stages.confidence] if bundle.stages.confidence else []
    return [*words, "--out", "bundle"]


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:g}%"


def _goal(stages: Stages) -> list[str]:
    """What thresholds were fitted for, which the bundle says in words."""
    if stages.expected_ms is not None:
        return ["--expected-latency", f"{stages.expected_ms:g}ms"]
    number = re.search(r"([\d.]+) (%|points)$", stages.target)
    if number is None:
        return []
    option = "--stage-accuracy" if number[2] == "%" else "--stage-accuracy-drop"
    return [option, f"{number[1]}%"]


def _each(option: str, value: Any) -> list[str]:
    """An option, repeated where there are several values."""
    return [word for one in listed(value) for word in (option, one)]


def _line(words: list[str]) -> str:
    return shlex.join(str(word) for word in words)
