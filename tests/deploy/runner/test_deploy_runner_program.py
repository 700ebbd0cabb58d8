"""The runner as a program: alone, with numpy and onnxruntime only, and with bad input."""

from __future__ import annotations

import ast
import json
import py_compile
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deploy_helpers import LABELS, again, make_images
from PIL import Image

from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.deploy.reference import load_reference
from nat2deploy.deploy.runner import images, program
from nat2deploy.deploy.runner.network import Network
from nat2deploy.deploy.runner.program import main
from nat2deploy.deploy.runner.proof import bench, check
from nat2deploy.deploy.runner_files import runner_files
from nat2deploy.target import Target

# Lets the standard library, numpy and onnxruntime in, and nothing else.
BLOCKER = """
import importlib.abc, runpy, sys
ALLOWED = {*sys.stdlib_module_names, "numpy", "onnxruntime"}
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_alone(bundle: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-I", "-c", BLOCKER, str(bundle / "run.py"), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, cwd=bundle.parent, check=False)


def run_here(bundle: Path, *arguments: object) -> int:
    """Run the bundle's program in this process."""
    return main(bundle, [str(argument) for argument in arguments])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    Image.fromarray(make_images(1)[0].permute(1, 2, 0).numpy()).save(path)
    return path


def refused(bundle: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        run_here(bundle, *arguments)
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_runs_alone_and_says_what_pytorch_says(exported: Path, image: Path) -> None:
    done = run_alone(exported, image, "--json", "--check")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    logits = torch.from_numpy(load_reference(exported / "reference.npz")[1][:1])
    scores = logits.softmax(1)[0]
    (one,) = found["images"]
    assert [entry["label"] for entry in one["top"]] == [LABELS[i] for i in scores.argsort(descending=True)]
    np.testing.assert_allclose(
        [entry["score"] for entry in one["top"]], scores.sort(descending=True).values, atol=1e-4
    )
    assert found["check"]["ok"] is True and found["check"]["images"] == 12
    assert not (exported / "__pycache__").exists()


def test_other_formats_without_pillow_are_refused_in_one_line(exported: Path, image: Path) -> None:
    jpeg = image.with_suffix(".jpg")
    Image.open(image).save(jpeg)
    done = run_alone(exported, jpeg)
    assert done.returncode == 2 and "pip install pillow" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_serving_without_waitress_says_what_to_install(exported: Path) -> None:
    done = run_alone(exported, "--serve", "0")
    assert done.returncode == 2
    assert done.stderr == "run.py: --serve needs waitress; run `pip install waitress`\n"


def test_without_onnxruntime_it_says_what_to_install(exported: Path, image: Path) -> None:
    words = [sys.executable, "-I", "-S", str(exported / "run.py"), str(image)]  # -S: no installed packages
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "pip install numpy onnxruntime" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", list(runner_files()))
def test_is_python_3_9(name: str) -> None:
    ast.parse(runner_files()[name], feature_version=(3, 9))


def test_an_old_python_is_told_so_in_one_line(exported: Path) -> None:
    code = (
        "import runpy, sys; sys.version_info = (3, 8, 1); sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    words = [sys.executable, "-I", "-c", code, str(exported / "run.py")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "run.py: Python 3.8 is too old, 3.9 or newer is needed\n"


def test_no_cached_copy_of_the_program_is_read_or_written(bundle: Path, image: Path) -> None:
    program = bundle / "runner" / "program.py"
    honest = program.read_bytes()
    program.write_text("def main(folder, arguments):\n    print('mine')\n")
    py_compile.compile(str(program), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    (cache,) = (bundle / "runner" / "__pycache__").iterdir()
    program.write_bytes(honest)
    before = cache.read_bytes()
    done = run_alone(bundle, image)
    assert done.returncode == 0 and done.stdout.startswith(str(image))
    assert [(path, path.read_bytes()) for path in cache.parent.iterdir()] == [(cache, before)]


def test_a_missing_part_of_the_program_is_one_line(bundle: Path, image: Path) -> None:
    (bundle / "runner" / "png.py").unlink()
    done = run_alone(bundle, image)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "png.py: No such file or directory; export the bundle again" in line


def test_prints_scores_for_people(exported: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(exported, image, "--top", 2, "--threads", 1) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == str(image) and len(rest) == 2
    assert all(line.split(" %  ")[1] in LABELS for line in rest)


def test_a_folder_is_its_images(exported: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = image.parent / "many"
    folder.mkdir()
    for name in ("b.PNG", "a.ppm"):
        Image.open(image).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    (folder / "._b.png").write_text("a file manager's")
    (folder / "dir.png").mkdir()
    assert run_here(exported, folder, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [Path(one["image"]).name for one in found["images"]] == ["a.ppm", "b.PNG"]
    assert found["images"][0]["top"] == found["images"][1]["top"]


def test_every_format_that_is_trained_on_counts_in_a_folder(exported: Path, image: Path) -> None:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    assert set(IMG_EXTENSIONS) <= set(images.SUFFIXES)
    folder = mkdir(image.parent / "scans")
    Image.open(image).save(folder / "a.tif")
    assert run_here(exported, folder, "--top", 1) == 0


def test_the_good_images_are_classified_beside_a_bad_one(
    exported: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = image.parent / "bad.png"
    bad.write_bytes(image.read_bytes()[:60])
    assert run_here(exported, bad, image) == 2
    captured = capsys.readouterr()
    assert captured.err == f"run.py: {bad}: the PNG is cut short; copy it again\n"
    assert captured.out.splitlines()[0] == str(image)


def test_bench_prints_times(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = bench(Network(exported, None), seconds=0.6)
    assert 0 < figures["median_ms"] <= figures["p95_ms"] <= figures["p99_ms"]
    assert figures["runs"] >= 20 and figures["threads"] == 1
    assert figures["images_per_s"] == pytest.approx(1e3 / figures["median_ms"])


def test_a_batch_is_filled_up(export: Callable[..., Manifest], exported: Path, tmp_path: Path) -> None:
    export(target=Target(batch=5))
    network, single = Network(tmp_path / "out", None), Network(exported, None)
    inputs = np.random.default_rng(0).standard_normal((7, *network.shape[1:])).astype(np.float32)
    np.testing.assert_allclose(network.logits(inputs), single.logits(inputs), atol=1e-5)
    assert check(network)["ok"]


@pytest.mark.parametrize("broken", ["004.png", "zz.png"])
def test_files_go_through_the_network_a_batch_at_a_time(
    export: Callable[..., Manifest],
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
) -> None:
    export(target=Target(batch=5))
    folder = tmp_path / "images"
    folder.mkdir()
    for index, image in enumerate(make_images(12)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index:03}.png")
    (folder / broken).write_bytes(b"junk")
    ran: list[int] = []

    class Counting(Network):
        """Says which batches it is given."""

        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            run = self.run
            self.run = lambda images: (ran.append(len(images)), run(images))[1]

    monkeypatch.setattr(program, "Network", Counting)
    found = []
    for bundle in (tmp_path / "out", exported):
        assert run_here(bundle, folder, "--json") == 2
        captured = capsys.readouterr()
        found.append(json.loads(captured.out)["images"])
        (line,) = captured.err.splitlines()
        assert broken in line
    names = [one.name for one in sorted(folder.iterdir()) if one.name != broken]
    assert ran == [5] * -(-len(names) // 5) + [1] * len(names)
    for batched, single, name in zip(*found, names, strict=True):
        assert batched["image"] == single["image"] == str(folder / name)
        assert [one["index"] for one in batched["top"]] == [one["index"] for one in single["top"]]
        np.testing.assert_allclose(
            *([one["score"] for one in each["top"]] for each in (batched, single)), atol=1e-5
        )


def test_stopped_it_prints_what_it_has_found(
    exported: Path, image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, asked = program.read_image, []

    def stopped_at_the_third(path: Path) -> Any:
        asked.append(path)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return read(path)

    def stopped(*_: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "read_image", stopped_at_the_third)
    assert run_here(exported, image, image, image, "--json", "--bench") == 130
    captured = capsys.readouterr()
    assert [one["image"] for one in json.loads(captured.out)["images"]] == [str(image)] * 2
    assert captured.err == "run.py: interrupted; this was found before\n"
    monkeypatch.setattr(program, "bench", stopped)
    assert run_here(exported, image, "--json", "--bench") == 130
    assert json.loads(capsys.readouterr().out).keys() == {"images"}


def test_stopped_before_it_has_found_anything_it_says_so_in_a_line(bundle: Path) -> None:
    code = (
        "import sys; sys.argv[1:] = ['--bench']; sys.path.insert(0, '.')\n"
        "import run; main = run.load()\n"
        "def stopped(*_): raise KeyboardInterrupt\n"
        "sys.modules['bundle_runner.program'].bench = stopped\n"
        "run.load = lambda: main\n"
        "sys.exit(run.start())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=bundle, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "run.py: interrupted\n")


@pytest.mark.parametrize("content", [b"x = (", b"\x00", b"raise ValueError\n", b"", b"\xff = 1\n"])
@pytest.mark.parametrize("name", ["program.py", "refusal.py"])
def test_a_damaged_program_is_named(bundle: Path, image: Path, name: str, content: bytes) -> None:
    (bundle / "runner" / name).write_bytes(content)
    done = run_alone(bundle, image)
    path = bundle / "runner" / name
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"run.py: {path}: changed (hash differs); export the bundle again\n"


def test_an_images_input_can_be_had_for_other_languages(
    exported: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(exported, image, "--input-for", image.parent / "input.f32", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["images"]
    network = Network(exported, None)
    given = np.fromfile(image.parent / "input.f32", np.float32).reshape(network.shape)
    assert network.best(network.logits(given)[0], 5) == found["top"]
    assert "name one" in refused(exported, capsys, image, image, "--input-for", image.parent / "input.f32")


def test_bad_input_is_one_line(exported: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no images" in refused(exported, capsys)
    assert "no images inside" in refused(
        exported, capsys, image.parent / "empty", mkdir(image.parent / "empty")
    )
    assert "invalid count value: '0'" in refused(exported, capsys, image, "--top", "0")
    assert "give 1 to 1024" in refused(exported, capsys, image, "--threads", "100000")
    assert "unrecognized arguments" in refused(exported, capsys, image, "--sideways")


def mkdir(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_missing_image_is_one_line(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(exported, "nowhere.png") == 2
    assert capsys.readouterr().err.startswith("run.py: nowhere.png: no file")


def test_a_changed_model_is_refused(bundle: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = bytearray((bundle / "model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(model)
    assert "hash differs" in refused(bundle, capsys, image)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda manifest: manifest.pop("model"),
        lambda manifest: manifest.update(model="../model.onnx"),
        lambda manifest: manifest["input"]["preprocessing"].update(mean="grey"),
        lambda manifest: manifest["input"]["preprocessing"].update(resolution=10**9),
        lambda manifest: manifest["input"].update(shape=[]),
        lambda manifest: manifest.update(files={}),
        lambda manifest: manifest["output"].update(labels=["one"]),
        lambda manifest: manifest["target"].update(threads=100_000),
    ],
)
def test_a_damaged_manifest_is_one_line(
    bundle: Path, image: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[dict], object]
) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    spoil(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert str(bundle) in refused(bundle, capsys, image)


def test_a_failed_check_is_exit_code_one(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, logits = load_reference(bundle / "reference.npz")
    np.savez(bundle / "reference.npz", images=images.numpy(), logits=logits[::-1])
    again(bundle)
    assert run_here(bundle, "--check") == 1
    assert "ok 0" in capsys.readouterr().out
    (bundle / "reference.npz").write_bytes(b"no archive")
    assert "reference.npz" in refused(bundle, capsys, "--check")


def test_an_engine_that_fails_is_not_a_damaged_file(
    exported: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Any:
        raise RuntimeError("no kernel for this device\nand more")

    monkeypatch.setattr(Network, "exit_logits", fails)
    line = refused(exported, capsys, "--check")
    assert line == "run.py: the network does not run here: no kernel for this device"


def test_the_bundled_runner_is_the_packaged_one(exported: Path) -> None:
    files = runner_files()
    assert {"run.py", "runner/__init__.py", "runner/program.py"} <= set(files)
    with open_bundle(exported) as bundle:
        assert files.keys() <= bundle.manifest.files.keys()
    assert all((exported / name).read_bytes() == content for name, content in files.items())


def test_a_bundle_for_another_engine_is_refused(
    bundle: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bundle / "manifest.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"onnxruntime"', '"tensorrt"', 1), encoding="utf-8"
    )
    assert "is for TensorRT and has no recipe" in refused(bundle, capsys, image)


def test_check_finds_a_changed_file_of_any_kind(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "labels.txt").write_text("other")
    assert "labels.txt: changed (hash differs)" in refused(bundle, capsys, "--check")
    (bundle / "labels.txt").unlink()
    assert "labels.txt: missing" in refused(bundle, capsys, "--check")
