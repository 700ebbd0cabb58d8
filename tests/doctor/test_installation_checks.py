"""What the doctor finds of an installation."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from nat2deploy.doctor import installation
from nat2deploy.doctor.installation import check_folder, check_installation, check_packages, check_threads
from nat2deploy.engines import status
from nat2deploy.measure import workloads


def by_name(findings):
    return {finding.name: finding for finding in findings}


def first_of(name):
    """What is found of one thing; what comes behind it is not checked."""
    return next(finding for finding in check_installation([]) if finding.name == name)


def test_this_installation_works():
    found = by_name(check_installation())
    assert [f for f in found.values() if f.state == "failure"] == []
    assert found["numpy"].words == metadata.version("numpy")
    assert "outputs within" in found["compile"].words
    assert found["data digits"].words == "1150 + 287 + 360 images"
    assert found["onnxruntime"].state == "ok"


def test_packages_that_are_missing_or_too_old_are_named_with_their_remedy():
    found = by_name(
        check_packages(["no-such-package>=2", "numpy>=1000", "torch>=1", "tomli; python_version < '3'"])
    )
    assert [(name, f.state) for name, f in found.items()] == [
        ("no-such-package", "failure"),
        ("numpy", "failure"),
        ("torch", "ok"),
    ]
    assert found["no-such-package"].words == "is not installed"
    assert found["no-such-package"].remedy == "pip install 'no-such-package>=2'"
    assert found["numpy"].words == f"is {metadata.version('numpy')}, >=1000 is needed"


def test_extras_are_optional_and_told_as_a_whole():
    found = by_name(
        check_packages(
            [
                'no-such-package; extra == "ray"',
                'numpy; extra == "ray"',
                'numpy; extra == "serve"',
                'no-such-package; sys_platform == "none" and extra == "serve"',
                'no-such-package; extra == "dev"',
                'nat2deploy[ray]; extra == "benchmarks"',
            ]
        )
    )
    assert list(found) == ["extra ray", "extra serve"]
    assert found["extra ray"].state == "optional"
    assert found["extra ray"].remedy == "pip install 'nat2deploy[ray]', if you need it"
    assert found["extra serve"].state == "ok"


def test_the_gpu_form_of_a_package_takes_its_place(monkeypatch):
    monkeypatch.setattr(installation, "version", {"onnxruntime-gpu": "1.30.0"}.get)
    (found,) = check_packages(["onnxruntime>=1.20"])
    assert (found.state, found.words) == ("ok", "1.30.0")


def test_files_that_are_not_installed_are_told(monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    monkeypatch.setattr(installation, "available_backends", list)
    found = by_name(check_installation())
    assert found["nat2deploy"].state == "warning" and "numpy" not in found


def test_a_broken_package_is_a_failure_in_one_line(monkeypatch):
    import torchvision.ops

    def broken(*_):
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    monkeypatch.setattr(torchvision.ops, "nms", broken)
    found = first_of("torchvision")
    assert (found.state, found.words) == ("failure", "operator torchvision::nms does not exist")
    assert found.remedy


@pytest.mark.parametrize("package", ["torch", "onnx", "onnxruntime"])
def test_a_package_that_cannot_be_imported_is_a_failure_beside_the_rest(package):
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from nat2deploy.cli import main\n"
        "sys.argv[1:] = ['doctor', '--time-limit', '0.5', '--json']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    found = json.loads(done.stdout)
    assert found["installation"][0]["name"] == "Python"
    failed = [one for area in found.values() for one in area if one["state"] == "failure"]
    assert any(package in one["words"] for one in failed)


@pytest.mark.parametrize(
    "error", [AttributeError("no core"), ImportError(), RuntimeError("of another numpy")]
)
def test_an_engine_that_cannot_be_imported_for_whatever_reason_is_listed(monkeypatch, error):
    plain = status.importlib.import_module

    def imported(name):
        if name == "openvino":
            raise error
        return plain(name)

    monkeypatch.setattr(status.importlib, "import_module", imported)
    (found,) = [one for one in status.available_backends() if one.name == "openvino"]
    words = str(error) or "ImportError"
    assert not found.available and (words in found.reason or "not installed" in found.reason)


def test_a_folder_that_cannot_be_looked_into_is_a_failure(monkeypatch):
    def denied(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", denied)
    found = check_folder("cache", Path("/there/cache"))
    assert found.state == "failure" and "Permission denied" in found.words


def test_an_engine_that_computes_something_else_is_a_failure(monkeypatch):
    compile_candidate = workloads.compile_candidate

    class Wrong:
        def __init__(self, engine):
            self.input_shape, self._run = engine.input_shape, engine.run

        def run(self, images):
            return self._run(images) + 1

    monkeypatch.setattr(workloads, "compile_candidate", lambda *a: Wrong(compile_candidate(*a)))
    assert "differs from PyTorch" in first_of("compile").words


def test_a_folder_is_made_where_it_can_be_and_needs_room(tmp_path, monkeypatch):
    found = check_folder("cache", tmp_path / "a" / "b")
    assert found.state == "ok" and "GB free" in found.words
    assert list(tmp_path.iterdir()) == []
    usage = installation.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(installation.shutil, "disk_usage", lambda _: usage)
    assert check_folder("cache", tmp_path).state == "warning"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc, where nobody can write")
def test_a_folder_that_cannot_be_written_is_a_failure():
    found = check_folder("cache", Path("/proc/self"))
    assert found.state == "failure" and "/proc/self cannot be written" in found.words


@pytest.mark.parametrize(
    ("given", "state", "words"),
    [
        (None, "ok", "4 cores"),
        ("4", "ok", "OMP_NUM_THREADS=4"),
        ("1", "warning", "idle"),
        ("9", "warning", "more than there are"),
        ("4,2", "ok", "OMP_NUM_THREADS=4,2"),
    ],
)
def test_threads_fit_the_cores(given, state, words):
    found = check_threads(given, 4)
    assert found.state == state and words in found.words
