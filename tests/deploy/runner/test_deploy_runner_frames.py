"""Frames cut out of byte streams: whole, in small pieces, damaged, and with other bytes between them."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nat2deploy.deploy.runner.frames import raw_frames, split_frames
from nat2deploy.deploy.runner.images import decode
from nat2deploy.deploy.runner.refusal import BadInput

KINDS = {
    "jpeg": {},
    "jpeg restarts": {"restart_marker_blocks": 1},
    "jpeg progressive": {"progressive": True},
    "png": {},
    "ppm": {},
}


def picture(seed: int, height: int = 24, width: int = 17) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(kind: str, seed: int, **more: object) -> bytes:
    stream = io.BytesIO()
    picture(seed).save(stream, kind.split()[0], **KINDS[kind], **more)
    return stream.getvalue()


def pieces(data: bytes, size: int) -> Callable[[int], bytes]:
    """A pipe that gives at most ``size`` bytes at a time."""
    stream = io.BytesIO(data)
    return lambda wanted: stream.read(min(size, wanted))


@given(
    kind=st.sampled_from(list(KINDS)),
    seeds=st.lists(st.integers(0, 99), max_size=5),
    size=st.integers(1, 9000),
)
@settings(max_examples=60)
def test_frames_come_out_as_they_went_in(kind: str, seeds: list[int], size: int) -> None:
    frames = [encoded(kind, seed) for seed in seeds]
    assert list(split_frames(pieces(b"".join(frames), size))) == frames


def test_a_thumbnail_inside_a_frame_does_not_end_it() -> None:
    thumbnail = encoded("jpeg", 1)
    frames = [encoded("jpeg", 2, exif=b"Exif\0\0" + thumbnail), encoded("jpeg", 3)]
    assert list(split_frames(pieces(b"".join(frames), 100))) == frames


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_the_headers_of_a_multipart_stream_are_skipped(kind: str) -> None:
    frames = [encoded(kind, seed) for seed in range(3)]
    head = b"--P6 boundary\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    data = b"".join(head % len(frame) + frame + b"\r\n" for frame in frames) + b"--P6 boundary--\r\n"
    assert list(split_frames(pieces(data, 7))) == frames


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_after_a_frame_that_is_broken_off_the_next_ones_come(kind: str) -> None:
    frames = [encoded(kind, seed) for seed in range(3)]
    found = list(split_frames(pieces(frames[0] + frames[1][:-300] + frames[2] + frames[0], 100)))
    assert found[0] == frames[0] and found[-1] == frames[0] and frames[2] not in found[:1]
    with pytest.raises(BadInput):
        for frame in found:
            decode(frame)


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_cut_of_the_last_frame_ends_the_stream(kind: str) -> None:
    frame = encoded(kind, 0)
    for size in range(len(frame) + 2, 2 * len(frame), 37):
        try:
            found = list(split_frames(pieces((frame + frame)[:size], 50)))
        except BadInput:
            assert kind == "ppm" and size < len(frame) + 20  # inside the header
        else:
            assert found[0] == frame and len(found) <= 2


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"P6 2 2 255\n"])
)
@settings(max_examples=300)
def test_random_bytes_end_or_are_refused_in_one_line(data: bytes, lead: bytes) -> None:
    try:
        found = list(split_frames(pieces(lead + data, 64)))
    except BadInput as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert sum(map(len, found)) <= len(lead + data)


def test_a_stream_without_frames_is_not_read_for_ever() -> None:
    with pytest.raises(BadInput, match="--raw WxH"):
        next(split_frames(lambda size: bytes(size)))


def test_a_frame_that_says_to_be_huge_is_refused() -> None:
    with pytest.raises(BadInput, match="over 256 MB"):
        list(split_frames(pieces(b"P6 99999 99999 255\n" + bytes(1000), 100)))


@given(size=st.integers(1, 50), data=st.binary(max_size=200), piece=st.integers(1, 60))
def test_raw_frames_are_cut_by_their_size(size: int, data: bytes, piece: int) -> None:
    found = list(raw_frames(pieces(data, piece), size))
    assert all(len(frame) == size for frame in found)
    assert b"".join(found) == data[: len(data) // size * size]
