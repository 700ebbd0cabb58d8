"""Engines by the name of the target's backend: a bundle's model becomes a callable from input to logits."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Optional

from .refusal import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Run = Callable[[Floats], Floats]
    Read = Callable[[str], bytes]

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""Of ONNX Runtime, by the word for it on the command line."""


def open_session(
    manifest: dict[str, Any],
    read: Read,
    threads: int,
    provider: Optional[str] = None,  # noqa: UP045 - old Pythons run this
) -> Run:
    """Return what runs the network on one full batch, float32 [B, 3, r, r], and gives logits [B, classes].

    Args:
        manifest: of the bundle.
        read: gives a file of the bundle by its name, checked against the manifest.
        threads: that compute on a CPU.
        provider: of ONNX Runtime, one of ``PROVIDERS``, instead of the target's.

    Raises:
        BadInput: a backend that this runner does not know, a missing package, or a model that does not
            load.
    """
    backend = str(manifest["target"]["backend"])
    if provider is not None and backend != "onnxruntime":
        raise BadInput(f"is for backend {backend}; --provider is for ONNX Runtime's bundles")
    if backend == "onnxruntime":
        on_gpu = str(manifest["target"].get("device", "cpu")) != "cpu"
        return _open_onnxruntime(manifest, read, threads, provider or ("cuda" if on_gpu else "cpu"))
    if backend == "openvino":
        return _open_openvino(manifest, read, threads)
    if backend in ("tensorrt", "tensorrt-rtx"):
        from .tensorrt import open_tensorrt

        return open_tensorrt(manifest, read)
    known = "onnxruntime, openvino, tensorrt, tensorrt-rtx"
    raise BadInput(f"is for backend {backend}, this runner runs {known}; export it for that")


def load_package(name: str, pip: str) -> Any:
    """Import an engine's package.

    Raises:
        BadInput: it is missing, or does not find its libraries.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        line = (str(error).splitlines() or ["no reason"])[0]
        raise BadInput(f"needs {name}: {line}; run `pip install {pip}`") from None


def open_models(
    manifest: dict[str, Any],
    files: list[str],
    name: str,
    outputs: list[list[str]],
    read: Read,
    threads: int,
    provider: Optional[str] = None,  # noqa: UP045 - old Pythons run this
) -> list[Callable[[Floats], list[Floats]]]:
    """Return what runs each of several ONNX files on one full batch of its input, and gives its outputs.

    Args:
        manifest: of the bundle.
        files: their names.
        name: of the input of each.
        outputs: names of what each gives.
        read: as of ``open_session``.
        threads: as of ``open_session``.
        provider: as of ``open_session``.

    Raises:
        BadInput: as ``open_session``.
    """
    backend = str(manifest["target"]["backend"])
    if backend != "onnxruntime":
        raise BadInput(f"has stages for backend {backend}, this runner runs those of onnxruntime")
    opened = [_onnxruntime_session(file, read, threads, provider or "cpu", alone=False) for file in files]

    def runner(session: Any, wanted: list[str]) -> Callable[[Floats], list[Floats]]:
        return lambda values: session.run(wanted, {name: values})

    return [runner(session, wanted) for session, wanted in zip(opened, outputs)]


def _open_onnxruntime(manifest: dict[str, Any], read: Read, threads: int, provider: str) -> Run:
    session = _onnxruntime_session(str(manifest["model"]), read, threads, provider)
    run, name, outputs = session.run, str(manifest["input"]["name"]), [str(manifest["output"]["name"])]
    return lambda images: run(outputs, {name: images})[0]


def _onnxruntime_session(model: str, read: Read, threads: int, provider: str, *, alone: bool = True) -> Any:
    ort = load_package("onnxruntime", "onnxruntime" if provider == "cpu" else "onnxruntime-gpu")
    wanted = PROVIDERS[provider]
    if wanted not in ort.get_available_providers():
        have = ", ".join(word for word, name in PROVIDERS.items() if name in ort.get_available_providers())
        raise BadInput(
            f"wants provider {provider}, onnxruntime {ort.__version__} here has {have}; run "
            "`pip install onnxruntime-gpu`, or give --provider cpu"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not alone:
        # Its workers would spin on behind its run, on the cores that the next one wants.
        options.add_session_config_entry("session.force_spinning_stop", "1")
    # What TensorRT does not run, CUDA does; the rest is the CPU's.
    providers = {"tensorrt": [wanted, PROVIDERS["cuda"]]}.get(provider, [wanted])
    try:
        session = ort.InferenceSession(read(model), options, providers=providers)
    except BadInput:
        raise
    except Exception as error:  # the bindings raise a dozen unrelated classes
        line = f"does not run in onnxruntime {ort.__version__}: {error}".partition("\n")[0]
        raise BadInput(line) from None
    if wanted not in session.get_providers():  # it falls back to the CPU by itself, without an error
        raise BadInput(f"cannot start provider {provider} of onnxruntime {ort.__version__}; see its set-up")
    return session


def _open_openvino(manifest: dict[str, Any], read: Read, threads: int) -> Run:
    ov = load_package("openvino", "openvino")
    name, precision = str(manifest["model"]), str(manifest["target"]["precision"])
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        # Without a hint, float operators run in bfloat16 wherever the CPU can.
        "INFERENCE_PRECISION_HINT": ov.Type.bf16 if precision == "bf16" else ov.Type.f32,
    }
    weights = name[: -len(".xml")] + ".bin"
    try:
        core = ov.Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise BadInput("is in bf16, which this CPU does not compute in; export it in fp32 or int8")
        compiled = core.compile_model(core.read_model(read(name), read(weights)), "CPU", settings)
        request = compiled.create_infer_request()
    except BadInput:
        raise
    except Exception as error:  # the bindings raise RuntimeError with a page of text
        line = (str(error).strip().splitlines() or ["no reason"])[-1]
        raise BadInput(f"does not run in openvino {ov.__version__}: {line}") from None
    return lambda images: request.infer([images], share_inputs=True)[0].copy()
