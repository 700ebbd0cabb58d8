"""Engines by the name of the target's backend: a bundle's model becomes a callable from input to logits."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import sys
from pathlib import Path
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
_GPU_PACKAGE = "onnxruntime-gpu[cuda,cudnn]"  # without these extras it comes without CUDA's libraries
_GPU_BACKENDS = ("tensorrt", "tensorrt-rtx")


def open_session(
    manifest: dict[str, Any],
    read: Read,
    threads: int,
    provider: Optional[str] = None,  # noqa: UP045 - old Pythons run this
    device_id: Optional[int] = None,  # noqa: UP045
) -> Run:
    """Return what runs the network on one full batch, float32 [B, 3, r, r], and gives logits [B, classes].

    Args:
        manifest: of the bundle.
        read: gives a file of the bundle by its name, checked against the manifest.
        threads: that compute on a CPU.
        provider: of ONNX Runtime, one of ``PROVIDERS``, instead of the target's.
        device_id: of the GPU, as CUDA counts; 0 by default, whichever GPU the target's is: devices differ.

    Raises:
        BadInput: a backend that this runner does not know, a missing package, a GPU's number for what runs
            on a CPU, or a model that does not load.
    """
    backend = str(manifest["target"]["backend"])
    if provider is not None and backend != "onnxruntime":
        raise BadInput(f"is for backend {backend}; --provider is for ONNX Runtime's bundles")
    if backend == "onnxruntime":
        on_gpu = str(manifest["target"].get("device", "cpu")) != "cpu"
        provider = provider or ("cuda" if on_gpu else "cpu")
        return _open_onnxruntime(manifest, read, threads, provider, device_id)
    if backend in _GPU_BACKENDS:
        from .tensorrt import open_tensorrt

        return open_tensorrt(manifest, read, device_id or 0)
    if backend == "openvino":
        _check_no_gpu(device_id)
        return _open_openvino(manifest, read, threads)
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
    device_id: Optional[int] = None,  # noqa: UP045
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
        device_id: as of ``open_session``.

    Raises:
        BadInput: as ``open_session``.
    """
    backend = str(manifest["target"]["backend"])
    if backend != "onnxruntime":
        raise BadInput(f"has stages for backend {backend}, this runner runs those of onnxruntime")
    provider = provider or "cpu"
    opened = [_onnxruntime_session(file, read, threads, provider, device_id, alone=False) for file in files]

    def runner(session: Any, wanted: list[str]) -> Callable[[Floats], list[Floats]]:
        return lambda values: session.run(wanted, {name: values})

    return [runner(session, wanted) for session, wanted in zip(opened, outputs)]


def _open_onnxruntime(
    manifest: dict[str, Any],
    read: Read,
    threads: int,
    provider: str,
    device_id: Optional[int],  # noqa: UP045
) -> Run:
    session = _onnxruntime_session(str(manifest["model"]), read, threads, provider, device_id)
    run, name, outputs = session.run, str(manifest["input"]["name"]), [str(manifest["output"]["name"])]
    return lambda images: run(outputs, {name: images})[0]


def _onnxruntime_session(
    model: str,
    read: Read,
    threads: int,
    provider: str,
    device_id: Optional[int],  # noqa: UP045
    *,
    alone: bool = True,
) -> Any:
    if provider == "cpu":
        _check_no_gpu(device_id)
    ort = load_package("onnxruntime", "onnxruntime" if provider == "cpu" else f"'{_GPU_PACKAGE}'")
    wanted = PROVIDERS[provider]
    if wanted not in ort.get_available_providers():
        have = ", ".join(word for word, name in PROVIDERS.items() if name in ort.get_available_providers())
        raise BadInput(
            f"wants provider {provider}, onnxruntime {ort.__version__} here has {have}; run "
            f"`pip uninstall onnxruntime` and `pip install '{_GPU_PACKAGE}'`, or give --provider cpu"
        )
    if provider != "cpu":
        ort.set_default_logger_severity(4)  # a page of text where the provider does not start
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not alone:
        # Its workers would spin on behind its run, on the cores that the next one wants.
        options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        # Both print where a library is missing.
        with contextlib.redirect_stdout(io.StringIO()):
            if provider != "cpu" and hasattr(ort, "preload_dlls"):
                ort.preload_dlls()  # CUDA's and cuDNN's, in packages where nothing else looks for them
            session = ort.InferenceSession(
                read(model), options, providers=_providers(provider, device_id or 0)
            )
    except BadInput:
        raise
    except Exception as error:  # the bindings raise a dozen unrelated classes
        line = f"does not run in onnxruntime {ort.__version__}: {error}".partition("\n")[0]
        raise BadInput(line) from None
    if wanted not in session.get_providers():  # it falls back to the CPU by itself, without an error
        raise BadInput(
            f"cannot start provider {provider} of onnxruntime {ort.__version__} on GPU {device_id or 0}: "
            f"{_why_not(ort, provider)}"
        )
    if provider != "cpu":
        session.disable_fallback()  # a GPU that fails later must not be the CPU without a word
    return session


def _providers(provider: str, device_id: int) -> list[tuple[str, dict[str, str]]]:
    """The providers that take operators, in order, with their settings; what they leave is the CPU's."""
    gpu = {"device_id": str(device_id)}
    # As the bundle was verified and measured: float32 throughout.
    cuda = (PROVIDERS["cuda"], {**gpu, "use_tf32": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"})
    if provider == "tensorrt":
        return [(PROVIDERS["tensorrt"], gpu), cuda]
    return [cuda] if provider == "cuda" else [(PROVIDERS[provider], {})]


def _why_not(ort: Any, provider: str) -> str:
    """Why a provider does not start, as far as its library tells, and what helps."""
    extension = "dll" if sys.platform == "win32" else "so"
    prefix = "" if sys.platform == "win32" else "lib"
    library = Path(ort.__file__).parent / "capi" / f"{prefix}onnxruntime_providers_{provider}.{extension}"
    missing = "no such GPU, or a library or driver is missing"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        line = str(error).partition("\n")[0]
        missing = line if "cannot open" in line else missing
    if provider == "tensorrt":
        return f"{missing}; it needs the TensorRT that it was built for: libnvinfer.so.10 is TensorRT 10's"
    return f"{missing}; run `pip install '{_GPU_PACKAGE}'`"


def _check_no_gpu(device_id: Optional[int]) -> None:  # noqa: UP045
    if device_id is not None:
        raise BadInput("runs on the CPU; --device-id is for GPUs")


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
