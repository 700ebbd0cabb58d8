"""TensorRT for RTX compiles for real here, without a GPU."""

import ctypes
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nat2deploy.blocks import SubNetwork, build_block, reset_seeded
from nat2deploy.engines import tensorrt_build, tensorrt_plan
from nat2deploy.engines.base import Borders
from nat2deploy.engines.onnx_export import to_onnx
from nat2deploy.engines.quantise import random_calibration, target_onnx
from nat2deploy.engines.registry import check_here, compile_ahead, load_engine
from nat2deploy.engines.tensorrt_build import BuildError, build, values_of
from nat2deploy.engines.tensorrt_plan import build_plan, is_plan, open_package, open_runtime
from nat2deploy.errors import UserError
from nat2deploy.space.lowering import every_signature, plan_network
from nat2deploy.space.search_space import load_space
from nat2deploy.target import Target

needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed")
SHAPE = (1, 3, 28, 28)
PRECISIONS = ["fp32", "fp16", "int8"]
INSIDE = Borders(input=True, output=True)


def rtx(precision="fp32", batch=1):
    return Target(device="cuda", backend="tensorrt-rtx", precision=precision, batch=batch)


@pytest.fixture(scope="module")
def network():
    nano = load_space("nano")
    module = SubNetwork(plan_network(nano, nano.smallest(28, 1.0), 10))
    reset_seeded(module, 0)
    return module.eval()


def calibration(precision, shape=SHAPE):
    return random_calibration(rtx(precision), shape, 0)


@needs_rtx
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_network_of_nano_is_compiled_for_gpus_that_are_not_here(network, tmp_path, precision):
    plan = compile_ahead(network, rtx(precision), SHAPE, sm=(86, 89), calibration=calibration(precision))
    assert is_plan(plan)
    assert len(plan) > 100_000
    path = tmp_path / "network.plan"
    path.write_bytes(plan)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="sees no GPU here"):
            load_engine(path, rtx(precision))


@needs_rtx
def test_weights_take_half_the_bytes_in_fp16(network):
    sizes = {p: len(compile_ahead(network, rtx(p), SHAPE, sm=(86,))) for p in ("fp32", "fp16")}
    params = sum(one.numel() for one in network.parameters())
    assert sizes["fp32"] - sizes["fp16"] == pytest.approx(2 * params, rel=0.25)


@needs_rtx
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("space", ["nano", "nano-me-dp"])
def test_every_kind_of_block_compiles_as_it_is_inside_a_network(space, precision):
    kinds = {signature.kind: signature for signature in every_signature(load_space(space), (10,))}
    assert len(kinds) >= 4
    for signature in kinds.values():
        shape = (1, *signature.input_shape)
        block = build_block(signature).eval()
        model = target_onnx(block, rtx(precision), shape, calibration(precision, shape), INSIDE)
        assert is_plan(build_plan(model, rtx(precision), sm=(89,)))


@needs_rtx
def test_a_free_batch_becomes_the_targets():
    net = nn.Conv2d(3, 4, 1).eval()
    free = to_onnx(net, SHAPE, dynamic_batch=True)
    assert is_plan(build_plan(free, rtx(batch=4), sm=(86,)))


@needs_rtx
@pytest.mark.parametrize(
    ("sm", "words"),
    [
        ((90,), r"sm: TensorRT for RTX [\d.]+ has no 90; choose from 75, 80, 86, 89, 120, 121$"),
        ((86, 8), "has no 8; choose from"),
    ],
)
def test_gpus_that_the_package_does_not_know_are_named(sm, words):
    with pytest.raises(UserError, match=words):
        compile_ahead(nn.Identity(), rtx(), SHAPE, sm=sm)


@needs_rtx
def test_gpus_are_checked_without_a_model():
    check_here(rtx(), (86, 120, 86))
    with pytest.raises(UserError, match="has no 90; choose from"):
        check_here(rtx(), (86, 90))
    values = values_of(open_package("tensorrt-rtx")[0], (89, 86, 89))
    assert [value.name for value in values] == ["SM89", "SM86"]


@needs_rtx
@pytest.mark.parametrize("model", [b"", b"garbage", b"\x08\x09"])
def test_what_is_no_onnx_model_is_one_line(model):
    with pytest.raises(UserError, match=r"^mine\.onnx does not load in tensorrt-rtx [\d.]+: \S") as caught:
        build_plan(model, rtx(), sm=(86,), source="mine.onnx")
    assert "\n" not in str(caught.value)


@needs_rtx
def test_the_form_of_8_bits_for_cpus_is_refused_in_one_line(network):
    cpu = target_onnx(network, Target(precision="int8"), SHAPE, calibration("int8"))
    with pytest.raises(UserError, match="does not load in tensorrt-rtx") as caught:
        build_plan(cpu, rtx("int8"), sm=(86,))
    assert "\n" not in str(caught.value)


@needs_rtx
def test_an_error_is_not_kept_for_the_next_model(network):
    with pytest.raises(UserError):
        build_plan(b"garbage", rtx(), sm=(86,))
    compile_ahead(network, rtx(), SHAPE, sm=(86,))
    _, log = open_package("tensorrt-rtx")
    assert log.reason() == "it gives no reason"


@needs_rtx
def test_timings_of_kernels_are_taken_and_handed_back(network):
    trt, log = open_package("tensorrt-rtx")  # which has the same functions as TensorRT
    model = to_onnx(network, SHAPE)
    plan, timings = build(trt, log, model, batches=(1, 1, 1), sm=(86,), timings=b"")
    assert is_plan(plan) and timings
    for held in (timings, b"no timings"):
        assert build(trt, log, model, batches=(1, 1, 1), sm=(86,), timings=held)[1]


