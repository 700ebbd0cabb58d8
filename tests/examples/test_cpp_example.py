"""The C++ example, built against ONNX Runtime's headers and the library inside its Python package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy"))

from deploy_helpers import LABELS, export_net, make_images

from nat2deploy.deploy.runner.network import Network
from nat2deploy.deploy.runner.preprocess import preprocess
from nat2deploy.deploy.runner.program import main

HEADER = "onnxruntime_cxx_api.h"
PLACES = ("/usr/include/onnxruntime", "/usr/local/include/onnxruntime", "/usr/include", "/usr/local/include")


@pytest.fixture(scope="module")
def program(tmp_path_factory, repository) -> Path:
    """The built example; ONNXRUNTIME_INCLUDE_DIR says where the headers are, which no Python package holds."""
    places = map(Path, (os.environ.get("ONNXRUNTIME_INCLUDE_DIR", "/nowhere"), *PLACES))
    include = next((place for place in places if (place / HEADER).is_file()), None)
    if include is None:
        pytest.skip(f"no {HEADER} here; set ONNXRUNTIME_INCLUDE_DIR to a folder that holds it")
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("no cmake and C++ compiler here")
    build = tmp_path_factory.mktemp("cpp")
    library = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"), None)
    if library is None:
        pytest.skip("the onnxruntime package has no shared library to link with")
    words = [f"-DONNXRUNTIME_INCLUDE_DIR={include}", f"-DONNXRUNTIME_LIBRARY={library}"]
    # The library's own name, which the program asks for when it starts.
    (build / "libonnxruntime.so.1").symlink_to(library)
    words += [f"-DCMAKE_BUILD_RPATH={build}", "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror"]
    for command in (
        ["cmake", "-S", repository / "examples" / "cpp", "-B", build, *words],
        ["cmake", "--build", build],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "classify"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "tiny"
    export_net(out, time_limit_s=None)
    return out


def run(program: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False)


def test_its_logits_are_those_of_python(program, bundle, tmp_path):
    pixels = make_images(1)[0].permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "image.png")
    assert main(bundle, [str(tmp_path / "image.png"), "--input-for", str(tmp_path / "input.f32")]) == 0
    done = run(program, bundle / "model.onnx", bundle / "labels.txt", tmp_path / "input.f32")
    assert done.returncode == 0, done.stderr
    found = {label: float(logit) for logit, label in (line.split("\t") for line in done.stdout.splitlines())}
    network = Network(bundle, None)
    expected = network.logits(preprocess(pixels, network.spec)[None])[0]
    assert list(found) == [LABELS[index] for index in np.argsort(-expected)]
    np.testing.assert_allclose([found[label] for label in LABELS], expected, atol=1e-5)


def test_bad_input_is_one_line(program, bundle, tmp_path):
    (tmp_path / "short").write_bytes(b"1234")
    model, labels = bundle / "model.onnx", bundle / "labels.txt"
    for words in (
        [],
        [model, labels, tmp_path / "short"],
        [tmp_path / "no.onnx", labels, tmp_path / "short"],
    ):
        done = run(program, *words)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith("classify: ") and len(done.stderr.splitlines()) == 1
