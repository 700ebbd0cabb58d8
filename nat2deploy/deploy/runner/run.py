"""Classify images with the network of this bundle; needs Python 3.9, numpy and onnxruntime only.

This file travels with the network, so it stands alone: it reads PNG, PPM and PGM by itself, and other formats
where Pillow is installed. One file on purpose: Python never reads a cached, unhashed copy of a script.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import struct
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

try:
    import numpy as np
    import onnxruntime as ort
except ImportError as error:
    print(f"run.py: {error}; run `pip install numpy onnxruntime`", file=sys.stderr)
    raise SystemExit(2) from None

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Floats = NDArray[np.float32]

MAX_FILE_BYTES = 256 << 20
MAX_PIXELS = 64_000_000
SUFFIXES = (".png", ".ppm", ".pgm", ".pnm", ".jpg", ".jpeg", ".bmp", ".webp")
PARITY = {"fp32": (1e-3, 0.99), "bf16": (0.05, 0.97), "int8": (0.25, 0.9)}  # most difference, least agreement

PNG = b"\x89PNG\r\n\x1a\n"
# Colour type to channels and allowed bits (PNG specification, third edition, table 11.1).
PNG_KINDS = {
    0: (1, (1, 2, 4, 8, 16)),
    2: (3, (8, 16)),
    3: (1, (1, 2, 4, 8)),
    4: (2, (8, 16)),
    6: (4, (8, 16)),
}
PNM_HEADER = re.compile(rb"P([56])" + 3 * rb"(?:\s|#[^\n]*\n)+(\d{1,9})" + rb"\s")


class BadInput(Exception):
    """Something the user can mend, in one line."""


def read_image(path: Path) -> Pixels:
    """Return the image as RGB [H, W, 3]: grey repeated, transparency ignored, 16 bits cut to the high 8."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            raise BadInput(f"no file of up to {MAX_FILE_BYTES >> 20} MB; check the path")
        return decode(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; check the path") from None
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None


def decode(data: bytes) -> Pixels:
    """Decode the bytes of an image file to RGB [H, W, 3]."""
    if data.startswith(PNG):
        return decode_png(data)
    if data[:2] in (b"P5", b"P6"):
        return decode_pnm(data)
    try:
        from PIL import Image
    except ImportError:
        raise BadInput("not a PNG, PPM or PGM; convert it, or run `pip install pillow`") from None
    Image.MAX_IMAGE_PIXELS = None  # no warning beside our own limit
    try:
        with Image.open(io.BytesIO(data)) as image:
            check_size(*image.size)
            return np.array(image.convert("RGB"))
    except Exception as error:  # Pillow's decoders raise a dozen classes
        known = isinstance(error, BadInput)
        raise error if known else BadInput("not an image that can be read; convert it to PNG") from None


def check_size(width: int, height: int) -> None:
    """Refuse empty images and those that would not fit into an edge device's memory."""
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise BadInput(f"{width} x {height} pixels; give 1 to {MAX_PIXELS // 10**6} million")


def decode_png(data: bytes) -> Pixels:
    """Decode a PNG that is not interlaced."""
    header, palette, packed = png_parts(data)
    width, height, depth, kind, compression, filtering, interlaced = struct.unpack(">IIBBBBB", header)
    check_size(width, height)
    if kind not in PNG_KINDS or depth not in PNG_KINDS[kind][1] or compression or filtering or interlaced > 1:
        raise BadInput("the PNG header is not valid; save the image again")
    if interlaced:
        raise BadInput("interlaced PNG is not supported; save it without interlacing")
    channels = PNG_KINDS[kind][0]
    unit = max(depth * channels // 8, 1)
    row = (width * depth * channels + 7) // 8
    size = height * (row + 1)
    try:
        raw = zlib.decompressobj().decompress(packed, size)
    except zlib.error:
        raise BadInput("the PNG pixels are damaged; save the image again") from None
    if len(raw) < size:
        raise BadInput("the PNG is cut short; copy it again")
    lines = np.frombuffer(raw, np.uint8).reshape(height, row + 1)
    rows = unfilter(lines[:, 1:].reshape(height, row // unit, unit), lines[:, 0]).reshape(height, row)
    if depth < 8:
        bits = np.unpackbits(rows, axis=1)[:, : width * depth].reshape(height, width, depth)
        rows = np.packbits(bits, axis=2)[..., 0] >> (8 - depth)
    pixels = rows.reshape(height, width, channels, -1)[..., 0]
    if kind == 3:
        if len(palette) % 3 or int(pixels.max()) >= len(palette) // 3:
            raise BadInput("the PNG palette does not fit its pixels; save the image again")
        return np.frombuffer(palette, np.uint8).reshape(-1, 3)[pixels[..., 0]]
    if depth < 8:
        pixels = pixels * np.uint8(255 // (2**depth - 1))
    colours = pixels[..., : 3 if channels > 2 else 1]
    return np.ascontiguousarray(np.broadcast_to(colours, (height, width, 3)))


def png_parts(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return header, palette (empty without one) and compressed pixels, every checksum checked."""
    at, header, palette, packed = len(PNG), b"", b"", []
    while True:
        size, kind = struct.unpack_from(">I4s", data, at) if at + 12 <= len(data) else (1 << 32, b"")
        end = at + 8 + size
        if end + 4 > len(data):
            raise BadInput("the PNG is cut short; copy it again")
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise BadInput("the PNG is damaged (a checksum differs); copy it again")
        body = data[at + 8 : end]
        if (kind == b"IHDR") == bool(header) or (kind == b"IHDR" and size != 13):
            raise BadInput("the PNG header is not valid; save the image again")
        if kind == b"IHDR":
            header = body
        elif kind == b"PLTE":
            palette = body
        elif kind == b"IDAT":
            packed.append(body)
        elif kind == b"IEND":
            return header, palette, b"".join(packed)
        elif not kind[0] & 32:
            raise BadInput("the PNG has an unknown critical chunk; save the image again")
        at = end + 4


def unfilter(filtered: Pixels, filters: Pixels) -> Pixels:
    """Undo the five PNG row filters of [H, W, bytes a pixel], ``filters`` [H].

    A pixel needs its left, upper and upper left neighbour, so all pixels with the same x + y can be done at
    once: H + W steps in numpy instead of H × W in Python. In the flat image with a border of zeros, such a
    diagonal is a slice with a step of one row less one pixel.
    """
    if int(filters.max()) > 4:
        raise BadInput("the PNG pixels are damaged (no such filter); save the image again")
    height, width, unit = filtered.shape
    pitch = width + 1
    padded = np.zeros((height + 1, pitch, unit), np.uint8)
    padded[1:, 1:] = filtered
    if not filters.any():
        return padded[1:, 1:]
    flat, kinds = padded.reshape(-1, unit), filters[:, None]
    for step in range(height + width - 1):
        top, bottom = max(step - width + 1, 0), min(height - 1, step)
        first = pitch + 1 + step + top * width
        last = first + (bottom - top) * width + 1
        here = flat[first:last:width]
        sides = (flat[first - back : last - back : width] for back in (1, pitch, pitch + 1))
        left, up, corner = (side.astype(np.int16) for side in sides)
        far = [abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)]
        paeth = np.choose(np.argmin(far, axis=0), [left, up, corner])  # ties go to the first, as they must
        guesses = [np.zeros_like(left), left, up, (left + up) >> 1, paeth]
        here += np.choose(kinds[top : bottom + 1], guesses).astype(np.uint8)
    return padded[1:, 1:]


def decode_pnm(data: bytes) -> Pixels:
    """Decode a binary PGM (P5) or PPM (P6) of up to 16 bits."""
    match = PNM_HEADER.match(data)
    if match is None:
        raise BadInput("the PNM header is not valid; save the image again")
    kind, width, height, most = (int(group) for group in match.groups())
    check_size(width, height)
    if not 0 < most < 65536:
        raise BadInput("the PNM header is not valid; save the image again")
    channels, sample = (1 if kind == 5 else 3), np.dtype(np.uint8 if most < 256 else ">u2")
    count = width * height * channels
    if len(data) - match.end() < count * sample.itemsize:
        raise BadInput("the PNM is cut short; copy it again")
    values = np.frombuffer(data, sample, count, match.end()).reshape(height, width, channels)
    if most != 255:
        scaled = ((np.arange(most + 1) * 510 + most) // (2 * most)).astype(np.uint8)
        values = scaled[np.minimum(values, most)]
    return np.ascontiguousarray(np.broadcast_to(values, (height, width, 3)))


def taps(size_in: int, size_out: int, first: int, count: int) -> Iterator[tuple[int, int, Floats]]:
    """Yield the input range and weights of ``count`` outputs of an antialiased bilinear resize of one axis.

    The triangle filter widens with the scale, as in PyTorch's ``interpolate(antialias=True)``.
    """
    scale = size_in / size_out
    reach = max(scale, 1.0)
    for index in range(first, first + count):
        centre = scale * (index + 0.5)
        low = max(int(centre - reach + 0.5), 0)
        high = min(int(centre + reach + 0.5), size_in)
        weights = np.maximum(1.0 - np.abs(np.arange(low, high) + 0.5 - centre) / reach, 0.0)
        yield low, high, (weights / weights.sum()).astype(np.float32)


def resize_and_crop(image: Pixels, resolution: int) -> Floats:
    """Resize the shorter side to ``resolution`` and crop the centre: [H, W, C] to [r, r, C], 0 to 255.

    Only what the crop keeps is computed.
    """
    pixels: Any = image
    short = min(image.shape[:2])
    for axis in (0, 1):
        size = image.shape[axis]
        resized = resolution * size // short
        first = (resized - resolution) // 2
        parts = taps(size, resized, first, resolution)
        lines = [np.tensordot(w, pixels[low:high].astype(np.float32), 1) for low, high, w in parts]
        pixels = np.stack(lines, axis=1)
    return np.ascontiguousarray(pixels, dtype=np.float32)


def preprocess(image: Pixels, spec: dict[str, Any]) -> Floats:
    """RGB [H, W, 3] to the network's input [3, r, r], as the manifest's ``spec`` says."""
    pixels = resize_and_crop(image, int(spec["resolution"])) / np.float32(255)
    mean, std = (np.asarray(spec[key], np.float32) for key in ("mean", "std"))
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1))


class Network:
    """The bundle's network in an ONNX Runtime session, its file checked against the manifest."""

    def __init__(self, folder: Path, threads: int | None) -> None:
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            name = str(manifest["model"])
            self.labels = [str(label) for label in manifest["output"]["labels"]]
            self.input = str(manifest["input"]["name"])
            self.shape = tuple(int(size) for size in manifest["input"]["shape"])
            self.spec = dict(manifest["input"]["preprocessing"])
            if Path(name).name != name or self.shape[1:] != (3, *2 * (int(self.spec["resolution"]),)):
                raise ValueError(name)
            preprocess(np.zeros((1, 1, 3), np.uint8), self.spec)
            self.threads = threads or int(manifest["target"]["threads"])
            self.parity = PARITY[manifest["target"]["precision"]]
            wanted = manifest["files"][name]
            model = (folder / name).read_bytes()
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            raise BadInput(f"{folder}: model or manifest missing or damaged; export it again") from None
        if hashlib.sha256(model).hexdigest() != wanted:
            raise BadInput(f"{folder / name}: changed (hash differs); export it again")
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            if self.logits(np.zeros(self.shape, np.float32)).shape != (self.shape[0], len(self.labels)):
                raise ValueError("the labels do not fit the output")
        except Exception as error:  # the bindings raise a dozen unrelated classes
            line = f"does not run in onnxruntime {ort.__version__}: {error}".partition("\n")[0]
            raise BadInput(f"{folder / name}: {line}") from None

    def logits(self, images: Floats) -> Floats:
        """Run on any number of inputs [N, 3, r, r], filling up the last batch; returns [N, classes]."""
        batch = self.shape[0]
        outputs = []
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            full = np.zeros(self.shape, np.float32)
            full[: len(part)] = part
            outputs.append(self.session.run(None, {self.input: full})[0][: len(part)])
        return np.concatenate(outputs)

    def classify(self, image: Pixels, top: int) -> list[dict[str, Any]]:
        """Return the ``top`` most likely classes of one image with their scores (softmax)."""
        logits = self.logits(preprocess(image, self.spec)[None])[0].astype(np.float64)
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
        best = np.argsort(-scores, kind="stable")[:top]
        return [{"label": self.labels[i], "index": int(i), "score": float(scores[i])} for i in best]

    def bench(self, seconds: float = 3.0) -> dict[str, Any]:
        """Time the network alone on random input, after half a second of warm-up."""
        images = np.random.default_rng(0).standard_normal(self.shape).astype(np.float32)
        times_ms: list[float] = []
        begin = time.perf_counter()
        while (start := time.perf_counter()) - begin < seconds or len(times_ms) < 20:
            self.session.run(None, {self.input: images})
            if start - begin > 0.5:
                times_ms.append(1e3 * (time.perf_counter() - start))
        median, p95, p99 = (float(value) for value in np.percentile(times_ms, (50, 95, 99)))
        rate = {"images_per_s": 1e3 * self.shape[0] / median, "threads": self.threads}
        return {"median_ms": median, "p95_ms": p95, "p99_ms": p99, "runs": len(times_ms), **rate}

    def check(self, folder: Path) -> dict[str, Any]:
        """Compare with PyTorch's logits of the reference images: largest difference and top-1 agreement."""
        try:
            with np.load(folder / "reference.npz", allow_pickle=False) as stored:
                images, expected = stored["images"], stored["logits"]
            rgb = np.broadcast_to(images.transpose(0, 2, 3, 1), (len(images), *images.shape[2:], 3))
            found = self.logits(np.stack([preprocess(image, self.spec) for image in rgb]))
            difference = float(np.abs(found - expected).max() / np.abs(expected).max())
        except Exception:  # numpy, zipfile and zlib raise a dozen classes
            raise BadInput(f"{folder / 'reference.npz'}: missing or damaged; export it again") from None
        agreement, (most, least) = float(np.mean(found.argmax(1) == expected.argmax(1))), self.parity
        ok = difference <= most and agreement >= least
        return {"images": len(images), "max_difference": difference, "top1_agreement": agreement, "ok": ok}


def find_images(paths: list[Path]) -> Iterator[Path]:
    """Yield the files named, and for a folder the images right inside it, sorted."""
    for path in paths:
        inside = path.glob("*") if path.is_dir() else ()
        found = sorted(entry for entry in inside if entry.suffix.lower() in SUFFIXES)
        if path.is_dir() and not found:
            raise BadInput(f"{path}: no images inside; these count: {', '.join(SUFFIXES)}")
        yield from found or [path]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0 is well, 1 a failed check, 2 bad input."""
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
    folder, code, found = Path(__file__).resolve().parent, 0, dict[str, Any]()
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
            found["check"] = network.check(folder)
            code = code or int(not found["check"]["ok"])
        if asked.bench:
            found["bench"] = network.bench()
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


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main())
