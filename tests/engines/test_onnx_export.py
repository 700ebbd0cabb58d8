import hashlib
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from nat2deploy.engines import onnx_export
from nat2deploy.engines.onnx_export import OPSET, to_onnx
from nat2deploy.errors import UserError

SHAPE = (1, 3, 16, 16)


def small(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(
            nn.Conv2d(3, 8, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.Hardswish(inplace=True),
            nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        )
        for part in module:
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
    return module.eval()


def outputs(model, images):
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["output"], {"input": images})[0]


def test_small_graph_with_bn_folded_and_hardswish_whole():
    graph = onnx.load_model_from_string(to_onnx(small(), SHAPE))
    assert [node.op_type for node in graph.graph.node] == [
        "Conv",
        "HardSwish",
        "Conv",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
    ]
    assert [one.name for one in graph.graph.input] == ["input"]
    assert [one.name for one in graph.graph.output] == ["output"]
    assert [(one.domain, one.version) for one in graph.opset_import] == [("", OPSET)]


class Square(nn.Module):
    def forward(self, x):
        torch._assert(x.shape[-1] == 224, "224 pixels alone")  # as torchvision's vision transformers do
        return x


@pytest.mark.parametrize("module", [Square(), nn.Linear(3, 2)])
def test_a_shape_that_the_network_does_not_take_is_one_line(module):
    with pytest.raises(
        UserError, match=r"does not take an input of shape \(1, 3, 16, 16\).*; mend the shape"
    ):
        to_onnx(module, SHAPE)


def test_same_numbers_as_pytorch():
    module, images = small(), np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(outputs(to_onnx(module, SHAPE), images), expected, rtol=1e-4, atol=1e-5)


def test_a_free_batch_runs_any_batch_and_a_fixed_one_only_its_own():
    images = np.ones((5, *SHAPE[1:]), dtype=np.float32)
    assert outputs(to_onnx(small(), SHAPE, dynamic_batch=True), images).shape == (5, 5)
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidArgument):
        outputs(to_onnx(small(), SHAPE), images)


def test_same_bytes_twice_and_in_another_process():
    first = to_onnx(small(), SHAPE)
    to_onnx(small(3), (1, 3, 8, 8))  # counters inside the exporter must not show
    assert to_onnx(small(), SHAPE) == first
    script = (
        "import hashlib, sys; sys.path.insert(0, sys.argv[1]); import test_onnx_export as t; "
        "print(hashlib.sha256(t.to_onnx(t.small(), t.SHAPE)).hexdigest())"
    )
    folder = __file__.rpartition("/")[0]
    done = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(first).hexdigest()


def test_nothing_but_the_network_is_in_the_file():
    model = onnx.load_model_from_string(to_onnx(small(), SHAPE))
    assert (model.producer_name, model.producer_version) == ("nat2deploy", "")
    assert not model.doc_string
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert b".py" not in model.SerializeToString()


def test_equal_initialisers_stay_initialisers():
    fresh = nn.Sequential(
        nn.Conv2d(3, 8, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 1, bias=False),
        nn.BatchNorm2d(8),
    )
    model = onnx.load_model_from_string(to_onnx(fresh, SHAPE))
    assert [node.op_type for node in model.graph.node] == ["Conv", "Conv"]
    constants = {one.name for one in model.graph.initializer}
    assert all(set(node.input[1:]) <= constants for node in model.graph.node)


def test_modes_of_all_parts_are_given_back():
    module = small().train()
    module[1].eval()  # a frozen BN stays frozen
    before = [part.training for part in module.modules()]
    statistics = module[4].running_mean.clone()
    to_onnx(module, SHAPE)
    assert [part.training for part in module.modules()] == before
    assert torch.equal(module[4].running_mean, statistics)


class Twins(nn.Module):
    def forward(self, x):
        return x, x


def test_what_cannot_be_exported_is_one_line():
    for module, shape in ((small(), (1, 4, 16, 16)), (small(), (3, 16)), (Twins(), SHAPE)):
        with pytest.raises(UserError) as caught:
            to_onnx(module, shape)
        assert "\n" not in str(caught.value)


def test_an_operator_without_onnx_name_is_one_line():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    with pytest.raises(UserError, match="cannot be exported"):
        to_onnx(Odd(), SHAPE)


@pytest.mark.parametrize("dynamic", [False, True])
def test_newer_exporter_is_used_where_the_older_is_gone(monkeypatch, dynamic):
    raw, seen = to_onnx(small(), SHAPE), {}

    class Program:
        model_proto = onnx.load_model_from_string(raw)

    Program.model_proto.doc_string = "made at /home/me/net.py"

    # The signature of a PyTorch that has dropped the older exporter and its switch.
    def export(module, args, f=None, *, opset_version, input_names, output_names, dynamic_shapes):
        seen.update(batch=args[0].shape[0], opset=opset_version, shapes=dynamic_shapes)
        return Program

    monkeypatch.setattr(torch.onnx, "export", export)
    monkeypatch.setattr(onnx_export.importlib.util, "find_spec", lambda name: object())
    assert to_onnx(small(), SHAPE, dynamic_batch=dynamic) == raw
    assert seen["batch"] == (2 if dynamic else 1)
    assert seen["opset"] >= OPSET
    assert (seen["shapes"] is not None) is dynamic


def test_newer_exporter_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(onnx_export, "_has_torchscript_exporter", lambda: False)
    monkeypatch.setattr(onnx_export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install onnxscript"):
        to_onnx(small(), SHAPE)
