"""The runner's command line: 0 is well, 1 a failed check, 2 bad input in one line."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from .images import find_images, read_image
from .network import Network
from .proof import bench, check
from .refusal import BadInput


def main(folder: Path, arguments: list[str] | None = None) -> int:
    """Run the command line on the bundle in ``folder``; returns the exit code."""
    parser = argparse.ArgumentParser(prog="run.py", description="Classify images with this bundle's network.")
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="image files or folders")
    parser.add_argument("--top", type=count, default=5, metavar="N", help="classes shown an image (5)")
    parser.add_argument("--threads", type=count, metavar="N", help="instead of the target's")
    parser.add_argument("--bench", action="store_true", help="time the network on this device")
    parser.add_argument("--check", action="store_true", help="compare with PyTorch on the stored images")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.error = fail  # type: ignore[method-assign]
    asked = parser.parse_args(arguments)
    if not (asked.images or asked.bench or asked.check):
        fail("no images; name files or folders, or give --bench or --check")
    code, found = 0, dict[str, Any]()
    try:
        network = Network(folder, asked.threads)
        for path in list(find_images(asked.images)):
            try:
                top = network.classify(read_image(path), asked.top)
                found.setdefault("images", []).append({"image": str(path), "top": top})
            except BadInput as error:  # the other images are still classified
                print(f"run.py: {error}", file=sys.stderr)
                code = 2
        if asked.check:
            found["check"] = check(network)
            code = code or int(not found["check"]["ok"])
        if asked.bench:
            found["bench"] = bench(network)
    except (BadInput, OSError) as error:
        fail(str(error))
    report(found, asked.json)
    return code


def count(text: str) -> int:
    """Parse a positive count."""
    if not 0 < int(text) <= 10_000:
        raise ValueError(text)
    return int(text)


def report(found: dict[str, Any], as_json: bool) -> None:
    """Print the findings for people, or as JSON."""
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for image in found.get("images", []):
        print(image["image"])
        for one in image["top"]:
            print(f"  {100 * one['score']:6.2f} %  {one['label']}")
    for part in (part for part in ("check", "bench") if part in found):
        print(f"{part}  " + ", ".join(f"{key} {value:.5g}" for key, value in found[part].items()))


def fail(message: str) -> NoReturn:
    """Print one line and exit with code 2."""
    print(f"run.py: {message}", file=sys.stderr)
    raise SystemExit(2)
