"""Classify a stream of frames: one line a frame as it comes, and a summary at the end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .refusal import BadInput

if TYPE_CHECKING:
    from .network import Network
    from .sources import Frame


def run_stream(
    network: Network, frames: Iterator[Frame], *, top: int, limit: int | None, as_json: bool
) -> int:
    """Classify frames until they end, ``limit`` is reached, or the user stops it.

    Prints a line a frame on standard output (JSON: an object a line), bad frames and the summary on standard
    error. ``latency_ms`` is from the frame's bytes to its classes: decoding, preprocessing and network.

    Returns:
        0, or 2 where a frame could not be read.
    """
    times_ms: list[float] = []
    bad = 0
    begin = time.perf_counter()
    try:
        for frame in frames:
            start = time.perf_counter()
            try:
                answer = network.answer(frame.pixels(), top)
            except BadInput as error:
                bad += 1
                words = str(error)
                name = "" if words.startswith(frame.name) else f"frame {frame.name}: "
                print(f"run.py: {name}{words}", file=sys.stderr, flush=True)
                continue
            times_ms.append(1e3 * (time.perf_counter() - start))
            if as_json:
                line = json.dumps({"frame": frame.name, "latency_ms": round(times_ms[-1], 4), **answer})
            else:
                classes = ", ".join(f"{one['label']} {100 * one['score']:.2f} %" for one in answer["top"])
                where = f", exit {answer['exit']}" if "exit" in answer else ""
                line = f"{frame.name}  {classes}  ({times_ms[-1]:.2f} ms{where})"
            print(line, flush=True)
            if len(times_ms) == limit:
                break
    except KeyboardInterrupt:
        pass  # how a camera's stream ends
    seconds = time.perf_counter() - begin
    print(_summary(times_ms, bad, seconds), file=sys.stderr)
    return 2 if bad or not times_ms else 0


def _summary(times_ms: list[float], bad: int, seconds: float) -> str:
    words = f"{len(times_ms)} frames, {bad} not read"
    if times_ms:
        median, p95, p99 = (float(value) for value in np.percentile(times_ms, (50, 95, 99)))
        words += (
            f", {len(times_ms) / seconds:.1f} frames/s, latency {median:.2f} ms, p95 {p95:.2f}, p99 {p99:.2f}"
        )
    return words
