"""The engine of an open bundle, as one file or as stages."""

from __future__ import annotations

import onnx

from nat2deploy.deploy.bundle import Bundle
from nat2deploy.deploy.compiled import open_engine
from nat2deploy.deploy.runner.stages import FEATURES
from nat2deploy.engines.base import Engine
from nat2deploy.engines.staged import StagedEngine
from nat2deploy.errors import UserError
from nat2deploy.target import Target


def open_bundle_engine(bundle: Bundle, target: Target | None = None) -> tuple[Engine, str]:
    """Load a bundle's network; the second says why it is a stand-in, empty where it is the target's own.

    Args:
        bundle: whose files were checked.
        target: instead of the bundle's own.

    Raises:
        UserError: a model does not load, or its input or output is called otherwise than in the manifest.
    """
    target = bundle.manifest.target if target is None else target
    stages = bundle.manifest.stages
    if stages is None:
        opened = open_engine(bundle.folder, bundle.manifest, target)
        _check_names(bundle)
        return opened
    engine = StagedEngine(
        [(bundle.folder / stage.file).read_bytes() for stage in stages.exits],
        [stage.weight for stage in stages.exits],
        target,
        confidence=stages.confidence,
        source=f"bundle {bundle.path}",
    )
    _check_names(bundle)
    return engine, ""


def _check_names(bundle: Bundle) -> None:
    """Check that the models have the input and the outputs that the bundle's runner asks for by name.

    OpenVINO's are asked for by their place.
    """
    manifest = bundle.manifest
    if manifest.target.backend == "openvino":
        return
    output = manifest.output.name
    outputs = {manifest.model: [output]}
    if manifest.stages is not None:
        *others, last = (stage.file for stage in manifest.stages.exits)
        outputs = {**{file: [output, FEATURES] for file in others}, last: [output]}
    for file, wanted in outputs.items():
        graph = onnx.load(bundle.folder / file).graph
        weights = {tensor.name for tensor in graph.initializer}
        inputs = [value.name for value in graph.input if value.name not in weights]
        for kind, names, held in (
            ("input", [manifest.input.name], inputs),
            ("output", wanted, [value.name for value in graph.output]),
        ):
            missing = [name for name in names if name not in held]
            if missing:
                raise UserError(f"bundle {bundle.path}: {file} has no {kind} '{missing[0]}'; export it again")