@needs_rtx
def test_by_default_the_plan_is_for_the_gpu_that_is_here_and_portable_without_one(monkeypatch, network):
    trt, log = open_package("tensorrt-rtx")
    model = to_onnx(network, SHAPE)
    asked = []

    class Builder(trt.Builder):
        def build_serialized_network(self, network, config):
            every = range(config.num_compute_capabilities)
            asked.append([config.get_compute_capability(index) for index in every])
            return super().build_serialized_network(network, config)

    monkeypatch.setattr(trt, "Builder", Builder)
    monkeypatch.setattr(tensorrt_build, "sees_gpu", lambda: False)
    assert is_plan(build(trt, log, model, batches=(1, 1, 1))[0])
    monkeypatch.setattr(tensorrt_build, "sees_gpu", lambda: True)
    if torch.cuda.is_available():
        assert is_plan(build(trt, log, model, batches=(1, 1, 1))[0])
    else:  # the real package looks for it
        with pytest.raises(BuildError, match="CUDA driver version is insufficient"):
            build(trt, log, model, batches=(1, 1, 1))
    build(trt, log, model, batches=(1, 1, 1), sm=(86,))
    assert asked == [[], [trt.ComputeCapability.CURRENT], [trt.ComputeCapability.SM86]]


def test_a_driver_that_shows_no_gpu_is_none(monkeypatch):
    def driver(code, gpus):
        def count(number):
            number._obj.value = gpus
            return 0

        return SimpleNamespace(cuInit=lambda flags: code, cuDeviceGetCount=count)

    def load(found):
        return SimpleNamespace(**{**vars(ctypes), "CDLL": lambda name: found})

    for found, seen in ((driver(0, 1), True), (driver(0, 0), False), (driver(100, 1), False)):
        monkeypatch.setattr(tensorrt_build, "ctypes", load(found))
        assert tensorrt_build.sees_gpu() is seen
    monkeypatch.undo()
    assert tensorrt_build.sees_gpu() is torch.cuda.is_available()


class NoDriver:
    """As TensorRT's bindings where there is no driver: they log, and raise what pybind11 raises."""

    __version__ = "11.4"

    def __init__(self, log):
        self.log = log

    def Builder(self, log):
        log.errors.append("CUDA initialization failure with error: 35\nmore")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    Runtime = Builder


def test_no_driver_is_one_line(monkeypatch):
    log = SimpleNamespace(errors=[], reason=lambda: log.errors.pop().splitlines()[0])
    package = NoDriver(log)
    package.__name__ = "tensorrt"
    monkeypatch.setattr(tensorrt_plan, "open_package", lambda backend: (package, log))
    monkeypatch.setattr(tensorrt_plan, "_timings_path", lambda trt, target: None)
    target = Target(device="cuda", backend="tensorrt")
    failed = "CUDA initialization failure with error: 35$"
    with pytest.raises(UserError, match=f"^mine cannot be compiled by tensorrt here: {failed}"):
        build_plan(b"", target, source="mine")
    with pytest.raises(UserError, match=f"^tensorrt 11.4 does not start: {failed}"):
        open_runtime(package, log, target)


def test_timings_are_kept_where_they_can_be(tmp_path):
    path = tmp_path / "deep" / "x.timings"
    assert tensorrt_plan._held_timings(path) == b""
    tensorrt_plan._keep_timings(path, b"timings")
    assert tensorrt_plan._held_timings(path) == b"timings"
    (tmp_path / "file").touch()
    tensorrt_plan._keep_timings(tmp_path / "file" / "x.timings", b"timings")
    assert tensorrt_plan._held_timings(tmp_path / "file" / "x.timings") == b""


@needs_rtx
def test_a_range_of_batches_is_one_plan_with_a_profile(network):
    model = to_onnx(network, SHAPE, dynamic_batch=True)
    plans = [build_plan(model, rtx(batch=8), sm=(86,), batches=batches) for batches in ((1, 8, 8), (8, 8, 8))]
    assert all(is_plan(plan) for plan in plans)
    assert plans[0] != plans[1]
    with pytest.raises(UserError, match=r"^the ONNX model cannot be compiled by tensorrt-rtx [\d.]+: "):
        build_plan(model, rtx(batch=8), sm=(86,), batches=(8, 1, 2))


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_a_missing_package_is_one_line_that_says_how_to_get_it(monkeypatch, backend):
    monkeypatch.setitem(tensorrt_plan.MODULES, backend, "no_such_package")
    open_package.cache_clear()
    target = Target(device="cuda", backend=backend)
    with pytest.raises(UserError) as caught:
        build_plan(b"", target)
    assert (
        str(caught.value) == f"backend {backend} is not installed; run `pip install 'nat2deploy[{backend}]'`"
    )
    open_package.cache_clear()


def test_a_package_without_its_libraries_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "half_there.py").write_text("raise ImportError('libnvinfer.so.11: cannot open\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(tensorrt_plan.MODULES, "tensorrt", "half_there")
    open_package.cache_clear()
    words = r"backend tensorrt cannot be imported: libnvinfer.so.11: cannot open; run `pip install"
    with pytest.raises(UserError, match=words):
        open_package("tensorrt")
    open_package.cache_clear()


@given(st.binary(max_size=64))
def test_onnx_files_are_no_plans(data):
    assert not is_plan(b"\x08" + data)
    assert is_plan(b"ftrt" + data)
    assert is_plan(b"vtrt" + data)
