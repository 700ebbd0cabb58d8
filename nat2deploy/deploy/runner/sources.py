"""Where a stream's frames come from: a pipe or file of frames, or a folder that new images are put into."""

from __future__ import annotations

import sys
import threading
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .frames import raw_frames, split_frames
from .images import decode, is_image, read_image
from .refusal import BadInput, check_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

CHANNELS = {"rgb24": 3, "bgr24": 3, "gray": 1}
"""Raw pixel formats, by ffmpeg's names, with their bytes a pixel."""
_POLL_S = 0.05


class Frame(NamedTuple):
    """A frame that is decoded when it is needed: skipped ones cost nothing."""

    name: str
    pixels: Callable[[], Pixels]


class RawFormat(NamedTuple):
    """Raw frames' size and pixel format."""

    width: int
    height: int
    pixel: str

    @classmethod
    def parse(cls, text: str) -> RawFormat:
        """Read such as ``640x480`` or ``640x480:gray``.

        Raises:
            ValueError: something else.
            ArgumentTypeError: no pixels, or too many.
        """
        size, _, pixel = text.partition(":")
        width, _, height = size.partition("x")
        found = cls(int(width), int(height), pixel or "rgb24")
        if found.pixel not in CHANNELS:
            raise ValueError(text)
        try:
            check_size(found.width, found.height)
        except BadInput as error:  # argparse takes no other class's words
            raise ArgumentTypeError(str(error)) from None
        return found

    def decode(self, data: bytes) -> Pixels:
        """Return a frame's pixels as RGB [H, W, 3]."""
        pixels = np.frombuffer(data, np.uint8).reshape(self.height, self.width, -1)
        if self.pixel == "bgr24":
            return pixels[..., ::-1]
        return np.broadcast_to(pixels, (self.height, self.width, 3))


def open_source(name: str, raw: RawFormat | None) -> Iterator[Frame]:
    """Yield the frames of ``-`` (standard input), a file or named pipe, or a folder that is watched.

    Raises:
        BadInput: nothing there, or no frames in it.
    """
    path = Path(name)
    if path.is_dir():
        if raw is not None:
            raise BadInput(f"{path}: a folder holds image files; leave out --raw")
        return watch(path)
    return _pipe(name, raw)


def _pipe(name: str, raw: RawFormat | None) -> Iterator[Frame]:
    try:
        # Unbuffered: a frame is to come out as soon as it is in.
        stream = open(sys.stdin.fileno() if name == "-" else name, "rb", buffering=0)  # noqa: PTH123, SIM115
    except OSError as error:
        raise BadInput(f"{name}: {error.strerror}; check the path, or give - for standard input") from None
    with stream:
        decoded: Callable[[bytes], Pixels] = decode
        if raw is None:
            found = split_frames(stream.read)
        else:
            size = raw.width * raw.height * CHANNELS[raw.pixel]
            found, decoded = raw_frames(stream.read, size), raw.decode
        for index, data in enumerate(found):
            yield Frame(str(index), lambda data=data: decoded(data))  # type: ignore[misc]


def watch(folder: Path) -> Iterator[Frame]:
    """Yield the images that are in ``folder``, then those that are put there or written anew, for ever.

    A file is taken when it has stayed the same between two looks, so that one half written is waited for.
    """
    seen: dict[Path, tuple[int, int]] = {}
    taken: dict[Path, tuple[int, int]] = {}
    while True:
        now: dict[Path, tuple[int, int]] = {}
        for path in folder.iterdir():
            try:
                if not is_image(path):
                    continue
                state = path.stat()
            except OSError:  # it has just gone
                continue
            now[path] = (state.st_mtime_ns, state.st_size)
        ready = [path for path, state in now.items() if seen.get(path) == state != taken.get(path)]
        for path in sorted(ready, key=lambda path: (now[path], path)):
            taken[path] = now[path]
            yield Frame(str(path), lambda path=path: read_image(path))  # type: ignore[misc]
        seen = now
        taken = {path: state for path, state in taken.items() if path in now}
        time.sleep(_POLL_S)


def newest(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Yield the newest frame each time, and skip those that came while the one before was at work."""
    change = threading.Condition()
    waiting: list[Frame] = []
    ended: list[BaseException | None] = []

    def read_on() -> None:
        error: BaseException | None = None
        try:
            for frame in frames:
                with change:
                    waiting[:] = [frame]
                    change.notify()
        except Exception as caught:  # handed to who asks for frames
            error = caught
        with change:
            ended.append(error)
            change.notify()

    threading.Thread(target=read_on, daemon=True).start()
    while True:
        with change:
            while not waiting and not ended:
                change.wait()
            if not waiting:
                if ended[0] is not None:
                    raise ended[0]
                return
            frame = waiting.pop()
        yield frame
