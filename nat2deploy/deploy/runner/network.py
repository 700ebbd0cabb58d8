"""The bundle's network: its file checked against the manifest, from pixels to the likeliest classes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from .preprocess import preprocess
from .refusal import MAX_THREADS, BadInput
from .session import open_session
from .stages import Stages

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    from .session import Run

    Floats = NDArray[np.float32]

MANIFEST_NAME = "manifest.json"
MAX_RESOLUTION = 4096


class Network:
    """The network of the bundle in ``folder``.

    Args:
        folder: of the bundle.
        threads: instead of the target's.
        provider: of ONNX Runtime, instead of the target's.
        device_id: of the GPU, as CUDA counts; 0 by default.

    Attributes:
        manifest: as it stands in the file.
        labels: one a class.
        shape: of the input, (batch, 3, r, r).
        spec: the preprocessing.
        threads: that compute.
        run: the engine on one full batch; ``logits`` takes any number of images.
        stages: what stops when it is sure, in bundles that do; ``run`` then runs all of it.

    Raises:
        BadInput: a manifest or model that is missing, damaged or changed, or one for another engine.
    """

    def __init__(
        self, folder: Path, threads: int | None, provider: str | None = None, device_id: int | None = None
    ) -> None:
        try:
            manifest: dict[str, Any] = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
            name = str(manifest["model"])
            self.labels = [str(label) for label in manifest["output"]["labels"]]
            self.shape = tuple(int(size) for size in manifest["input"]["shape"])
            self.spec = dict(manifest["input"]["preprocessing"])
            resolution = int(self.spec["resolution"])
            fits = self.shape[1:] == (3, resolution, resolution) and 0 < resolution <= MAX_RESOLUTION
            if Path(name).name != name or not fits:
                raise ValueError(name)
            preprocess(np.zeros((1, 1, 3), np.uint8), self.spec)
            self.threads = threads or int(manifest["target"]["threads"])
            self.precision = str(manifest["target"]["precision"])
            self._files = {str(key): str(value) for key, value in manifest["files"].items()}
            batches = (manifest.get("engine") or {}).get("batches") or [self.shape[0]]
            self._batches = (int(batches[0]), int(batches[-1]))
            if name not in self._files:
                raise ValueError(name)
        except (
            OSError, ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError,
            TypeError, ValueError,
        ):  # fmt: skip
            raise BadInput(f"{folder}: model or manifest missing or damaged; export it again") from None
        if not 1 <= self.threads <= MAX_THREADS:
            raise BadInput(f"{folder}: {self.threads} threads; give 1 to {MAX_THREADS}")
        self.folder, self.manifest = folder, manifest
        self.read(name)
        self.stages: Optional[Stages] = None  # noqa: UP045 - old Pythons run this
        self.run: Run
        try:
            if manifest.get("stages"):
                stages = self.stages = Stages(manifest, self.read, self.threads, provider, device_id)
                self.run = lambda images: stages.answers(images)[-1]
            else:
                self.run = open_session(manifest, self.read, self.threads, provider, device_id)
            if self.run(np.zeros(self.shape, np.float32)).shape != (self.shape[0], len(self.labels)):
                raise BadInput("has an output that its labels do not fit; export it again")
        except Exception as error:  # engines raise a dozen unrelated classes
            line = str(error).partition("\n")[0]
            raise BadInput(line if line.startswith(str(folder)) else f"{folder / name}: {line}") from None

    def read(self, name: str) -> bytes:
        """Return the content of a file of the bundle.

        Raises:
            BadInput: missing, changed, or not in the manifest.
        """
        try:
            data = (self.folder / name).read_bytes()
        except (OSError, ValueError):
            raise BadInput(f"{self.folder / name}: missing; export it again") from None
        if hashlib.sha256(data).hexdigest() != self._files.get(name):
            raise BadInput(f"{self.folder / name}: changed (hash differs); export it again")
        return data

    def logits(self, images: Floats) -> Floats:
        """Run on any number of inputs [N, 3, r, r], filling up the last batch; returns [N, classes]."""
        least, most = self._batches
        if least <= len(images) <= most:
            return self.run(images)
        outputs = []
        for start in range(0, len(images), most):
            part = images[start : start + most]
            if len(part) < least:
                full = np.zeros((least, *self.shape[1:]), np.float32)
                full[: len(part)] = part
                outputs.append(self.run(full)[: len(part)])
            else:
                outputs.append(self.run(part))
        return np.concatenate(outputs)

    def exit_logits(self, images: Floats) -> Floats:
        """What each exit answers for any number of inputs [N, 3, r, r]: [exits, N, classes].

        Without stages the network is its only exit.
        """
        if self.stages is None:
            return self.logits(images)[None]
        found = []
        for start in range(0, len(images), self.shape[0]):
            part, count = self._full(images[start : start + self.shape[0]])
            found.append(self.stages.answers(part)[:, :count])
        return np.concatenate(found, axis=1)

    def answer(self, image: Pixels, top: int) -> dict[str, Any]:
        """Classify one RGB image [H, W, 3].

        Returns:
            ``top``: the most likely classes with their scores (softmax); ``exit``: of stages the one that
            answered, counted from 1.
        """
        return self.answers(preprocess(image, self.spec)[None], top)[0]

    def answers(self, images: Floats, top: int) -> list[dict[str, Any]]:
        """Classify any number of inputs [N, 3, r, r], a batch at a time; each as ``answer`` does."""
        if self.stages is None:
            return [{"top": self.best(logits, top)} for logits in self.logits(images)]
        found = []
        for start in range(0, len(images), self.shape[0]):
            logits, exits = self.stages.decide(*self._full(images[start : start + self.shape[0]]))
            found += [{"top": self.best(one, top), "exit": exit_} for one, exit_ in zip(logits, exits)]
        return found

    def _full(self, images: Floats) -> tuple[Floats, int]:
        """A full batch, filled up with zeros, and how many images of it are real."""
        count = len(images)
        if count == self.shape[0]:
            return images, count
        full = np.zeros(self.shape, np.float32)
        full[:count] = images
        return full, count

    def classify(self, image: Pixels, top: int) -> list[dict[str, Any]]:
        """Return the ``top`` most likely classes of one RGB image [H, W, 3] with their scores (softmax)."""
        found: list[dict[str, Any]] = self.answer(image, top)["top"]
        return found

    def best(self, logits: Floats, top: int) -> list[dict[str, Any]]:
        """Return the ``top`` most likely classes of logits [classes] with their scores (softmax)."""
        exact = logits.astype(np.float64)
        scores = np.exp(exact - exact.max())
        scores /= scores.sum()
        best = np.argsort(-scores, kind="stable")[:top]
        return [{"label": self.labels[i], "index": int(i), "score": float(scores[i])} for i in best]
