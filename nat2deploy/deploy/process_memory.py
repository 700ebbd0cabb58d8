"""How much memory a process needs that does nothing but run a network."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tempfile
from pathlib import Path

from nat2deploy.deploy.runner import proof
from nat2deploy.engines.base import Engine
from nat2deploy.engines.staged import StagedEngine
from nat2deploy.errors import UserError

# By the runner's own count, of a process that holds numpy, onnxruntime and the network.
_PROGRAM = """
import sys
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = int(sys.argv[1])
options.log_severity_level = 3
parts = [ort.InferenceSession(name, options, providers=["CPUExecutionProvider"]) for name in sys.argv[3:]]
image = np.zeros([int(size) for size in sys.argv[2].split("x")], np.float32)
for _ in range(10):
    given = image
    for session in parts:  # the last output of a stage is the next one's input
        given = session.run(None, {session.get_inputs()[0].name: given})[-1]
"""
_COUNT = "\nprint(peak_memory_mb())\n"
_TIMES = 3


def peak_memory_mb(engine: Engine) -> tuple[float, float, float] | None:
    """Return median, least and most of the peak resident memory in MB of fresh processes that run an engine.

    Python, numpy and ONNX Runtime count, as on the device. None where the system does not tell, and for other
    engines than ONNX Runtime's on the CPU.

    Raises:
        UserError: a process failed.
    """
    if engine.target.backend != "onnxruntime" or engine.target.kind != "cpu":
        return None
    program = _PROGRAM + inspect.getsource(proof.peak_memory_mb).replace(" -> float | None", "") + _COUNT
    with tempfile.TemporaryDirectory(prefix="nat2deploy-") as folder:
        words = [str(engine.target.threads), "x".join(map(str, engine.input_shape))]
        words += map(str, _saved(engine, Path(folder)))
        peaks = []
        for _ in range(_TIMES):
            done = subprocess.run(
                [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
            )
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no words"])[-1]
                raise UserError(f"a process for measuring memory failed ({last}); free some memory")
            if done.stdout.strip() == "None":
                return None
            peaks.append(float(done.stdout))
    least, median, most = sorted(peaks)
    return median, least, most


def _saved(engine: Engine, folder: Path) -> list[Path]:
    """Write the engine's files; returns them in the order in which they are run."""
    if not isinstance(engine, StagedEngine):
        engine.save(folder / "model.onnx")
        return [folder / "model.onnx"]
    paths = [folder / f"{number}.onnx" for number in range(engine.exits)]
    for path, model in zip(paths, engine.models, strict=True):
        path.write_bytes(model)
    return paths
