"""The bundle on this device: are its files whole, does it say what PyTorch said, and how fast is it?"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
        class, and whether both are as good as the precision lets them be.

    Raises:
        BadInput: a file that is missing or changed.
    """
    check_files(network.folder, network.manifest["files"])
    try:
        most, least = PARITY[network.precision]
        with np.load(network.folder / "reference.npz", allow_pickle=False) as stored:
            images, expected = stored["images"], stored["logits"]
        rgb = np.broadcast_to(images.transpose(0, 2, 3, 1), (len(images), *images.shape[2:], 3))
        found = network.logits(np.stack([preprocess(image, network.spec) for image in rgb]))
        difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    except Exception:  # numpy, zipfile and zlib raise a dozen classes
        raise BadInput(f"{network.folder / 'reference.npz'}: missing or damaged; export it again") from None
    agreement = float(np.mean(found.argmax(1) == expected.argmax(1)))
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
    """Time the network alone on random input, after half a second of warm-up; times in ms."""
    images = np.random.default_rng(0).standard_normal(network.shape).astype(np.float32)
    times_ms: list[float] = []
    begin = time.perf_counter()
    while (start := time.perf_counter()) - begin < seconds or len(times_ms) < 20:
        network.run(images)
        if start - begin > 0.5:
            times_ms.append(1e3 * (time.perf_counter() - start))
    median, p95, p99 = (float(value) for value in np.percentile(times_ms, (50, 95, 99)))
    rate = {"images_per_s": 1e3 * network.shape[0] / median, "threads": network.threads}
    memory = peak_memory_mb()
    found = {"median_ms": median, "p95_ms": p95, "p99_ms": p99, "runs": len(times_ms), **rate}
    return found if memory is None else {**found, "peak_memory_mb": memory}


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
