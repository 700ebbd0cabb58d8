"""The bundle on this device: are its files whole, does it say what PyTorch said, and how fast is it?"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .expected import expected_cost
from .preprocess import preprocess
from .refusal import BadInput

if TYPE_CHECKING:
    from .network import Network

# By precision: the most difference, as a share of the largest logit, and the least agreement.
PARITY = {"fp32": (1e-3, 0.99), "fp16": (0.02, 0.98), "bf16": (0.05, 0.97), "int8": (0.25, 0.9)}


def check(network: Network) -> dict[str, Any]:
    """Check the files' hashes, then compare with PyTorch's logits of the reference images.

    Returns:
        The largest difference as a share of the largest logit, the share of images with the same first
        class, and whether both are as good as the precision lets them be; of stages those of the worst exit.

    Raises:
        BadInput: a file that is missing or changed.
    """
    check_files(network.folder, network.manifest["files"])
    damaged = f"{network.folder / 'reference.npz'}: missing or damaged; export it again"
    try:
        most, least = PARITY[network.precision]
        with np.load(network.folder / "reference.npz", allow_pickle=False) as stored:
            images = stored["images"]
            expected = stored["logits"][None] if network.stages is None else stored["exits"]
        rgb = np.broadcast_to(images.transpose(0, 2, 3, 1), (len(images), *images.shape[2:], 3))
        inputs = np.stack([preprocess(image, network.spec) for image in rgb])
    except Exception:  # numpy, zipfile and zlib raise a dozen classes
        raise BadInput(damaged) from None
    try:
        found = network.exit_logits(inputs)
    except BadInput:
        raise
    except Exception as error:  # an engine's own classes: no memory, no kernel for this device
        line = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise BadInput(f"the network does not run here: {line}") from None
    if found.shape != expected.shape:
        raise BadInput(damaged)
    axes = (1, 2)
    difference = float((np.abs(found - expected).max(axes) / np.abs(expected).max(axes)).max())
    agreement = float((found.argmax(2) == expected.argmax(2)).mean(1).min())
    ok = difference <= most and agreement >= least
    return {"images": len(images), "max_difference": difference, "top1_agreement": agreement, "ok": ok}


def check_files(folder: Path, hashes: dict[str, str]) -> None:
    """Compare every file of the manifest with its SHA-256.

    Raises:
        BadInput: names the first that is missing or changed.
    """
    for name, wanted in sorted(hashes.items()):
        try:
            data = (folder / name).read_bytes()
        except (OSError, ValueError):
            raise BadInput(f"{folder / name}: missing; export it again") from None
        if hashlib.sha256(data).hexdigest() != wanted:
            raise BadInput(f"{folder / name}: changed (hash differs); export it again")


def bench(network: Network, seconds: float = 3.0) -> dict[str, Any]:
    """Time the network alone on random input, after half a second of warm-up; times in ms.

    Of stages the worst case, all of them, and in ``exits`` what an image takes that leaves at each.
    """
    images = np.random.default_rng(0).standard_normal(network.shape).astype(np.float32)
    runs: list[Callable[[], object]] = [lambda: network.run(images)]
    stages = network.stages
    if stages is not None:
        runs = [partial(stages.up_to, images, number) for number in range(1, stages.count + 1)]
    times_ms: list[list[float]] = [[] for _ in runs]
    begin = time.perf_counter()
    # In turn, so that what the device does beside hits all alike.
    while (now := time.perf_counter()) - begin < seconds or len(times_ms[0]) < 20:
        for run, times in zip(runs, times_ms):
            start = time.perf_counter()
            run()
            if now - begin > 0.5:
                times.append(1e3 * (time.perf_counter() - start))
    *exits, found = [_percentiles(times) for times in times_ms]
    rate = {"images_per_s": 1e3 * network.shape[0] / found["median_ms"], "threads": network.threads}
    memory = peak_memory_mb()
    found = {**found, "runs": len(times_ms[-1]), **rate}
    if memory is not None:
        found["peak_memory_mb"] = memory
    if stages is None:
        return found
    exits.append(_percentiles(times_ms[-1]))
    medians = [one["median_ms"] for one in exits]
    return {
        **found,
        "expected_ms": expected_cost(stages.shares, medians, network.shape[0]),
        "exits": exits,
    }


def _percentiles(times_ms: list[float]) -> dict[str, Any]:
    median, p95, p99 = (float(value) for value in np.percentile(times_ms, (50, 95, 99)))
    return {"median_ms": median, "p95_ms": p95, "p99_ms": p99}


def peak_memory_mb() -> float | None:
    """Return this process's highest resident memory in MB; None where the system does not tell."""
    import re
    import sys

    try:
        # Linux: getrusage would count what the process that started this one had, too.
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:  # noqa: PTH123
            return int(re.findall(r"VmHWM:\s*(\d+)", status.read())[0]) * 1024 / 1e6
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6
