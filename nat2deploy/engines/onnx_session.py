"""One ONNX Runtime session on the CPU, by numpy and onnxruntime alone: for the agent on a device, too."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from nat2deploy.engines.cores import cores_for
from nat2deploy.errors import UserError

Floats = NDArray[np.float32]

# After a run, a worker thread waits for the next one by spinning: about 30 ms by default. Where many engines
# are timed in turn, the last one's workers then take cores from the next one (it was seen twice too slow on
# two cores). Within a run and between back-to-back runs no wait is as long as 1 ms, so this changes nothing
# there.
_SPIN_US = 1000


class OnnxSession:
    """An ONNX model in an ONNX Runtime session on the CPU, all graph optimisations on.

    Args:
        model: the bytes of an ONNX file with one float32 input and one output, weights inside.
        threads: that compute; the first is the calling one.
        batch: images at a time.
        source: where the model came from, for errors.

    Attributes:
        input_shape: the input with its batch first.
        any_batch: whether the model takes other batches, too.

    Raises:
        UserError: not an ONNX model, or one with other inputs, outputs or batch.
    """

    def __init__(self, model: bytes, *, threads: int, batch: int, source: str) -> None:
        self.session = _session(model, threads, source)
        self._input, self.input_shape, self.any_batch = _input(self.session, batch, source)
        outputs = self.session.get_outputs()
        if len(outputs) != 1:
            raise UserError(f"{source} has {len(outputs)} outputs; nat2deploy runs models with one")
        self._output = outputs[0].name

    def run(self, images: Floats) -> Floats:
        """Run the network once on images of ``input_shape`` and return its output, a fresh array."""
        (output,) = self.session.run([self._output], {self._input: images})
        return np.ascontiguousarray(output, dtype=np.float32)

    def prepare(self, images: Floats) -> Callable[[], None]:
        """Bind a copy of ``images`` and return the leanest callable that runs the network on it."""
        # Bound buffers spare the feed dictionary and a fresh output array in every call: 2.4 µs a call
        # against 3.6 µs of session.run. They are ONNX Runtime's own, so they are aligned and live with it.
        binding = self.session.io_binding()
        for name, array, bind in (
            (self._input, images, binding.bind_ortvalue_input),
            (self._output, self.run(images), binding.bind_ortvalue_output),
        ):
            buffer = ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), np.float32, "cpu")
            buffer.update_inplace(array)
            bind(name, buffer)
        return partial(self.session.run_with_iobinding, binding)


def _session(model: bytes, threads: int, source: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    if threads > 1:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
        # A core for each worker; the first is the calling thread's. ONNX Runtime counts cores from one.
        workers = ";".join(str(core + 1) for core in cores_for(threads)[1:])
        if workers:
            options.add_session_config_entry("session.intra_op_thread_affinities", workers)
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the bindings raise a dozen unrelated classes
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{source} does not load in ONNX Runtime {ort.__version__}: {line}") from error


def _input(session: ort.InferenceSession, batch: int, source: str) -> tuple[str, tuple[int, ...], bool]:
    """Return the input's name, its shape with the wanted batch, and whether the batch is free."""
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)":
        given = ", ".join(f"{value.name}: {value.type}" for value in inputs) or "none"
        raise UserError(f"{source} has the inputs ({given}); nat2deploy runs models with one float32 input")
    shape = list(inputs[0].shape)
    any_batch = bool(shape) and not isinstance(shape[0], int)
    if any_batch:
        shape[0] = batch
    if not all(isinstance(size, int) for size in shape):
        raise UserError(f"{source} has an input of free size {inputs[0].shape}; export it with fixed sizes")
    if shape and shape[0] != batch:
        raise UserError(
            f"{source} has a batch of {shape[0]}, the target one of {batch}; "
            "export it again or set the target's batch"
        )
    return inputs[0].name, tuple(shape), any_batch
