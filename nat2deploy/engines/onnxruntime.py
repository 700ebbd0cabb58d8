"""ONNX Runtime on the CPU: the backend that edge bundles run with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
from torch import nn

from nat2deploy.engines.base import WHOLE, Array, Borders, Engine, Images, check_shape
from nat2deploy.engines.cores import cores_for
from nat2deploy.engines.quantise import target_onnx
from nat2deploy.errors import UserError
from nat2deploy.target import Target

# After a run, a worker thread waits for the next one by spinning: about 30 ms by default. Where many engines
# are timed in turn, the last one's workers then take cores from the next one (it was seen twice too slow on
# two cores). Within a run and between back-to-back runs no wait is as long as 1 ms, so this changes nothing
# there.
_SPIN_US = 1000


class OnnxRuntimeEngine(Engine):
    """An ONNX model in an ONNX Runtime session on the CPU, all graph optimisations on.

    Args:
        model: the bytes of an ONNX file with one float32 input and one output, weights inside; for an int8
            target both may be uint8.
        target: its threads and batch are what the session uses.
        source: where the model came from, for errors.

    Raises:
        UserError: not an ONNX model, or one with other inputs, outputs or batch.
    """

    def __init__(self, model: bytes, target: Target, *, source: str = "the ONNX model") -> None:
        session = _session(model, target, source)
        self.model = model
        self._session = session
        self._input, shape, any_batch, input_type = _input(session, target, source)
        outputs = session.get_outputs()
        if len(outputs) != 1:
            raise UserError(f"{source} has {len(outputs)} outputs; nat2deploy runs models with one")
        self._output = outputs[0].name
        super().__init__(target, shape, any_batch=any_batch, input_type=input_type)

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        target: Target,
        input_shape: tuple[int, ...],
        *,
        calibration: Images | None = None,
        borders: Borders = WHOLE,
    ) -> OnnxRuntimeEngine:
        """Export ``module`` (evaluation mode) with a fixed ``input_shape`` and compile it.

        ``calibration`` and ``borders`` are as in ``target_onnx``.

        Raises:
            UserError: the module cannot be exported or quantised, or the shape has another batch than the
                target.
        """
        check_shape(target, input_shape)
        model = target_onnx(module, target, input_shape, calibration, borders)
        return cls(model, target, source="the exported network")

    @classmethod
    def from_file(cls, path: Path, target: Target) -> OnnxRuntimeEngine:
        """Compile the ONNX file ``path``.

        Raises:
            UserError: missing, unreadable, not ONNX, or not one input and one output.
        """
        try:
            model = path.read_bytes()
        except FileNotFoundError as error:
            raise UserError(f"no ONNX model at {path}; check the path") from error
        except OSError as error:
            raise UserError(f"cannot read the ONNX model {path}: {error.strerror}") from error
        return cls(model, target, source=str(path))

    def _run(self, images: Array) -> Array:
        (output,) = self._session.run([self._output], {self._input: images})
        return output if output.dtype == np.uint8 else np.ascontiguousarray(output, dtype=np.float32)

    def _prepare(self, images: Array) -> Callable[[], None]:
        # Bound buffers spare the feed dictionary and a fresh output array in every call: 2.4 µs a call
        # against 3.6 µs of session.run. They are ONNX Runtime's own, so they are aligned and live with it.
        binding = self._session.io_binding()
        for name, array, bind in (
            (self._input, images, binding.bind_ortvalue_input),
            (self._output, self._run(images), binding.bind_ortvalue_output),
        ):
            buffer = ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), array.dtype.type, "cpu")
            buffer.update_inplace(array)
            bind(name, buffer)
        return partial(self._session.run_with_iobinding, binding)

    def _save(self, path: Path) -> None:
        path.write_bytes(self.model)


def _session(model: bytes, target: Target, source: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = target.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    if target.threads > 1:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
        # A core for each worker; the first is the calling thread's. ONNX Runtime counts cores from one.
        workers = ";".join(str(core + 1) for core in cores_for(target.threads)[1:])
        if workers:
            options.add_session_config_entry("session.intra_op_thread_affinities", workers)
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the bindings raise a dozen unrelated classes
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{source} does not load in ONNX Runtime {ort.__version__}: {line}") from error


def _input(
    session: ort.InferenceSession, target: Target, source: str
) -> tuple[str, tuple[int, ...], bool, type[np.float32] | type[np.uint8]]:
    """Return the input's name, its shape with the target's batch, whether the batch is free, and its type."""
    inputs = session.get_inputs()
    types: dict[str, type[np.float32] | type[np.uint8]] = {"tensor(float)": np.float32}
    if target.precision == "int8":
        types["tensor(uint8)"] = np.uint8  # a part of a network
    if len(inputs) != 1 or inputs[0].type not in types:
        given = ", ".join(f"{value.name}: {value.type}" for value in inputs) or "none"
        raise UserError(f"{source} has the inputs ({given}); nat2deploy runs models with one float32 input")
    shape = list(inputs[0].shape)
    any_batch = bool(shape) and not isinstance(shape[0], int)
    if any_batch:
        shape[0] = target.batch
    if not all(isinstance(size, int) for size in shape):
        raise UserError(f"{source} has an input of free size {inputs[0].shape}; export it with fixed sizes")
    if shape and shape[0] != target.batch:
        raise UserError(
            f"{source} has a batch of {shape[0]}, the target ({target}) one of {target.batch}; "
            "export it again or set the target's batch"
        )
    return inputs[0].name, tuple(shape), any_batch, types[inputs[0].type]
