"""What can be compared: bundles, ONNX files and torchvision's networks, each as an engine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch

from nat2deploy.deploy.bundle import Bundle, open_bundle
from nat2deploy.deploy.manifest import Manifest, StagesSpec
from nat2deploy.deploy.opening import open_bundle_engine
from nat2deploy.deploy.reference import REFERENCE_NAME, load_reference
from nat2deploy.engines.base import Engine
from nat2deploy.engines.registry import compile_model, load_engine
from nat2deploy.errors import UserError
from nat2deploy.measure.pinning import check_threads
from nat2deploy.target import Target, make_target

_TORCHVISION = re.compile(r"torchvision:(?P<name>[A-Za-z0-9_]+)(?:@(?P<resolution>.*))?")
_RESOLUTION = re.compile(r"(?!0+$)[0-9]{1,4}")


@dataclass(frozen=True)
class Contender:
    """A network to compare.

    Attributes:
        engine: runs it here.
        manifest: a bundle's.
        params: None where nobody counted.
        image_size: the shorter side in pixels of a bundle's reference images, which is how large its export
            kept images from folders.
    """

    engine: Engine
    manifest: Manifest | None = None
    params: int | None = None
    image_size: int | None = None

    @property
    def stages(self) -> StagesSpec | None:
        """How it stops early, where it does."""
        return None if self.manifest is None else self.manifest.stages


def open_contenders(words: Sequence[str], *, threads: int | None, seed: int) -> list[Contender]:
    """Open bundles (folders or zips), ``.onnx`` files, and such as ``torchvision:mobilenet_v3_small@224``.

    Args:
        words: at least one.
        threads: for all, instead of each bundle's own. Without it, the others run with the bundles' number,
            or with one thread.
        seed: of torchvision's weights, which are random: its networks are there for their latency.

    Raises:
        UserError: nothing named, a file that cannot be loaded or was changed, a name that torchvision has
            not, no resolution behind it, bundles for different numbers of threads, or more
            threads than cores.
    """
    if not words:
        raise UserError("nothing to measure; name bundles, .onnx files or torchvision:NAME@PIXELS")
    with ExitStack() as stack:
        bundles = {
            word: stack.enter_context(open_bundle(Path(word)))
            for word in dict.fromkeys(words)
            if not word.startswith("torchvision:") and Path(word).suffix.lower() != ".onnx"
        }
        for bundle in bundles.values():
            bundle.check()  # before anything that its manifest says is believed
        counts = {bundle.manifest.target.threads for bundle in bundles.values()}
        if threads is None and len(counts) > 1:
            said = ", ".join(map(str, sorted(counts)))
            raise UserError(f"the bundles are for {said} threads; give --threads to measure them together")
        common = threads or (counts.pop() if counts else 1)
        check_threads(common)
        found = []
        for word in words:
            if word in bundles:
                bundle = bundles[word]
                engine = _of_bundle(bundle, common)
                found.append(_contender(bundle, engine))
            elif word.startswith("torchvision:"):
                found.append(_torchvision(word, _target(common, 1), seed))
            else:
                found.append(Contender(load_engine(Path(word), _target(common, _batch(Path(word))))))
    return found


def _contender(bundle: Bundle, engine: Engine) -> Contender:
    manifest = bundle.manifest
    exits = None if manifest.stages is None else len(manifest.stages.exits)
    images, _ = load_reference(bundle.folder / REFERENCE_NAME, exits)
    return Contender(engine, manifest, manifest.costs.params, min(images.shape[-2:]))


def _of_bundle(bundle: Bundle, threads: int) -> Engine:
    target = bundle.manifest.target
    if target.kind == "cpu":
        target = target.model_copy(update={"threads": threads})
    engine, absent = open_bundle_engine(bundle, target)
    if absent:
        raise UserError(
            f"bundle {bundle.path} is for {target}, but {absent}; mend that, or measure it on its device"
        )
    return engine


def _torchvision(word: str, target: Target, seed: int) -> Contender:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    match = _TORCHVISION.fullmatch(word)
    if match is None or match["name"] not in known:
        raise UserError(f"'{word}' is no torchvision classifier; write such as torchvision:resnet18@224")
    given = "224" if match["resolution"] is None else match["resolution"]
    if not _RESOLUTION.fullmatch(given):
        raise UserError(
            f"'{word}': '{given}' is no resolution; write 1 to 9999 pixels, such as "
            f"torchvision:{match['name']}@224"
        )
    resolution = int(given)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**64)  # PyTorch's are of 64 bits
        options = {"init_weights": False} if match["name"] in ("googlenet", "inception_v3") else {}
        module = torchvision.models.get_model(match["name"], weights=None, **options).eval()
    params = sum(parameter.numel() for parameter in module.parameters())
    return Contender(compile_model(module, target, (1, 3, resolution, resolution)), None, params)


def _target(threads: int, batch: int) -> Target:
    return make_target("cpu", "onnxruntime", "fp32", threads, batch)


def _batch(path: Path) -> int:
    """The batch of an ONNX file; 1 where it is free or where the engine will say better what is wrong."""
    try:
        model = onnx.load(path, load_external_data=False)
        return max(int(model.graph.input[0].type.tensor_type.shape.dim[0].dim_value), 1)
    except Exception:  # protobuf raises its own class, which changed its place between versions
        return 1
