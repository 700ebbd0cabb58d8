"""The runner's command line. Exit codes: 0 well, 1 a failed check, 2 bad input, in one line, 130 stopped."""

from __future__ import annotations

import argparse
import json
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from .images import find_images, read_image
from .network import Network
from .preprocess import preprocess
from .proof import bench, check
from .refusal import MAX_THREADS, BadInput
from .server import Address, serve
from .session import PROVIDERS
from .sources import RawFormat, newest, open_source
from .stream import run_stream

INTERRUPTED = 130
"""The exit code of what Ctrl-C has stopped."""


def main(folder: Path, arguments: list[str] | None = None) -> int:
    """Run the command line on the bundle in ``folder``; returns the exit code."""
    asked = _parse(arguments)
    try:
        network = Network(folder, asked.threads, asked.provider, asked.device_id)
        if asked.serve is not None:
            return serve(network, asked.serve, top=asked.top or 5)
        if asked.stream is not None:
            frames = open_source(asked.stream, asked.raw)
            frames = newest(frames) if asked.newest else frames
            return run_stream(network, frames, top=asked.top or 1, limit=asked.limit, as_json=asked.json)
        return _classify(network, asked)
    except BrokenPipeError:  # who read the lines has seen enough
        sys.stdout = None
        return 0
    except (BadInput, OSError) as error:
        fail(str(error))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py", description="Classify images with this bundle's network.")
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="image files or folders")
    parser.add_argument("--top", type=count, metavar="N", help="classes shown an image (5; of a stream 1)")
    parser.add_argument("--provider", choices=PROVIDERS, help="of ONNX Runtime, instead of the target's")
    parser.add_argument(
        "--device-id", type=gpu_number, metavar="N", help="which GPU, as CUDA counts them (0)"
    )
    parser.add_argument("--threads", type=thread_count, metavar="N", help="instead of the target's")
    parser.add_argument(
        "--input-for",
        type=Path,
        metavar="FILE",
        help="write the image as raw float32 input, too",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object (of a stream, one a line)")
    parser.add_argument("--bench", action="store_true", help="time the network on this device")
    parser.add_argument("--check", action="store_true", help="compare files and logits with the export")
    stream = parser.add_argument_group("a stream of frames, such as a camera's")
    stream.add_argument(
        "--stream",
        metavar="SOURCE",
        help="- (standard input), a pipe or file of MJPEG, PNG or PPM frames, or a folder to watch",
    )
    stream.add_argument(
        "--raw", type=RawFormat.parse, metavar="WxH[:FORMAT]", help="frames are raw: rgb24, bgr24 or gray"
    )
    stream.add_argument("--newest", action="store_true", help="skip frames rather than fall behind")
    stream.add_argument("--limit", type=count, metavar="N", help="stop after this many frames")
    parser.add_argument(
        "--serve",
        type=Address.parse,
        metavar="[HOST:]PORT",
        help="serve over HTTP, on this device alone unless a host is given (0.0.0.0: all); needs waitress",
    )
    parser.error = fail  # type: ignore[method-assign]
    asked = parser.parse_args(arguments)
    ways = bool(asked.images or asked.bench or asked.check) + (asked.stream is not None)
    ways += asked.serve is not None
    if ways == 0:
        fail("no images; name files or folders, or give --stream, --serve, --bench or --check")
    if ways > 1:
        fail("images, --stream and --serve do not go together; give one of them")
    if asked.stream is None and (asked.raw or asked.newest or asked.limit):
        fail("--raw, --newest and --limit are for --stream; give it, too")
    return asked


def _classify(network: Network, asked: argparse.Namespace) -> int:
    """Classify the images named, check and bench as asked for, and print it; stopped, what was found."""
    found = dict[str, Any]()
    try:
        code = _find(network, asked, found)
    except KeyboardInterrupt:
        if not found:
            raise
        print("run.py: interrupted; this was found before", file=sys.stderr)
        code = INTERRUPTED
    report(found, asked.json)
    return code


def _find(network: Network, asked: argparse.Namespace, found: dict[str, Any]) -> int:
    """Put the findings into ``found`` as they are made; returns the exit code."""
    code = 0
    images = list(find_images(asked.images))
    if asked.input_for is not None:
        if len(images) != 1:
            raise BadInput(f"--input-for: {len(images)} images; name one")
        asked.input_for.write_bytes(preprocess(read_image(images[0]), network.spec).tobytes())
    for answers, bad in _answered(network, images, asked.top or 5):
        if answers:
            found.setdefault("images", []).extend(answers)
        code = 2 if bad else code
    if asked.check:
        found["check"] = check(network)
        code = code or int(not found["check"]["ok"])
    if asked.bench:
        found["bench"] = bench(network)
    return code


def _answered(network: Network, paths: list[Path], top: int) -> Iterator[tuple[list[dict[str, Any]], bool]]:
    """Classify files, as many at a time as the network takes; yields what each is, and whether one was bad.

    A file that cannot be read is told in one line, and the others are still classified.
    """
    waiting: list[tuple[str, Any]] = []
    bad = False
    for number, path in enumerate(paths, start=1):
        try:
            waiting.append((str(path), preprocess(read_image(path), network.spec)))
        except BadInput as error:
            print(f"run.py: {error}", file=sys.stderr)
            bad = True
        if waiting and (len(waiting) == network.shape[0] or number == len(paths)):
            answers = network.answers(np.stack([inputs for _, inputs in waiting]), top)
            yield [{"image": name, **answer} for (name, _), answer in zip(waiting, answers)], bad
            waiting = []
    yield [], bad


def count(text: str) -> int:
    """Parse a positive count."""
    if not 0 < int(text) <= 10**9:
        raise ValueError(text)
    return int(text)


def thread_count(text: str) -> int:
    """Parse a number of threads."""
    if not 0 < int(text) <= MAX_THREADS:
        raise ArgumentTypeError(f"{text}: give 1 to {MAX_THREADS}")
    return int(text)


def gpu_number(text: str) -> int:
    """Parse a number of a GPU, from 0."""
    if not 0 <= int(text) < 1000:
        raise ValueError(text)
    return int(text)


def report(found: dict[str, Any], as_json: bool) -> None:
    """Print the findings for people, or as JSON."""
    if as_json:
        print(json.dumps(found))  # on one line, for who drives many devices
        return
    for image in found.get("images", []):
        print(image["image"] + (f"  (exit {image['exit']})" if "exit" in image else ""))
        for one in image["top"]:
            print(f"  {100 * one['score']:6.2f} %  {one['label']}")
    for part in (part for part in ("check", "bench") if part in found):
        words = [f"{key} {value:.5g}" for key, value in found[part].items() if not isinstance(value, list)]
        print(f"{part}  " + ", ".join(words))
        for number, exit_ in enumerate(found[part].get("exits", []), start=1):
            print(f"  exit {number}  " + ", ".join(f"{key} {value:.5g}" for key, value in exit_.items()))


def fail(message: str) -> NoReturn:
    """Print one line and exit with code 2."""
    print(f"run.py: {message}", file=sys.stderr)
    raise SystemExit(2)
