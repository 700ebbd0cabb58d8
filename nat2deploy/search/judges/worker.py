"""A local process that judges: JSON lines come in on standard input and go out on standard output.

The first line names the file of images and the evaluator's options; after it come ``weights``, the
super-network's file, and jobs. Both files are mapped into memory, which all workers share.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nat2deploy.errors import UserError, out_of_memory
from nat2deploy.search.judges.base import Job, JobRunner
from nat2deploy.search.judges.images import load_images
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.supernet.checkpoint import load_supernet
from nat2deploy.supernet.several_widths import AnySuperNetwork
from nat2deploy.training.evaluation import SubNetworkEvaluator


def main() -> None:
    """Judge until standard input ends, as it does when whoever reads the answers is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process, too; the parent ends it
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what others print is no answer
    lines = _lines()
    first = next(lines)
    supernet: AnySuperNetwork | None = None
    broken = ""  # why there are no weights
    run: JobRunner | None = None
    for message in lines:
        number = message.get("job")
        try:
            if number is None:
                supernet, broken = None, ""
                supernet = load_supernet(Path(message["weights"]), mapped=True)[0]
                continue
            if broken:
                raise UserError(broken)
            if run is None:
                run = JobRunner(SubNetworkEvaluator(load_images(Path(first["images"])), **first["options"]))
            assert supernet is not None
            architecture = parse_architecture(supernet.space, message["architecture"])
            gates = tuple((int(images), int(right)) for images, right in message["gates"])
            passed = tuple(parse_architecture(supernet.space, one) for one in message["passed"])
            answer = {"job": number, **asdict(run(supernet, Job(architecture, gates, passed)))}
        except (UserError, RuntimeError, MemoryError) as error:
            short = "memory ran out; use fewer workers" if out_of_memory(error) else ""
            said = short or str(error) or type(error).__name__
            if number is None:
                broken = said  # the answer to each job until others come
                continue
            answer = {"job": number, "error": said}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _lines() -> Iterator[dict[str, Any]]:
    """The messages; when there are no more, this process ends at once, also in the middle of a job."""
    received: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            received.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield json.loads(received.get())


if __name__ == "__main__":
    main()
