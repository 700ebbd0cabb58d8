"""Engines by the name of the target's backend: a model's bytes become a callable from input to logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnxruntime as ort

from .refusal import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Run = Callable[[Floats], Floats]


def open_session(backend: str, model: bytes, manifest: dict[str, Any], threads: int) -> Run:
    """Return what runs the network on one full batch, float32 [B, 3, r, r], and gives logits [B, classes].

    Args:
        backend: of the manifest's target.
        model: the bytes of the model file.
        manifest: for the names of input and output.
        threads: that compute.

    Raises:
        BadInput: a backend that this runner does not know, or a model that does not load.
    """
    if backend not in _OPEN:
        raise BadInput(f"is for backend {backend}, this runner runs {', '.join(_OPEN)}; export it for that")
    return _OPEN[backend](model, manifest, threads)


def _open_onnxruntime(model: bytes, manifest: dict[str, Any], threads: int) -> Run:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the bindings raise a dozen unrelated classes
        line = f"does not run in onnxruntime {ort.__version__}: {error}".partition("\n")[0]
        raise BadInput(line) from None
    run, name, outputs = session.run, str(manifest["input"]["name"]), [str(manifest["output"]["name"])]
    return lambda images: run(outputs, {name: images})[0]


_OPEN: dict[str, Callable[[bytes, dict[str, Any], int], Run]] = {"onnxruntime": _open_onnxruntime}
