"""The agent's command line: by hand on a device, or driven from another machine through pipes."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from nat2deploy.agent.job import JOB_FILE, JOBS, MODELS, RESULT_FILE, forget_old, receive
from nat2deploy.agent.measuring import measure_job
from nat2deploy.errors import UserError
from nat2deploy.machine import machine_facts, memory_bytes
from nat2deploy.measure.pinning import load_warning


def main(arguments: list[str], here: Path) -> int:
    """Do what the words say, by default measure the job in ``here``; return the exit code.

    Bad input gives one line on standard error and exit code 2.
    """
    parser = argparse.ArgumentParser(
        prog="measure.py",
        description=f"Measure the networks of this folder; the results are in {RESULT_FILE}. "
        "Stopped, it goes on where it was when it is started again.",
    )
    # How another machine drives it: what is said goes through pipes as one line of JSON each.
    for name in ("--probe", "--receive", "--follow"):
        parser.add_argument(name, metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    words = parser.parse_args(arguments)
    try:
        if words.probe is not None:
            forget_old(words.probe / JOBS)
            _say({"machine": machine_facts(), "memory_bytes": memory_bytes(), "warning": load_warning()})
        elif words.receive is not None:
            receive(sys.stdin.buffer, words.receive)
            _say({"received": True})
        elif words.follow is not None:
            _follow(words.follow)
        else:
            _by_hand(here)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    return 0


def _follow(folder: Path) -> None:
    """Measure and report, for as long as the other end listens: standard input ends when it is gone."""
    if not (folder / JOB_FILE).exists():
        _say({"missing": True})
        return
    threading.Thread(target=_end_with_the_connection, daemon=True).start()
    lock = folder.parent.parent / ".lock"  # of all profiles that are driven from elsewhere
    result = measure_job(folder, _say_progress, lock=lock)
    # An edge device's disk is small: the results are kept, what they are of is not needed any more.
    shutil.rmtree(folder / MODELS, ignore_errors=True)
    _say({"result": result})


def _say_progress(share: float, text: str) -> None:
    _say({"share": round(min(share, 1.0), 4), "text": text})


def _end_with_the_connection() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(1)


def _by_hand(folder: Path) -> None:
    warning = load_warning()
    if warning:
        print(warning, flush=True)
    measure_job(folder, lambda share, text: print(f"{share:4.0%} {text}", flush=True), lock=folder / ".lock")
    print(f"done; bring back {folder / RESULT_FILE}")


def _say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)
