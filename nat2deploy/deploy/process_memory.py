"""How much memory a process needs that does nothing but run a network."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tempfile
from pathlib import Path

from nat2deploy.deploy.runner import proof
from nat2deploy.engines.base import Engine
from nat2deploy.errors import UserError

# By the runner's own count, of a process that holds numpy, onnxruntime and the network.
_PROGRAM = """
import sys
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
options.log_severity_level = 3
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
image = np.zeros([int(size) for size in sys.argv[3].split("x")], np.float32)
for _ in range(10):
    session.run(None, {session.get_inputs()[0].name: image})
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
        model = Path(folder) / "model.onnx"
        engine.save(model)
        words = [str(model), str(engine.target.threads), "x".join(map(str, engine.input_shape))]
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
