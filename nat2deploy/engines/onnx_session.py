"""One ONNX Runtime session on the CPU, by numpy and onnxruntime alone: for the agent on a device, too."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from nat2deploy.engines.cores import cores_for
from nat2deploy.engines.ends import BYTE_TYPES, WHOLE_TYPES, check_ends
from nat2deploy.errors import UserError

Array = NDArray[Any]

# After a run, a worker thread waits for the next one by spinning: about 30 ms by default. Where many engines
# are timed in turn, the last one's workers then take cores from the next one (it was seen twice too slow on
# two cores). Within a run and between back-to-back runs no wait is as long as 1 ms, so this changes nothing
# there.
_SPIN_US = 1000


class OnnxSession:
    """An ONNX model in an ONNX Runtime session on the CPU, all graph optimisations on.

    Args:
        model: the bytes of an ONNX file with one float32 input and one output, weights inside; both may be
            uint8 where it may be one of ``parts``.
        threads: that compute; the first is the calling one.
        batch: images at a time.
        parts: whether the model may be a part of an int8 network.
        source: where the model came from, for errors.
        exact: run each operator as it stands: 8 bits are then simulated in float, without a kernel's limits.

    Attributes:
        ends: what the input is like.

    Raises:
        UserError: not an ONNX model, or one with other inputs, outputs or batch.
    """

    def __init__(
        self, model: bytes, *, threads: int, batch: int, parts: bool, source: str, exact: bool = False
    ) -> None:
        self.session = open_session(model, threads, source, exact=exact)
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        described = [(value.name, type_name(value.type), sizes(value.shape)) for value in inputs]
        types = BYTE_TYPES if parts else WHOLE_TYPES
        self.ends = check_ends(described, len(outputs), batch=batch, types=types, source=source)
        self._input, self._output = inputs[0].name, outputs[0].name

    def run(self, images: Array) -> Array:
        """Run the network once on images as ``ends`` says and return its output, a fresh array."""
        (output,) = self.session.run([self._output], {self._input: images})
        return output if output.dtype == np.uint8 else np.ascontiguousarray(output, dtype=np.float32)

    def prepare(self, images: Array) -> Callable[[], None]:
        """Bind a copy of ``images`` and return the leanest callable that runs the network on it."""
        # Bound buffers spare the feed dictionary and a fresh output array in every call: 2.4 µs a call
        # against 3.6 µs of session.run. They are ONNX Runtime's own, so they are aligned and live with it.
        binding = self.session.io_binding()
        for name, array, bind in (
            (self._input, images, binding.bind_ortvalue_input),
            (self._output, self.run(images), binding.bind_ortvalue_output),
        ):
            buffer = ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), array.dtype.type, "cpu")
            buffer.update_inplace(array)
            bind(name, buffer)
        return partial(self.session.run_with_iobinding, binding)


def open_session(
    model: bytes, threads: int, source: str, *, exact: bool = False, one_of_several: bool = False
) -> ort.InferenceSession:
    """Open a session as ``OnnxSession`` does.

    The workers of ``one_of_several``, which are run one after another, stop spinning when its run is over:
    they would take the cores of the next one's.

    Raises:
        UserError: the model does not load.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_DISABLE_ALL if exact else levels.ORT_ENABLE_ALL
    options.log_severity_level = 3
    if threads > 1 and one_of_several:
        options.add_session_config_entry("session.force_spinning_stop", "1")
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


def type_name(kind: str) -> str:
    """Such as ``float32`` of ``tensor(float)``."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    return "float32" if name == "float" else name


def sizes(shape: list[int | str | None]) -> list[int | None]:
    """Return a shape with None for each free size."""
    return [size if isinstance(size, int) else None for size in shape]
