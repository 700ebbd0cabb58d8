"""Image files to RGB pixels: PNG, PPM and PGM by numpy alone, other formats where Pillow is installed."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .png import PNG, decode_png
from .refusal import MAX_FILE_BYTES, MAX_PIXELS, BadInput, check_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

SUFFIXES = (".png", ".ppm", ".pgm", ".pnm", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
PNM_HEADER = re.compile(rb"P([56])" + 3 * rb"(?:\s|#[^\n]*\n)+(\d{1,9})" + rb"\s")


def find_images(paths: list[Path]) -> Iterator[Path]:
    """Yield the files named, and for a folder the images right inside it, sorted, but for hidden ones."""
    for path in paths:
        found = sorted(filter(is_image, path.iterdir())) if path.is_dir() else []
        if path.is_dir() and not found:
            raise BadInput(f"{path}: no images inside; these count: {', '.join(SUFFIXES)}")
        yield from found or [path]


def is_image(path: Path) -> bool:
    """Whether an entry of a folder is an image by its name; hidden ones are others' helpers (``._x.png``)."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def read_image(path: Path) -> Pixels:
    """Return the image as RGB [H, W, 3]: grey repeated, transparency ignored, 16 bits cut to the high 8."""
    try:
        if not path.is_file():
            raise BadInput("no file; check the path")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadInput(f"over {MAX_FILE_BYTES >> 20} MB, which is no image; check the path")
        return decode(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; check the path") from None
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None


def decode(data: bytes, most: int = MAX_PIXELS) -> Pixels:
    """Decode the bytes of an image file of ``most`` pixels or less to RGB [H, W, 3]."""
    if data.startswith(PNG):
        return decode_png(data, most)
    if data[:2] in (b"P5", b"P6"):
        return decode_pnm(data, most)
    try:
        from PIL import Image
    except ImportError:
        raise BadInput("not a PNG, PPM or PGM; convert it, or run `pip install pillow`") from None
    Image.MAX_IMAGE_PIXELS = None  # no warning beside our own limit
    try:
        with Image.open(io.BytesIO(data)) as image:
            check_size(*image.size, most)
            if image.mode.startswith("I;16"):  # a TIFF's grey, which Pillow would clip
                grey = (np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.array(image.convert("RGB"))
    except Exception as error:  # Pillow's decoders raise a dozen classes
        known = isinstance(error, BadInput)
        raise error if known else BadInput("not an image that can be read; convert it to PNG") from None


def decode_pnm(data: bytes, most_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode a binary PGM (P5) or PPM (P6) of up to 16 bits."""
    match = PNM_HEADER.match(data)
    if match is None:
        raise BadInput("the PNM header is not valid; save the image again")
    kind, width, height, most = (int(group) for group in match.groups())
    check_size(width, height, most_pixels)
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
