"""ONNX Runtime's CUDA provider on an NVIDIA GPU."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from nat2deploy.engines.base import Array
from nat2deploy.engines.cuda import cannot_run, device_of, too_little_memory
from nat2deploy.engines.ends import HALF_TYPES, WHOLE_TYPES, Ends, check_ends
from nat2deploy.engines.onnx_engine import OnnxEngine
from nat2deploy.engines.onnx_session import sizes, type_name
from nat2deploy.errors import UserError
from nat2deploy.target import Target

PROVIDER = "CUDAExecutionProvider"
_MEMORY = "cuda"
# How CUDA, cuDNN and the provider's allocator say it.
_OUT_OF_MEMORY = ("out of memory", "ALLOC_FAILED", "Failed to allocate memory")


class OnnxRuntimeCudaEngine(OnnxEngine):
    """An ONNX model in a session of the CUDA provider.

    ``prepare`` binds input and output to buffers on the GPU, so its callable's latency is that of the network
    as the host sees it, without copies. Operators that the provider lacks run on the CPU, copies included.

    Raises:
        UserError: as ``OnnxEngine``, no such GPU, or an ONNX Runtime without the provider.
    """

    def _load(self, model: bytes, target: Target, source: str) -> Ends:
        check_provider()
        device_of(target)
        self._session = _session(model, target, source)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        described = [(value.name, type_name(value.type), sizes(value.shape)) for value in inputs]
        types = HALF_TYPES if target.precision == "fp16" else WHOLE_TYPES
        ends = check_ends(described, len(outputs), batch=target.batch, types=types, source=source)
        self._input, self._output = inputs[0].name, outputs[0].name
        self._type = np.dtype(described[0][1])
        return ends

    def _run(self, images: Array) -> Array:
        with _session_errors(self.target):
            (output,) = self._session.run([self._output], {self._input: images.astype(self._type)})
        return np.ascontiguousarray(output, dtype=np.float32)

    def _prepare(self, images: Array) -> Callable[[], None]:
        index = self.target.gpu_index
        images = images.astype(self._type)
        with _session_errors(self.target):
            (output,) = self._session.run([self._output], {self._input: images})
            binding = self._session.io_binding()
            for name, array, bind in (
                (self._input, images, binding.bind_ortvalue_input),
                (self._output, output, binding.bind_ortvalue_output),
            ):
                bind(name, ort.OrtValue.ortvalue_from_numpy(array, _MEMORY, index))
            # The provider waits for the GPU at the end of a run.
            call = partial(self._session.run_with_iobinding, binding)
            call()
        return call


def check_provider() -> None:
    """Check that the installed ONNX Runtime was built with the CUDA provider.

    Raises:
        UserError: it was not.
    """
    if PROVIDER not in ort.get_available_providers():
        raise UserError(
            f"ONNX Runtime {ort.__version__} comes without its CUDA provider; run "
            "`pip uninstall onnxruntime` and `pip install 'onnxruntime-gpu[cuda,cudnn]'`"
        )


def check_start() -> None:
    """Check that the provider starts on the first GPU and computes; it takes a second or so.

    Raises:
        UserError: it is not built in, or lacks a library, driver or GPU.
    """
    check_provider()
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 1)) for name in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Relu", ["input"], ["output"])], "one", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    target = Target(device="cuda")
    session = _session(model.SerializeToString(), target, "a network of one operator")
    with _session_errors(target):
        session.run(None, {"input": np.zeros((1, 1), np.float32)})


@contextmanager
def _session_errors(target: Target) -> Iterator[None]:
    """Turn what a session does not run into one line, as ``gpu_errors`` does for PyTorch."""
    try:
        yield
    except Exception as error:  # the bindings raise a dozen unrelated classes
        if any(words in str(error) for words in _OUT_OF_MEMORY):
            raise too_little_memory(target) from error
        raise cannot_run(target, error) from error


def _session(model: bytes, target: Target, source: str) -> ort.InferenceSession:
    if hasattr(ort, "preload_dlls"):
        with redirect_stdout(io.StringIO()):  # it prints what it does not find, also into JSON
            ort.preload_dlls()  # CUDA's and cuDNN's libraries, which PyTorch's packages bring
    ort.set_default_logger_severity(4)  # a page of text where the provider does not start
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    settings = {
        "device_id": target.gpu_index,
        "use_tf32": 0,  # fp32 is float32 throughout, on every backend
        "cudnn_conv_algo_search": "EXHAUSTIVE",
    }
    try:
        # Its own fallback would compute on the CPU in the GPU's name, and print a page.
        session = ort.InferenceSession(model, options, providers=[(PROVIDER, settings)], enable_fallback=0)
    except Exception as error:  # the bindings raise a dozen unrelated classes
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{source} does not load in ONNX Runtime {ort.__version__}: {line}") from error
    if PROVIDER not in session.get_providers():  # it falls back to the CPU by itself, without an error
        raise UserError(
            f"ONNX Runtime {ort.__version__} cannot start its CUDA provider; it needs the CUDA and "
            "cuDNN that it was built for"
        )
    return session
