"""How large activations get on calibration images: by their extremes, by entropy or by percentile."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from nat2deploy.engines.base import Images
from nat2deploy.engines.onnx_export import INPUT
from nat2deploy.errors import UserError

Method = Literal["min-max", "entropy", "percentile"]

# Of min-max, all outputs of a chunk are held at once; histograms grow with each.
_CHUNK_IMAGES = 64
# Entropy looks for the range whose 128 levels lose the least information of these bins (TensorRT's method,
# Migacz 2017). ONNX Runtime's own default of 128 bins leaves it one range to choose from: the whole.
_ENTROPY_BINS = 512
_PERCENTILE = 99.99
_METHODS: dict[Method, tuple[CalibrationMethod, dict[str, Any]]] = {
    "min-max": (CalibrationMethod.MinMax, {}),
    "entropy": (CalibrationMethod.Entropy, {"symmetric": False, "num_bins": _ENTROPY_BINS}),
    "percentile": (CalibrationMethod.Percentile, {"symmetric": False, "percentile": _PERCENTILE}),
}

OPERATORS: tuple[str, ...] = tuple(sorted({*QDQRegistry, *QLinearOpsRegistry}))
"""The operators that ONNX Runtime's quantiser knows."""


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
    """Hands out batches one by one."""

    def __init__(self, batches: list[Images]) -> None:
        self._left = iter(batches)

    def get_next(self) -> dict[str, Images] | None:
        """The next input by name, or None at the end."""
        batch = next(self._left, None)
        return None if batch is None else {INPUT: batch}


def activation_ranges(proto: onnx.ModelProto, images: Images, method: Method) -> Any:
    """Run a float model on calibration images and say from where to where each activation is quantised.

    Args:
        proto: of one float32 ``input``, whose batch is fixed or free (0).
        images: float32 [N, ...], the input's shape but for the batch; any N above zero.
        method: ``min-max`` keeps all values, ``percentile`` 99.99 % of them, ``entropy`` those of the range
            that loses the least information.

    Returns:
        ONNX Runtime's ``TensorsData``, by tensor.

    Raises:
        UserError: images of another type or shape, not finite, or a model that does not run.
    """
    batches = _batches(images, _shape(proto.graph.input[0]))
    kind, settings = _METHODS[method]
    with tempfile.TemporaryDirectory(prefix="nat2deploy-") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(proto, path)
        calibrator = create_calibrator(
            path,
            list(OPERATORS),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=kind,
            extra_options=settings,
        )
        step = max(1, _CHUNK_IMAGES // len(batches[0]))
        for start in range(0, len(batches), step):
            calibrator.collect_data(_Reader(batches[start : start + step]))
        return calibrator.compute_data()


def _batches(calibration: Images, shape: tuple[int, ...]) -> list[Images]:
    """Cut the calibration images into batches of the model; the last one is filled up from the front."""
    wanted = " x ".join(map(str, shape[1:]))
    if calibration.dtype != np.float32 or calibration.shape[1:] != shape[1:] or len(calibration) == 0:
        given = " x ".join(map(str, calibration.shape))
        raise UserError(f"calibration is {calibration.dtype} of {given}; give float32 of N x {wanted}")
    if not np.isfinite(calibration).all():
        raise UserError("calibration images hold values that are not finite; leave those images out")
    size = shape[0] or 1
    filled = np.take(calibration, range(-(-len(calibration) // size) * size), axis=0, mode="wrap")
    return list(filled.reshape(-1, size, *shape[1:]))


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
