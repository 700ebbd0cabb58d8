"""A camera's bytes cut into frames: JPEG, PNG or PPM images one after another, or raw pixels of a known size.

Nothing tells their lengths: each format is followed through its own structure to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .images import PNM_HEADER
from .png import PNG
from .refusal import MAX_FILE_BYTES, BadInput

Read = Callable[[int], bytes]
"""Returns up to so many bytes, as soon as there are some; none at the end."""

JPEG = b"\xff\xd8\xff"
_CHUNK = 1 << 16
_FIRST_WITHIN = 1 << 20
_LONGEST_PNM_HEADER = 1 << 10


class _Cut(Exception):
    """The frame is broken off or damaged after ``at`` bytes; what follows may be the next one."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


class _Bytes:
    """What was read and not yet given out."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.data = bytearray()

    def fill(self, size: int) -> bool:
        """Read on until there are ``size`` bytes; False where the stream ends before."""
        if size > MAX_FILE_BYTES:
            raise BadInput(f"a frame of the stream is over {MAX_FILE_BYTES >> 20} MB; check what is piped in")
        while len(self.data) < size:
            more = self._read(_CHUNK)
            if not more:
                return False
            self.data += more
        return True

    def need(self, size: int) -> None:
        """Read on until there are ``size`` bytes, or end the frame with what there is."""
        if not self.fill(size):
            raise _Cut(len(self.data))

    def find(self, wanted: bytes, at: int) -> int:
        """Return where ``wanted`` is, from ``at`` on, reading on until it comes."""
        while (place := self.data.find(wanted, at)) < 0:
            at = max(at, len(self.data) - len(wanted) + 1)
            self.need(len(self.data) + 1)
        return place

    def take(self, size: int) -> bytes:
        """Give out the first ``size`` bytes."""
        taken = bytes(self.data[:size])
        del self.data[:size]
        return taken


def split_frames(read: Read) -> Iterator[bytes]:
    """Yield the image files of a stream, such as ffmpeg's ``-f image2pipe`` writes, or a camera's MJPEG.

    What lies between JPEG or PNG frames is skipped: a multipart stream's headers, too. A frame that is
    broken off is yielded as it is, for the decoder to refuse.

    Raises:
        BadInput: no frame in the first MB, or a PPM that cannot be followed.
    """
    stream = _Bytes(read)
    kind = _first(stream)
    while kind is not None:
        try:
            end = _ENDS[kind](stream)
        except _Cut as cut:
            end = cut.at
        yield stream.take(end)
        if kind[:1] == b"P":
            kind = kind if stream.fill(1) else None
            continue
        try:
            stream.take(stream.find(kind, 0))
        except _Cut:
            return


def _first(stream: _Bytes) -> bytes | None:
    """Skip to the first frame and return how those of its kind begin; None for an empty stream."""
    if not stream.fill(2):
        return None
    begin = bytes(stream.data[:2])
    if begin in (b"P5", b"P6"):
        return begin
    while len(stream.data) < _FIRST_WITHIN:
        places = {start: stream.data.find(start) for start in (JPEG, PNG)}
        found = {start: place for start, place in places.items() if place >= 0}
        if found:
            start = min(found, key=lambda name: found[name])
            stream.take(found[start])
            return start
        if not stream.fill(len(stream.data) + 1):
            break
    raise BadInput("no JPEG, PNG, PPM or PGM frame at the stream's beginning; give raw pixels with --raw WxH")


def _jpeg_end(stream: _Bytes) -> int:
    """Follow the segments, and inside a scan the entropy-coded bytes (ITU T.81, annex B)."""
    at = 2
    while True:
        stream.need(at + 2)
        if stream.data[at] != 0xFF:
            raise _Cut(at)
        marker = stream.data[at + 1]
        if marker == 0xD9:  # end of image
            return at + 2
        if marker == 0xD8:  # the next image: this one has no end
            raise _Cut(at)
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD7:  # stuffed byte and restarts of a scan
            at = stream.find(b"\xff", at + 2)
        else:
            stream.need(at + 4)
            at += 2 + int.from_bytes(stream.data[at + 2 : at + 4], "big")
            if marker == 0xDA:  # a scan: its bytes go on to the next marker
                at = stream.find(b"\xff", at)


def _png_end(stream: _Bytes) -> int:
    at = len(PNG)
    while True:
        stream.need(at + 8)
        size, kind = int.from_bytes(stream.data[at : at + 4], "big"), bytes(stream.data[at + 4 : at + 8])
        if size > MAX_FILE_BYTES or not kind.isalpha():
            raise _Cut(at)
        at += 12 + size
        if kind == b"IEND":
            stream.need(at)
            return at


def _pnm_end(stream: _Bytes) -> int:
    size = 0
    while (match := PNM_HEADER.match(stream.data)) is None:
        size = len(stream.data) + 1
        if size > _LONGEST_PNM_HEADER or not stream.fill(size):
            raise BadInput("the stream's next frame is no PPM or PGM; check what is piped in")
    kind, width, height, most = (int(group) for group in match.groups())
    end = match.end() + width * height * (1 if kind == 5 else 3) * (1 if most < 256 else 2)
    stream.need(end)
    return end


_ENDS = {JPEG: _jpeg_end, PNG: _png_end, b"P5": _pnm_end, b"P6": _pnm_end}


def raw_frames(read: Read, size: int) -> Iterator[bytes]:
    """Yield ``size`` bytes at a time; a last one that is broken off is left out."""
    stream = _Bytes(read)
    while stream.fill(size):
        yield stream.take(size)
