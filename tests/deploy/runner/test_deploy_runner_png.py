"""The runner's own image reader against Pillow, and against files that lie."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from png_writer import CHANNELS, chunk, header, write_png

from nat2deploy.deploy.runner.images import decode
from nat2deploy.deploy.runner.png import PNG_KINDS, decode_png
from nat2deploy.deploy.runner.refusal import BadInput

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIZES = st.tuples(st.integers(1, 19), st.integers(1, 19))


def saved(image: Image.Image, kind: str = "png", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@given(
    mode=st.sampled_from(["1", "L", "LA", "RGB", "RGBA"]),
    size=SIZES,
    level=st.integers(0, 9),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_decodes_what_pillow_writes(
    mode: str, size: tuple[int, int], level: int, data: st.DataObject
) -> None:
    channels = {"LA": 2, "RGB": 3, "RGBA": 4}.get(mode)
    shape = (*size, channels) if channels else size
    values = data.draw(hnp.arrays(np.uint8, shape, fill=st.nothing()))
    image = Image.fromarray(values).convert(mode) if mode == "1" else Image.fromarray(values, mode)
    expected = np.array(image.convert("RGB"))
    np.testing.assert_array_equal(decode_png(saved(image, compress_level=level)), expected)


@given(colours=st.integers(1, 256), size=SIZES, seed=st.integers(0, 999), transparent=st.booleans())
@settings(max_examples=60, deadline=None)
def test_decodes_palettes_of_all_depths(
    colours: int, size: tuple[int, int], seed: int, transparent: bool
) -> None:
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, colours, size, dtype=np.uint8), "P")
    image.putpalette(rng.integers(0, 256, 3 * colours, dtype=np.uint8).tobytes())
    options = {"transparency": 0} if transparent else {}
    expected = np.array(image.convert("RGB"))
    np.testing.assert_array_equal(decode_png(saved(image, **options)), expected)


@given(
    kind_and_depth=st.sampled_from([(k, d) for k, (_, depths) in PNG_KINDS.items() for d in depths]),
    filters=st.lists(st.integers(0, 4), min_size=1, max_size=7),
    size=SIZES,
    seed=st.integers(0, 999),
)
@settings(max_examples=200, deadline=None)
def test_undoes_every_filter_at_every_depth(
    kind_and_depth: tuple[int, int], filters: list[int], size: tuple[int, int], seed: int
) -> None:
    kind, depth = kind_and_depth
    rng = np.random.default_rng(seed)
    samples = rng.integers(0, 2**depth, (*size, CHANNELS[kind]))
    palette = rng.integers(0, 256, (2**depth, 3), dtype=np.uint8)
    decoded = decode_png(write_png(samples, depth, kind, filters, palette.tobytes() if kind == 3 else b""))
    if kind == 3:
        expected = palette[samples[..., 0]]
    else:
        eight = samples >> 8 if depth == 16 else samples * (255 // (2**depth - 1))
        expected = np.broadcast_to(eight[..., :3] if kind in (2, 6) else eight[..., :1], (*size, 3))
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous


@given(
    filters=st.lists(st.integers(0, 2), min_size=1, max_size=7),
    size=SIZES,
    kind=st.sampled_from([0, 2, 6]),
    seed=st.integers(0, 999),
)
@settings(max_examples=60, deadline=None)
def test_rows_of_the_plain_filters_are_undone_at_once(
    filters: list[int], size: tuple[int, int], kind: int, seed: int
) -> None:
    samples = np.random.default_rng(seed).integers(0, 256, (*size, CHANNELS[kind]))
    expected = np.broadcast_to(samples[..., :3] if kind else samples, (*size, 3))
    np.testing.assert_array_equal(decode_png(write_png(samples, 8, kind, filters)), expected)


@pytest.mark.parametrize("kind", ["png", "ppm", "bmp"])
def test_fewer_pixels_may_be_asked_for(kind: str) -> None:
    data = saved(Image.new("RGB", (2000, 1000)), kind)
    assert decode(data, 2_000_000).shape == (1000, 2000, 3)
    with pytest.raises(BadInput, match="2000 x 1000 pixels; give 1 to 1 million"):
        decode(data, 1_999_999)


def test_sixteen_bit_grey_is_read_as_pillow_wrote_it() -> None:
    values = np.arange(0, 65536, 97, dtype=np.uint16)[:600].reshape(20, 30)
    decoded = decode_png(saved(Image.fromarray(values)))
    np.testing.assert_array_equal(decoded[..., 1], values >> 8)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_refused_in_one_line(data: bytes) -> None:
    for lead in (b"", SIGNATURE, SIGNATURE + header(3, 2, 8, 2), b"P6 3 2 255\n", b"P5", b"P6"):
        try:
            image = decode(lead + data)
        except BadInput as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


@given(at=st.integers(0, 10_000), value=st.integers(0, 255), fixed=st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_changed_byte_is_refused_or_harmless(at: int, value: int, fixed: bool) -> None:
    rng = np.random.default_rng(1)
    good = write_png(rng.integers(0, 256, (9, 7, 3)), 8, 2, [0, 1, 2, 3, 4])
    bad = bytearray(good)
    bad[at % len(bad)] = value
    if fixed:  # a liar mends the checksums too
        bad = bytearray(_mended(bytes(bad)))
    try:
        image = decode(bytes(bad))
    except BadInput:
        return
    if bytes(bad) == good:
        np.testing.assert_array_equal(image, decode(good))
    else:
        assert fixed and image.shape[2] == 3


def _mended(data: bytes) -> bytes:
    """Recompute the checksum of every chunk that can still be found."""
    at, out = 8, data[:8]
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 8 : at + 8 + size]
        out += data[at : at + 8] + body + zlib.crc32(data[at + 4 : at + 8] + body).to_bytes(4, "big")
        at += 12 + size
    return out


def test_every_cut_is_refused() -> None:
    good = write_png(np.full((4, 5, 3), 7), 8, 2, [4])
    for size in range(8, len(good)):
        with pytest.raises(BadInput):
            decode_png(good[:size])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (header(4, 4, 8, 2, interlaced=1) + chunk(b"IEND", b""), "interlaced"),
        (header(100_000, 100_000, 8, 2) + chunk(b"IEND", b""), "million"),
        (header(20, 200_000, 8, 2) + chunk(b"IEND", b""), "sides of up to 16384"),
        (header(16_385, 1, 8, 2) + chunk(b"IEND", b""), "sides of up to 16384"),
        (header(0, 5, 8, 2) + chunk(b"IEND", b""), "million"),
        (header(4, 4, 4, 2) + chunk(b"IEND", b""), "header"),
        (header(4, 4, 8, 5) + chunk(b"IEND", b""), "header"),
        (header(4, 4, 8, 2) + chunk(b"IEND", b""), "cut short"),
        (chunk(b"IEND", b""), "header"),
        (header(4, 4, 8, 2) * 2 + chunk(b"IEND", b""), "header"),
        (header(1, 1, 8, 0) + chunk(b"ABCD", b"") + chunk(b"IEND", b""), "critical"),
        (header(1, 1, 8, 0) + chunk(b"IDAT", zlib.compress(b"\5\0")) + chunk(b"IEND", b""), "filter"),
        (header(1, 1, 8, 3) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b""), "palette"),
        (header(1, 1, 8, 0) + chunk(b"IDAT", b"no zlib") + chunk(b"IEND", b""), "damaged"),
    ],
)
def test_says_what_is_wrong_with_a_png(body: bytes, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        decode(SIGNATURE + body)


def test_a_bomb_of_pixels_is_not_inflated() -> None:
    packed = zlib.compress(bytes(50_000_000))
    bomb = SIGNATURE + header(1, 1, 8, 0) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(decode_png(bomb), np.zeros((1, 1, 3)))


@given(mode=st.sampled_from(["L", "RGB"]), size=SIZES, seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_decodes_pnm(mode: str, size: tuple[int, int], seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(values).convert(mode)
    np.testing.assert_array_equal(decode(saved(image, "ppm")), np.array(image.convert("RGB")))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"P5 2 1 15\n\x00\x0f", [0, 255]),
        (b"P5\n# a comment\n2 # another\n1\n65535\n\x00\x00\xff\xff", [0, 255]),
        (b"P5 2 1 100 \x32\xff", [128, 255]),
    ],
)
def test_pnm_samples_are_scaled(data: bytes, expected: list[int]) -> None:
    assert decode(data)[0, :, 0].tolist() == expected


def test_other_formats_go_through_pillow() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8))
    data = saved(image, "jpeg")
    np.testing.assert_array_equal(decode(data), np.array(Image.open(io.BytesIO(data)).convert("RGB")))
