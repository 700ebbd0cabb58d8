"""The stages of a network with early exits, one ONNX Runtime session each, by numpy and onnxruntime alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from nat2deploy.deploy.runner.confidence import CONFIDENCES
from nat2deploy.engines.ends import WHOLE_TYPES, check_ends
from nat2deploy.engines.onnx_session import open_session, sizes, type_name
from nat2deploy.errors import UserError

Array = NDArray[Any]


class StageChain:
    """Stages that hand features on, each of which ends with the weighted logits of an exit.

    Args:
        models: the bytes of an ONNX file a stage: one float32 input; outputs logits [B, classes] and, but for
            the last, features, in this order.
        weights: of each exit in the ensemble; they are in the logits already.
        confidence: the measure by which images leave, see ``deploy.runner.confidence``.
        threads: that compute; the first is the calling one.
        batch: images at a time.
        source: where the models came from, for errors.

    Attributes:
        ends: what the input of the first stage is like.

    Raises:
        UserError: not ONNX models, or ones with other inputs, outputs or batch.
    """

    def __init__(
        self,
        models: Sequence[bytes],
        weights: Sequence[float],
        *,
        confidence: str,
        threads: int,
        batch: int,
        source: str,
    ) -> None:
        if not models or len(models) != len(weights):
            raise UserError(f"{source} has {len(models)} stages and {len(weights)} weights; export it again")
        self.confidence = confidence
        # The sum of the logits up to an exit becomes the mean that it answers with.
        scales = [1.0 / total if total > 0 else 0.0 for total in np.cumsum(weights)]
        self.sessions = []
        ends = []
        for index, model in enumerate(models):
            name = f"stage {index + 1} of {source}"
            session = open_session(model, threads, name, one_of_several=True)
            inputs, outputs = session.get_inputs(), session.get_outputs()
            described = [(value.name, type_name(value.type), sizes(value.shape)) for value in inputs]
            wanted = 1 if index + 1 == len(models) else 2
            ends.append(
                check_ends(
                    described,
                    len(outputs),
                    batch=batch,
                    types=WHOLE_TYPES,
                    source=name,
                    wanted_outputs=wanted,
                )
            )
            names = [value.name for value in outputs]
            self.sessions.append((session, inputs[0].name, names, scales[index]))
        self.ends = ends[0]

    def answers(self, images: Array) -> Array:
        """What each exit answers for a batch as ``ends`` says: logits [exits, B, classes], a fresh array."""
        total: Any = 0.0
        found = []
        for session, source, outputs, scale in self.sessions:
            logits, *features = session.run(outputs, {source: images})
            total = total + logits
            found.append(total * np.float32(scale))
            images = features[0] if features else images
        return np.stack(found)

    def prepare(self, images: Array, exits: int) -> Callable[[], None]:
        """Bind a copy of ``images`` and return what runs all that is run for one that leaves at an exit.

        That is the first ``exits`` stages, and behind each but the last of all the look whether it is sure
        enough. Each stage reads the features from where the one before wrote them.
        """
        steps = []
        held = _value(images)
        for index, (session, source, outputs, scale) in enumerate(self.sessions[:exits]):
            binding = session.io_binding()
            binding.bind_ortvalue_input(source, held)
            shown = session.run_with_ort_values(outputs, {source: held})
            results = [_value(value.numpy()) for value in shown]
            for place, value in enumerate(results):
                binding.bind_ortvalue_output(outputs[place], value)
            looks = index + 1 < len(self.sessions)
            steps.append((session.run_with_iobinding, binding, results[0], scale, looks))
            held = results[-1]
        measure = CONFIDENCES[self.confidence]

        def run() -> None:
            total: Any = 0.0
            for step, binding, logits, scale, looks in steps:
                step(binding)
                if looks:
                    total = total + logits.numpy()
                    for image in (total * scale).tolist():
                        measure(image)

        return run


def _value(array: Array) -> Any:
    """A copy of an array in memory of ONNX Runtime's own."""
    buffer = ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), array.dtype.type, "cpu")
    buffer.update_inplace(np.ascontiguousarray(array))
    return buffer
