"""The files of a bundle's engine, and an engine that says here what the model says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from nat2deploy.deploy.manifest import EngineSpec, Manifest, OptimisedSpec, PlanSpec
from nat2deploy.engines.base import Engine
from nat2deploy.engines.registry import absent, engine_of_onnx, load_engine
from nat2deploy.engines.status import version
from nat2deploy.errors import UserError
from nat2deploy.target import Target, fingerprint

ONNX_NAME = "model.onnx"
IR_NAME = "model.xml"
PLAN_NAME = "model.plan"
OPTIMISED_NAME = "optimised.onnx"
RECIPE_NAME = "build.py"
STAND_IN = "ONNX Runtime on the CPU stood in"
"""Said of what was found without the target's GPU or engine."""
TENSORRT = ("tensorrt", "tensorrt-rtx")
Batches = tuple[int, int, int]


@dataclass(frozen=True)
class Compiled:
    """A model compiled for a target.

    Attributes:
        engine: runs the model here; ONNX Runtime on the CPU where the target's GPU or package is not here.
        on_target: whether ``engine`` is the target's own.
        model: the name of the file that the bundle's runner starts from.
        spec: for the manifest.
        write: writes the engine's files into a folder.
    """

    engine: Engine
    on_target: bool
    model: str
    spec: EngineSpec
    write: Callable[[Path], None]


def compile_onnx(
    model: bytes, target: Target, *, sm: Sequence[int] = (), batches: Batches, optimised: bool = False
) -> Compiled:
    """Compile an ONNX model for a target, as far as that can be done here.

    Args:
        model: bytes of an ONNX file in the target's number format.
        target: its backend, device and batch count.
        sm: compute capabilities to compile ahead for, with TensorRT for RTX.
        batches: the smallest batch, the one to be fastest at, the largest.
        optimised: add ONNX Runtime's graph as it is optimised on this machine.

    Raises:
        UserError: a package that is needed is not here, or the model does not compile.
    """
    if target.backend == "openvino":
        return _openvino(model, target, batches)
    if target.kind == "cpu":
        return _onnxruntime(model, target, batches, optimised)
    return _gpu(model, target, sm, batches)


def stand_in(model: bytes, target: Target) -> Engine:
    """Return ONNX Runtime on the CPU for a model whose engine is not here; 8 bits simulated in float."""
    from nat2deploy.engines.onnxruntime import ExactOnnxRuntimeEngine, OnnxRuntimeEngine

    kind = ExactOnnxRuntimeEngine if target.precision == "int8" else OnnxRuntimeEngine
    return kind(model, Target(batch=target.batch), source="the exported network")


def engine_here(
    model: bytes,
    target: Target,
    *,
    batches: Batches | None = None,
    plans: Mapping[tuple[int, ...], bytes] = MappingProxyType({}),
) -> tuple[Engine, str]:
    """Return an engine for a model, and why it is a stand-in; empty where it is the target's own.

    TensorRT's runs the plan of a bundle that is for this GPU, else one made as on a device.

    Args:
        model: bytes of an ONNX file.
        target: what it is for.
        batches: as of ``compile_onnx``; the target's batch alone by default.
        plans: that a bundle holds, by the compute capabilities of their GPUs.

    Raises:
        UserError: the model does not compile, or a plan does not load.
    """
    reason = absent(target)
    if reason:
        return stand_in(model, target), reason
    if target.backend in TENSORRT:
        from nat2deploy.engines.tensorrt_plan import plan_here

        batches = batches or (target.batch, target.batch, target.batch)
        model = plan_here(model, target, batches=batches, plans=plans)
    return engine_of_onnx(model, target), ""


def open_engine(folder: Path, manifest: Manifest, target: Target) -> tuple[Engine, str]:
    """Load the model of the bundle in ``folder``; the second is as of ``engine_here``.

    Args:
        folder: its files were checked.
        manifest: the bundle's.
        target: the manifest's, or one to run it as instead.

    Raises:
        UserError: the model does not load.
    """
    path, spec = folder / manifest.model, manifest.engine
    if target.kind == "cpu":
        return load_engine(path, target), ""
    if spec is None:
        return engine_here(path.read_bytes(), target)
    plans = {plan.compute_capabilities: (folder / plan.file).read_bytes() for plan in spec.plans}
    return engine_here(path.read_bytes(), target, batches=spec.batches, plans=plans)


def _openvino(model: bytes, target: Target, batches: Batches) -> Compiled:
    engine = engine_of_onnx(model, target)
    from nat2deploy.engines.openvino import save_ir

    spec = EngineSpec(version=version("openvino"), batches=batches)
    return Compiled(engine, True, IR_NAME, spec, lambda folder: save_ir(model, target, folder / IR_NAME))


def _onnxruntime(model: bytes, target: Target, batches: Batches, optimised: bool) -> Compiled:
    here, found = fingerprint(), version("onnxruntime")
    machine = OptimisedSpec(
        file=OPTIMISED_NAME, onnxruntime=found, cpu=here.cpu, flags=tuple(sorted(here.flags))
    )
    spec = EngineSpec(
        version=found, onnx=ONNX_NAME, batches=batches, optimised=machine if optimised else None
    )

    def write(folder: Path) -> None:
        (folder / ONNX_NAME).write_bytes(model)
        if optimised:
            from nat2deploy.engines.onnxruntime import save_optimised

            save_optimised(model, folder / OPTIMISED_NAME)

    return Compiled(engine_of_onnx(model, target), True, ONNX_NAME, spec, write)


def _gpu(model: bytes, target: Target, sm: Sequence[int], batches: Batches) -> Compiled:
    tensorrt = target.backend in TENSORRT
    found, plan = version("onnxruntime"), None
    if tensorrt:
        from nat2deploy.engines.tensorrt_plan import build_plan, open_package

        try:
            found = str(open_package(target.backend)[0].__version__)
        except UserError:
            found = ""
        if sm and found:
            plan = build_plan(model, target, sm=sm, batches=batches, source="the exported network")
    plans = {} if plan is None else {tuple(sm): plan}
    engine, reason = engine_here(model, target, batches=batches, plans=plans)
    spec = EngineSpec(
        version=found,
        onnx=ONNX_NAME,
        batches=batches,
        plans=() if plan is None else (PlanSpec(file=PLAN_NAME, compute_capabilities=tuple(sm)),),
        recipe=RECIPE_NAME if tensorrt else None,
    )

    def write(folder: Path) -> None:
        (folder / ONNX_NAME).write_bytes(model)
        if plan is not None:
            (folder / PLAN_NAME).write_bytes(plan)
        if tensorrt:
            recipe = resources.files("nat2deploy.engines") / "tensorrt_build.py"
            (folder / RECIPE_NAME).write_bytes(recipe.read_bytes())

    return Compiled(engine, not reason, ONNX_NAME, spec, write)
