"""Bundles for other engines than ONNX Runtime on the CPU, each made and run for real as far as it goes here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from deploy_helpers import PREPROCESSING, make_images, make_net, make_test

from nat2deploy.cli.render import print_manifest
from nat2deploy.deploy import compiled
from nat2deploy.deploy.bench import bench
from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.evidence import read_evidence
from nat2deploy.deploy.judging import Labelled
from nat2deploy.deploy.making import EngineOptions
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.deploy.opening import open_bundle_engine
from nat2deploy.deploy.runner.network import Network
from nat2deploy.deploy.verify import verify_bundle
from nat2deploy.engines import onnxruntime_cuda, registry, tensorrt_plan
from nat2deploy.engines.base import Engine
from nat2deploy.engines.registry import has_gpu
from nat2deploy.engines.tensorrt_plan import INSTALL, MODULES, build_plan, is_plan, open_package
from nat2deploy.errors import UserError
from nat2deploy.target import Target, fingerprint

Export = Callable[..., Manifest]
needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed")
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
needs_no_gpu = pytest.mark.skipif(has_gpu(), reason="there is a GPU here, which verifies the bundle")
RTX = Target(device="cuda", backend="tensorrt-rtx", precision="fp16")


def program(bundle: Path, name: str, *words: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(bundle / name), *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_CACHE_HOME": str(home)},
    )


@needs_openvino
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_openvino_bundle_holds_its_own_format_and_runs(
    export: Export, tmp_path: Path, precision: str
) -> None:
    out = tmp_path / "out"
    target = Target(backend="openvino", precision=precision)
    manifest = export(
        target=target, calibration_images=make_images(40), options=EngineOptions(max_accuracy_drop=0.1)
    )
    assert (manifest.model, manifest.evidence.device) == ("model.xml", "verified")
    assert {"model.xml", "model.bin"} <= set(manifest.files) and "model.onnx" not in manifest.files
    assert manifest.engine is not None and manifest.engine.version
    assert read_evidence(out, "bundle")[0].latency.median_ms > 0
    assert verify_bundle(out, seed=0, time_limit_s=0.3).ok
    assert program(out, "run.py", "--check", home=tmp_path).returncode == 0
    (row,) = bench([str(out)], seed=0, time_limit_s=0.5)
    assert row.median_ms > 0


@needs_openvino
def test_the_same_openvino_bundle_twice_has_the_same_bytes(export: Export, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export(tmp_path / name, target=Target(backend="openvino"), time_limit_s=None)
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "b" / "manifest.json").read_bytes()


@needs_openvino
def test_weights_that_were_changed_are_refused_by_the_runner(export: Export, tmp_path: Path) -> None:
    export(target=Target(backend="openvino"))
    path = tmp_path / "out" / "model.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = program(tmp_path / "out", "run.py", "--check", home=tmp_path)
    assert done.returncode == 2 and "model.bin: changed" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@needs_rtx
@needs_no_gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_bundle_for_gpus_that_are_not_here_holds_their_engine(
    export: Export, tmp_path: Path, precision: str
) -> None:
    out = tmp_path / "out"
    manifest = export(
        target=RTX.model_copy(update={"precision": precision, "batch": 8}),
        calibration_images=make_images(40),
        options=EngineOptions(sm=(86, 89), batches=(1, 8, 8), max_accuracy_drop=0.1),
    )
    spec = manifest.engine
    assert spec is not None and spec.version and spec.batches == (1, 8, 8)
    assert [(plan.file, plan.compute_capabilities) for plan in spec.plans] == [("model.plan", (86, 89))]
    assert is_plan((out / "model.plan").read_bytes())
    assert onnx.load(out / "model.onnx").graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert manifest.evidence.device == "not verified on a device"
    assert read_evidence(out, "bundle") == ()
    assert manifest.evidence.engine.startswith("ONNX Runtime")
    assert verify_bundle(out, seed=0, time_limit_s=0.3).ok
    done = program(out, "run.py", "--check", home=tmp_path)
    assert done.returncode == 2 and "needs an NVIDIA GPU" in done.stderr


@needs_rtx
@needs_no_gpu
@pytest.mark.parametrize("sm", [(86, 89), (89,)])
def test_what_is_verified_on_a_gpu_is_the_plan_with_its_range_of_batches(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sm: tuple[int, ...]
) -> None:
    """Compiled for real; here ONNX Runtime then runs in place of the GPU, which is of 8.6."""
    opened: list[bytes] = []
    built: list[tuple[int, int, int]] = []

    def run_on_gpu(plan: bytes, target: Target) -> Engine:
        opened.append(plan)
        return compiled.stand_in((tmp_path / "model.onnx").read_bytes(), target)

    def build_here(model: bytes, target: Target, *, batches: tuple[int, int, int], **options: Any) -> bytes:
        (tmp_path / "model.onnx").write_bytes(model)
        if not options.get("sm"):
            built.append(batches)
        return build_plan(model, target, batches=batches, **{"sm": (86,), **options})

    monkeypatch.setattr(compiled, "absent", lambda target: "")
    monkeypatch.setattr(compiled, "engine_of_onnx", run_on_gpu)
    monkeypatch.setattr(tensorrt_plan, "build_plan", build_here)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 6))
    monkeypatch.setattr(torch.cuda, "device", lambda index: nullcontext())
    out, target = tmp_path / "out", RTX.model_copy(update={"batch": 8})
    manifest = export(target=target, options=EngineOptions(sm=sm, batches=(1, 8, 8)), time_limit_s=None)
    assert manifest.evidence.device == "verified"
    with open_bundle(out) as bundle:
        engine, reason = open_bundle_engine(bundle)
    assert (engine.input_shape[0], reason) == (8, "")
    assert len(opened) == 2 and all(map(is_plan, opened))
    if 86 in sm:
        assert opened == [(out / "model.plan").read_bytes()] * 2 and built == []
    else:
        assert built == [(1, 8, 8)] * 2


@needs_rtx
@needs_no_gpu
def test_the_recipe_builds_the_engine_ahead_and_says_what_is_wrong(export: Export, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(target=RTX, options=EngineOptions(sm=(86,)))
    plan = tmp_path / "made" / "x.plan"
    done = program(out, "build.py", "--sm", "86,120", "--out", str(plan), home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert is_plan(plan.read_bytes()) and "86,120" in done.stdout
    done = program(out, "build.py", "--out", str(plan), home=tmp_path)
    assert done.returncode == 0 and "for GPUs of 8.0 and later, as no GPU is seen here" in done.stdout
    for words, told in (
        (("--sm", "90", "--out", str(plan)), "has no 90; choose from"),
        (("--sm", "86"), "say where it goes with --out"),
        (("--sm", "86;1", "--out", "x"), "write compute capabilities"),
    ):
        done = program(out, "build.py", *words, home=tmp_path)
        assert done.returncode == 2 and told in done.stderr and len(done.stderr.splitlines()) == 1
    done = program(out, "build.py", home=tmp_path)
    (kept,) = (tmp_path / "nat2deploy" / "engines").glob("*.plan")
    assert done.returncode == 0 and kept.name.endswith("-1-1-1.plan") and is_plan(kept.read_bytes())
    (out / "model.onnx").write_bytes(b"other")
    done = program(out, "build.py", home=tmp_path)
    assert done.returncode == 2 and "model.onnx: changed" in done.stderr


@needs_no_gpu
def test_without_tensorrt_the_bundle_still_holds_the_model_and_the_recipe(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODULES, "tensorrt-rtx", "no_such_package")
    open_package.cache_clear()
    with pytest.raises(UserError, match=r"^--sm: backend tensorrt-rtx is not installed; .*; without it the"):
        export(target=RTX, options=EngineOptions(sm=(86,)))
    manifest = export(target=RTX)
    open_package.cache_clear()
    assert manifest.engine is not None and manifest.engine.plans == () and manifest.engine.version == ""
    assert {"model.onnx", "build.py"} <= set(manifest.files)
    assert "python build.py" in (tmp_path / "out" / "README.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        (Target(device="cuda", backend="tensorrt", precision="int8"), INSTALL["tensorrt"]),
        (RTX, INSTALL["tensorrt-rtx"]),
        (Target(device="cuda"), "pip install 'onnxruntime-gpu[cuda,cudnn]'"),
        (Target(device="cuda:1", backend="tensorrt"), "cuda:1 is not here"),
    ],
)
def test_on_a_gpus_machine_without_the_engine_a_stand_in_verifies_and_says_how_to_get_it(
    export: Export,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: Target,
    hint: str,
) -> None:
    monkeypatch.setattr(registry, "visible_gpus", lambda: ["a GPU"])
    monkeypatch.setattr(onnxruntime_cuda, "PROVIDER", "NoSuchProvider")
    for backend in ("tensorrt", "tensorrt-rtx"):
        monkeypatch.setitem(MODULES, backend, "no_such_package")
    open_package.cache_clear()
    out = tmp_path / "out"
    manifest = export(
        target=target, calibration_images=make_images(40), options=EngineOptions(max_accuracy_drop=0.1)
    )
    assert (manifest.evidence.device, read_evidence(out, "bundle")) == ("not verified on a device", ())
    assert "model.onnx" in manifest.files
    assert ("build.py" in manifest.files) == (target.backend != "onnxruntime")
    print_manifest(manifest, out, as_json=False)
    verification = verify_bundle(out, seed=0, time_limit_s=0.3)
    assert verification.ok and verification.latency is None
    said = " ".join(capsys.readouterr().out.split())
    assert hint in said and hint in verification.checks[2].text
    with pytest.raises(UserError, match="measure it on its device"):
        bench([str(out)], seed=0)
    open_package.cache_clear()


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt", "tensorrt-rtx"])
def test_a_bundle_runs_on_its_gpu_from_any_thread(
    export: Export,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    needs_backend: Callable[[Target], None],
    backend: str,
) -> None:
    target = Target(device="cuda", backend=backend, batch=4)
    needs_backend(target)
    out, ranges = tmp_path / "out", backend != "onnxruntime"
    manifest = export(target=target, options=EngineOptions(batches=(1, 4, 8) if ranges else None))
    assert manifest.evidence.device == "verified"
    assert verify_bundle(out, seed=0, time_limit_s=0.3).ok
    if ranges:
        done = program(out, "build.py", home=tmp_path)
        assert done.returncode == 0, done.stderr
    done = program(out, "run.py", "--check", "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["check"]["ok"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network = Network(out, None)
    images = np.random.default_rng(0).standard_normal((4, 3, 16, 16), dtype=np.float32)
    with ThreadPoolExecutor(1) as workers:
        found = workers.submit(network.run, images).result()
    np.testing.assert_allclose(found, network.run(images), rtol=1e-3, atol=1e-4)


def test_the_optimised_graph_says_which_machine_it_is_for(export: Export, tmp_path: Path) -> None:
    manifest = export(options=EngineOptions(save_optimised=True))
    assert manifest.engine is not None and manifest.engine.optimised is not None
    assert manifest.engine.optimised.cpu == fingerprint().cpu
    optimised = onnx.load(tmp_path / "out" / "optimised.onnx")
    portable = onnx.load(tmp_path / "out" / "model.onnx")
    kinds = [{(node.domain, node.op_type) for node in one.graph.node} for one in (portable, optimised)]
    assert kinds[0] != kinds[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"options": EngineOptions(sm=(86,))}, "--sm: onnxruntime does not compile ahead"),
        ({"options": EngineOptions(batches=(1, 1, 8))}, "a range is for TensorRT's engines"),
        ({"target": RTX, "options": EngineOptions(batches=(4, 1, 8))}, "4:1:8 does not rise"),
        ({"target": RTX, "options": EngineOptions(save_optimised=True)}, "--save-optimised"),
    ],
)
def test_options_that_do_not_fit_are_one_line(
    export: Export, tmp_path: Path, changes: dict, words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        export(**changes)
    assert len(str(caught.value).splitlines()) == 1 and not (tmp_path / "out").exists()


def test_a_provider_that_is_not_here_is_one_line(exported: Path, tmp_path: Path) -> None:
    done = program(exported, "run.py", "--check", "--provider", "tensorrt", home=tmp_path)
    assert done.returncode == 2 and "wants provider tensorrt" in done.stderr
    assert program(exported, "run.py", "--check", "--provider", "cpu", home=tmp_path).returncode == 0


def test_int8_that_loses_more_than_half_a_point_on_test_is_refused(export: Export, tmp_path: Path) -> None:
    """Targets are what PyTorch says, so each image on which 8 bits differ is lost."""
    images = make_images(400)
    said = make_net()(PREPROCESSING.apply(images)).argmax(dim=1)
    few = make_images(2).float().mul(0.2).to(torch.uint8)  # calibration that clips much
    words = {"target": Target(precision="int8"), "test": Labelled("noise", images, said)}
    with pytest.raises(UserError, match=r"loses [\d.]+ points of accuracy|8 bits are too few"):
        export(calibration_images=few, **words)
    assert not (tmp_path / "out").exists()


def test_the_test_splits_accuracy_is_the_engines(exported: Path) -> None:
    accuracy = json.loads((exported / "manifest.json").read_text(encoding="utf-8"))["evidence"]["accuracy"]
    assert (accuracy["top1"], accuracy["float_top1"], accuracy["agreement"]) == (0.75, 0.75, 1.0)
    assert accuracy["images"] == len(make_test().targets)
