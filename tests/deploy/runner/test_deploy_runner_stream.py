"""Streams of frames through the program: pipes, watched folders, frames that come too fast."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from deploy_helpers import make_images
from PIL import Image

from nat2deploy.deploy.runner.images import decode
from nat2deploy.deploy.runner.program import main
from nat2deploy.deploy.runner.sources import Frame, RawFormat, newest, open_source, watch


def frames(count: int = 4) -> list[np.ndarray]:
    return [image.permute(1, 2, 0).numpy() for image in make_images(count)]


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def piped(bundle: Path, data: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, str(bundle / "run.py"), "--stream", "-", *words]
    return subprocess.run(command, input=data, capture_output=True, check=False, timeout=60)


def classes_of(bundle: Path, folder: Path, files: list[bytes], kind: str, capsys) -> list[list]:
    """What the program says about the same frames as files."""
    paths = []
    for index, data in enumerate(files):
        paths.append(folder / f"{index}.{kind}")
        paths[-1].write_bytes(data)
    capsys.readouterr()
    assert main(bundle, [*map(str, paths), "--json"]) == 0
    return [image["top"] for image in json.loads(capsys.readouterr().out)["images"]]


@pytest.mark.parametrize("kind", ["jpeg", "png", "ppm"])
def test_a_pipe_of_frames_is_classified_as_its_files_are(
    kind: str, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [encoded(pixels, kind) for pixels in frames()]
    done = piped(exported, b"".join(files), "--json", "--top", "3")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["frame"] for line in lines] == ["0", "1", "2", "3"]
    assert [line["top"] for line in lines] == classes_of(exported, tmp_path, files, kind, capsys)
    assert all(line["latency_ms"] > 0 for line in lines)
    assert b"4 frames, 0 not read" in done.stderr


@pytest.mark.parametrize("pixel", ["rgb24", "bgr24", "gray"])
def test_raw_pixels_are_those_of_an_image(pixel: str) -> None:
    (image,) = frames(1)
    if pixel == "gray":
        image = np.repeat(image[..., :1], 3, axis=2)
    raw = RawFormat.parse(f"28x20:{pixel}")
    data = {"rgb24": image, "bgr24": image[..., ::-1], "gray": image[..., :1]}[pixel].tobytes()
    np.testing.assert_array_equal(raw.decode(data), image)


def test_raw_frames_need_no_decoder(exported: Path) -> None:
    data = b"".join(pixels.tobytes() for pixels in frames())
    done = piped(exported, data + b"half a frame", "--raw", "28x20")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 4


def test_a_bad_frame_is_named_and_the_others_are_classified(exported: Path) -> None:
    good = encoded(frames(1)[0], "png")
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 1
    done = piped(exported, good + bytes(bad) + good)
    assert done.returncode == 2 and len(done.stdout.splitlines()) == 2
    assert b"run.py: frame 1: the PNG is damaged" in done.stderr
    assert b"2 frames, 1 not read" in done.stderr


def test_a_frame_comes_out_before_the_next_goes_in(exported: Path) -> None:
    command = [sys.executable, str(exported / "run.py"), "--stream", "-"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    for pixels in frames(2):
        process.stdin.write(encoded(pixels, "png"))
        process.stdin.flush()
        assert b" ms)" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0 and b"2 frames, 0 not read" in said and b"Traceback" not in said


def test_a_reader_that_has_seen_enough_ends_it_quietly(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "many").write_bytes(encoded(frames(1)[0], "ppm") * 3000)
    command = f"{sys.executable} {exported}/run.py --stream {tmp_path}/many | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1 and done.stderr == ""


def test_a_watched_folder_gives_what_is_there_and_what_comes(tmp_path: Path) -> None:
    first, second = frames(2)
    (tmp_path / "b.png").write_bytes(encoded(first, "png"))
    (tmp_path / "aa.png").mkdir()
    (tmp_path / "notes.txt").write_text("no image")
    found = watch(tmp_path)
    frame = next(found)
    assert frame.name == str(tmp_path / "b.png")
    np.testing.assert_array_equal(frame.pixels(), first)

    def write_slowly() -> None:
        data = encoded(second, "png")
        with (tmp_path / "a.png").open("wb", buffering=0) as stream:
            for start in range(0, len(data), 400):
                stream.write(data[start : start + 400])
                time.sleep(0.01)

    writer = threading.Thread(target=write_slowly)
    writer.start()
    frame = next(found)
    writer.join()
    assert frame.name == str(tmp_path / "a.png")
    np.testing.assert_array_equal(frame.pixels(), second)
    (tmp_path / "b.png").write_bytes(encoded(second, "png"))  # written anew
    assert next(found).name == str(tmp_path / "b.png")


def test_limit_ends_a_watched_folder(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        (tmp_path / f"{name}.ppm").write_bytes(encoded(frames(1)[0], "ppm"))
    assert main(exported, ["--stream", str(tmp_path), "--limit", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_newest_skips_what_came_in_the_meantime() -> None:
    released = threading.Event()

    def camera() -> Iterator[Frame]:
        for index in range(6):
            if index == 1:
                released.wait(10)
            yield Frame(str(index), lambda: np.zeros((1, 1, 3), np.uint8))

    found = newest(camera())
    names = [next(found).name]
    released.set()
    time.sleep(0.2)  # the first one is at work while the others come
    names += [frame.name for frame in found]
    assert names == ["0", "5"]


def test_newest_hands_on_what_went_wrong(tmp_path: Path) -> None:
    def camera() -> Iterator[Frame]:
        yield Frame("0", lambda: decode(b""))
        raise ValueError("unplugged")

    found = newest(camera())
    with pytest.raises(ValueError, match="unplugged"):
        list(found)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--stream", "nowhere"], "nowhere: No such file or directory; check the path"),
        (["--stream", "-", "x.png"], "do not go together"),
        (["--stream", "-", "--raw", "28"], "invalid parse value"),
        (["--stream", "-", "--raw", "28x20:yuv"], "invalid parse value"),
        (["--stream", "-", "--raw", "0x0"], "argument --raw: 0 x 0 pixels; give 1 to 64 million"),
        (["--stream", "-", "--raw", "9000x9000"], "argument --raw: 9000 x 9000 pixels; give 1 to 64 million"),
        (["--raw", "28x20", "x.png"], "are for --stream"),
        (["--stream", ".", "--raw", "28x20"], "leave out --raw"),
    ],
)
def test_bad_words_are_one_line(
    exported: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(exported, words)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_an_empty_stream_is_exit_code_two(exported: Path) -> None:
    done = piped(exported, b"")
    assert done.returncode == 2 and b"0 frames, 0 not read" in done.stderr


def test_a_named_pipe_is_read(exported: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "camera")
    data = encoded(frames(1)[0], "jpeg")
    writer = threading.Thread(target=lambda: (tmp_path / "camera").write_bytes(data * 2))
    writer.start()
    names = [frame.name for frame in open_source(str(tmp_path / "camera"), None)]
    writer.join()
    assert names == ["0", "1"]
