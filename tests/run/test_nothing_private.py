"""What leaves the machine says nothing of its folders, its users or its name."""

import getpass
import io
import json
import socket
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from early_run import make_run
from PIL import Image
from whole_way import TINY_SPACE

import nat2deploy as package
from nat2deploy.data.load import load_data
from nat2deploy.report.write import write_report
from nat2deploy.run.config import ExportConfig, ProfileConfig, SearchConfig, SpaceConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.export import export
from nat2deploy.run.front import load_front
from nat2deploy.run.kit import make_kit
from nat2deploy.target import Target

TELL_TALE = "tell-tale-ada"


def contents(path: Path):
    """The bytes of a file; of a zip or a PNG also those inside it, unpacked."""
    data = path.read_bytes()
    yield data
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield archive.read(name)
    if data.startswith(b"\x89PNG"):
        for start in (at for at in range(len(data)) if data.startswith((b"tEXt", b"zTXt", b"iTXt"), at)):
            yield data[start : start + 1000]
            try:
                yield zlib.decompress(data[start + 4 :].split(b"\0\0", 1)[-1])
            except zlib.error:
                continue


def leaks(paths, words):
    """Which of the words stand in which of the files, folders taken as all that is in them."""
    files = [f for path in paths for f in (path.rglob("*") if path.is_dir() else [path]) if f.is_file()]
    assert files
    # Wide characters, too: text may be kept so.
    forms = {
        word: [json.dumps(word)[1:-1].encode(), *(word.encode(f"utf-{n}") for n in ("8", "16-le", "32-le"))]
        for word in words
    }
    return [
        f"{word} in {file.name}"
        for file in files
        for content in contents(file)
        for word, wanted in forms.items()
        if any(form in content for form in wanted)
    ]


def own_words() -> list[str]:
    """Folders of this machine, and names that are no ordinary words."""
    folders = [str(Path.home()), str(Path(package.__file__).parents[1]), sys.prefix, str(Path.cwd())]
    names = [name for name in (socket.gethostname(), getpass.getuser()) if len(name) > 7]
    return [word for word in (*folders, *names) if len(word) > 2]


def test_the_search_for_leaks_finds_them(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside.txt", 100 * "nothing " + TELL_TALE)
    np.savez_compressed(tmp_path / "b.npz", text=np.array(TELL_TALE))
    (tmp_path / "c.json").write_text('{"place": "tell-tale-ada"}')
    (tmp_path / "d.txt").write_text("nothing")
    assert sorted(leaks([tmp_path], [TELL_TALE])) == [
        f"{TELL_TALE} in {n}" for n in ("a.zip", "b.npz", "c.json")
    ]


def test_a_pipeline_ships_nothing_private(outcome):
    shipped = [outcome.bundle, outcome.report, outcome.out / "report", outcome.out / "table.json"]
    shipped += [outcome.out / "search" / "front.json", outcome.out / "verification.json"]
    words = [str(outcome.out), str(outcome.out.parent), outcome.out.parent.name, *own_words()]
    assert leaks(shipped, words) == []


@pytest.fixture
def photos(tmp_path) -> Path:
    """A user's own images, in a folder whose name must not be told."""
    data = load_data("digits")
    folder = tmp_path / TELL_TALE / "photos"
    for label in range(10):
        place = folder / str(label)
        place.mkdir(parents=True)
        of_class = data.train.images[data.train.targets == label][:10]
        for index, image in enumerate(of_class):
            Image.fromarray(image[0].numpy()).save(place / f"{index}.png")
    return folder


def test_a_users_own_folder_is_not_told_of(photos, tmp_path):
    made = tmp_path / TELL_TALE / "made"
    made.mkdir()
    run = RunDirectory(make_run(made))
    config = run.read_config(SearchConfig).model_copy(update={"data": f"imagefolder:{photos}"})
    run.config_path.write_text(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))
    bundle = tmp_path / TELL_TALE / "bundle.zip"
    manifest = export(run.path, ExportConfig(), bundle)
    assert manifest.evidence.accuracy is not None
    assert manifest.evidence.accuracy.dataset == "imagefolder:photos"
    written = write_report(run.path, bundle=bundle)
    front = load_front(run.front_path)
    assert front.networks
    assert leaks([bundle, written.report, *written.pictures], [TELL_TALE, *own_words()]) == []


def test_a_kit_says_nothing_private(tmp_path):
    place = tmp_path / TELL_TALE
    place.mkdir()
    space = place / "space.toml"
    space.write_text(TINY_SPACE)
    settings = ProfileConfig(calibration_networks=8, held_out_networks=8, time_limit_s=5)
    make_kit(SpaceConfig(name=str(space)), Target(), settings, place / "kit.zip")
    assert leaks([place / "kit.zip"], [TELL_TALE, *own_words()]) == []
