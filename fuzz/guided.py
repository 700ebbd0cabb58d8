"""Coverage-guided fuzzing: an input that takes new branches of the code is kept, and damaged further.

Atheris (libFuzzer for Python) does it. It takes its process over and never gives it back, so each target is
fuzzed in a child process, which tells what it found in a file.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import re
import sys
import tempfile
import time
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

from fuzz.target import Found, Target, feed_one

MOST_S = 60
"""More than an input's own limit of processor time, which ends what is in Python; libFuzzer ends all else."""
MOST_MB = 4096
_SHARE_OF_BYTES = 0.25
"""Damage of single bytes mostly breaks the syntax: most inputs are damaged in the target's own way."""
_EVERY = 500
_PROGRESS = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)")
_FATAL = re.compile(r"ERROR: (libFuzzer: .*)")


def guided(target: Target, count: int, seed: int, corpus: Path) -> Found:
    """Fuzz a target with ``count`` inputs, whole seeds among them; its code must be instrumented.

    ``corpus`` is a folder of inputs to begin with, beside the seeds; those that take new branches are added.
    """
    corpus.mkdir(parents=True, exist_ok=True)
    for whole in target.seeds:
        (corpus / sha256(whole).hexdigest()[:40]).write_bytes(whole)
    with tempfile.TemporaryDirectory(prefix="fuzz-guided-") as name:
        folder = Path(name)
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _fuzz_for_good(target, count, seed, corpus, folder)
        try:
            _, status = os.waitpid(child, 0)
        except BaseException:
            os.kill(child, 9)
            os.waitpid(child, 0)
            raise
        return _result(target, folder, os.waitstatus_to_exitcode(status))


def _fuzz_for_good(target: Target, count: int, seed: int, corpus: Path, folder: Path) -> NoReturn:
    """What the child does."""
    try:
        log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        atexit.register(os._exit, 1)  # before what the parent registered: its folders are not the child's
        import atheris

        found = Found(target.name)
        began = time.process_time()

        def feed(given: bytes) -> None:
            faults = sum(found.faults.values())
            feed_one(target, given, found)
            last = found.inputs >= count
            if last or found.inputs % _EVERY == 0 or sum(found.faults.values()) > faults:
                found.seconds = time.process_time() - began
                _save(found, folder)
            if last:
                os._exit(0)

        def damage(given: bytes, most: int, chance: int) -> bytes:
            rng = random.Random(chance)
            if rng.random() < _SHARE_OF_BYTES:
                return bytes(atheris.Mutate(given, most))
            return target.damage(rng, given)[:most]

        longest = max(len(whole) for whole in target.seeds)
        options = {
            "seed": seed + 1,  # libFuzzer takes 0 for a random one
            "max_len": max(4096, 2 * longest),
            "len_control": 0,
            "mutate_depth": 2,
            "timeout": MOST_S,
            "rss_limit_mb": MOST_MB,
            "artifact_prefix": f"{folder}/input-",
        }
        words = [f"-{name}={value}" for name, value in options.items()]
        atheris.Setup(["fuzz", *words, str(corpus)], feed, custom_mutator=damage)
        atheris.Fuzz()
    finally:
        os._exit(1)


def _save(found: Found, folder: Path) -> None:
    (folder / "found.tmp").write_text(json.dumps(asdict(found)))
    (folder / "found.tmp").replace(folder / "found.json")


def _result(target: Target, folder: Path, code: int) -> Found:
    """What a child found until it ended, which is a fault itself where it did not come to its last input."""
    log = (folder / "log").read_text(errors="replace")
    path = folder / "found.json"
    found = Found(**json.loads(path.read_text())) if path.exists() else Found(target.name)
    found.firsts = {fault: (trace, given) for fault, (trace, given) in found.firsts.items()}
    if progress := _PROGRESS.findall(log):
        found.edges, found.features, found.corpus = map(int, progress[-1])
    if code != 0:
        fatal = _FATAL.search(log)
        inputs = sorted(folder.glob("input-*"))
        given = inputs[0].read_bytes() if inputs else b""
        found.note(fatal[1] if fatal else f"the process ended with {code}", log[-3000:], given)
    return found
