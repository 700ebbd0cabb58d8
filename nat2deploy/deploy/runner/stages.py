"""A network that stops when it is sure: its stages one after another, with a look at each exit's answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from .confidence import CONFIDENCES
from .refusal import BadInput
from .session import open_models

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .session import Read

    Floats = NDArray[np.float32]

FEATURES = "features"
"""What a stage hands on to the next, by its name in the ONNX file."""


class Stages:
    """The stages of a bundle, each of which ends with an exit.

    An image leaves at the first exit that is sure enough, and that exit's answer is its own. A batch goes on
    until its last image has left.

    Args:
        manifest: of the bundle, with ``stages``.
        read: gives a file of the bundle by its name, checked against the manifest.
        threads: that compute.
        provider: of ONNX Runtime, instead of the CPU.
        device_id: of the GPU, as CUDA counts, where the provider has one.

    Attributes:
        count: how many exits there are.
        shares: of test images (or validation images, where none were judged) that left at each.

    Raises:
        BadInput: a manifest without sense, a missing package, or a model that does not load.
    """

    def __init__(
        self,
        manifest: dict[str, Any],
        read: Read,
        threads: int,
        provider: Optional[str] = None,  # noqa: UP045 - old Pythons run this
        device_id: Optional[int] = None,  # noqa: UP045
    ) -> None:
        try:
            spec = manifest["stages"]
            exits = list(spec["exits"])
            self._confidence = CONFIDENCES[str(spec["confidence"])]
            thresholds = [one["threshold"] for one in exits]
            self._thresholds = [None if one is None else float(one) for one in thresholds]
            totals = np.cumsum([float(one["weight"]) for one in exits])
            self._scales = [np.float32(1 / total if total > 0 else 0) for total in totals]
            files = [str(one["file"]) for one in exits]
            self.shares = [float(share) for share in (spec.get("test") or spec["validation"])["shares"]]
            name, output = str(manifest["input"]["name"]), str(manifest["output"]["name"])
            if not len(exits) == len(self.shares) > 0:
                raise ValueError(exits)
        except (LookupError, TypeError, ValueError):
            raise BadInput("has stages that its manifest does not describe; export it again") from None
        self.count = len(exits)
        outputs = [[output, FEATURES]] * (self.count - 1) + [[output]]
        self._run = open_models(manifest, files, name, outputs, read, threads, provider, device_id)

    def answers(self, images: Floats) -> Floats:
        """What each exit answers for one full batch [B, 3, r, r]: logits [exits, B, classes]."""
        found: list[Floats] = []
        total: Any = 0
        features = images
        for run, scale in zip(self._run, self._scales):
            logits, *more = run(features)
            total = total + logits
            found.append(total * scale)
            features = more[0] if more else features
        return np.stack(found)

    def decide(self, images: Floats, count: int) -> tuple[Floats, list[int]]:
        """Stop when sure: of one full batch, whose first ``count`` images are real.

        Returns:
            Logits [B, classes], and the exit that gave each real image its own, counted from 1.
        """
        exits = [0] * count
        kept: Any = None
        total: Any = 0
        features = images
        for number, (run, scale, threshold) in enumerate(
            zip(self._run, self._scales, self._thresholds), start=1
        ):
            logits, *more = run(features)
            total = total + logits
            answer = total * scale
            last = number == self.count
            if kept is None:
                kept = answer.copy() if count > 1 else answer
            for place, row in enumerate(answer[:count].tolist()):
                sure = last or (threshold is not None and self._confidence(row) >= threshold)
                if sure and not exits[place]:
                    exits[place] = number
                    kept[place] = answer[place]
            if all(exits):
                break
            features = more[0]
        return kept, exits

    def up_to(self, images: Floats, exits: int) -> None:
        """Run what is run for an image that leaves at an exit, counted from 1: to time it."""
        total: Any = 0
        features = images
        for run, scale in zip(self._run[:exits], self._scales[: self.count - 1]):
            logits, *more = run(features)
            total = total + logits
            for row in (total * scale).tolist():
                self._confidence(row)
            features = more[0] if more else features
        if exits == self.count:
            self._run[-1](features)
