"""The engine of an open bundle, as one file or as stages."""

from __future__ import annotations

from nat2deploy.deploy.bundle import Bundle
from nat2deploy.deploy.compiled import open_engine
from nat2deploy.engines.base import Engine
from nat2deploy.engines.staged import StagedEngine
from nat2deploy.target import Target


def open_bundle_engine(bundle: Bundle, target: Target | None = None) -> tuple[Engine, str]:
    """Load a bundle's network; the second says why it is a stand-in, empty where it is the target's own.

    Args:
        bundle: whose files were checked.
        target: instead of the bundle's own.

    Raises:
        UserError: a model does not load.
    """
    target = bundle.manifest.target if target is None else target
    stages = bundle.manifest.stages
    if stages is None:
        return open_engine(bundle.folder, bundle.manifest, target)
    engine = StagedEngine(
        [(bundle.folder / stage.file).read_bytes() for stage in stages.exits],
        [stage.weight for stage in stages.exits],
        target,
        confidence=stages.confidence,
        source=f"bundle {bundle.path}",
    )
    return engine, ""
